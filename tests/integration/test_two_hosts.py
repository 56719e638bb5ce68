"""One request whose branches run on two hosts: network namespaces with a Ray node and an engine replica in each."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.two_hosts import CABLE, ray_on, two_hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KV_BYTES = 2 * 30 * 3 * 64 * 4
"""Of one token: keys and values, layers, heads, width, float32."""


@pytest.fixture(scope="module")
def told(root: Path, builtin_model: Path) -> dict[str, Any]:
    """What `tests.integration.spread_request` says on the head."""
    with two_hosts() as hosts, ray_on(hosts) as cluster:
        program = [sys.executable, "-m", "tests.integration.spread_request", str(builtin_model), CABLE]
        ran = subprocess.run(
            cluster.head.command(*program),
            cwd=root,
            env=cluster.environment | {"PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)])},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-5000:]
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


def branch_tokens(told: dict[str, Any], asked: str) -> Counter[str]:
    """Tokens of the block's branches, by the host they ran on."""
    (block,) = told[asked]["parallel"]["blocks"]
    tokens: Counter[str] = Counter()
    for branch in block["branches"]:
        tokens[told["replicas"][branch["replica"]]] += branch["tokens"]
    return tokens


def test_branches_run_on_both_hosts(told: dict[str, Any]) -> None:
    assert branch_tokens(told, "spread").keys() == {"10.0.0.1", "10.0.0.2"}
    assert len(branch_tokens(told, "home")) == 1


def test_kv_goes_over_the_wire_and_is_not_computed_again(told: dict[str, Any]) -> None:
    # The replica that goes on is one of the two, and has to have the branches of the other.
    fewest = min(branch_tokens(told, "spread").values())
    assert fewest > 10
    assert min(told["received_bytes"], told["wire_bytes"]) > fewest * KV_BYTES
    assert (told["kv_mismatches"], told["rebuilds"]) == (0, {})


def test_answer_is_that_of_one_host(told: dict[str, Any]) -> None:
    spread, home = (told[asked]["choices"][0] for asked in ("spread", "home"))
    assert spread["message"]["content"] == home["message"]["content"] != ""
    pairs = list(zip(spread["logprobs"]["content"], home["logprobs"]["content"], strict=True))
    assert len(pairs) > 100
    assert max(abs(one["logprob"] - other["logprob"]) for one, other in pairs) <= 1e-4


def test_nothing_is_left(told: dict[str, Any]) -> None:
    assert told["left"] == {"leases": 0, "exports": 0, "running": 0, "waiting": 0}
