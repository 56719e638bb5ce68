"""How much of the machine others take."""

import subprocess
import sys
import time

import pytest

from multiverse.evaluation.speed.disturbance import Busy, others

BURN = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"


def test_share_is_that_of_the_cores_less_our_own() -> None:
    assert others(Busy(100.0, 40.0, 0.0), Busy(118.0, 52.0, 10.0), cores=2) == pytest.approx(0.3)
    assert others(Busy(100.0, 40.0, 0.0), Busy(110.0, 52.0, 10.0), cores=2) == 0.0
    assert others(Busy(1.0, 1.0, 5.0), Busy(1.0, 1.0, 5.0)) == 0.0


def test_work_below_this_process_is_our_own() -> None:
    begun = Busy.now()
    below = subprocess.Popen([sys.executable, "-c", BURN])
    time.sleep(1.2)
    ended = Busy.now()
    below.wait()
    assert ended.ours - begun.ours > 0.2
    assert ended.everybody - begun.everybody >= ended.ours - begun.ours - 0.1
