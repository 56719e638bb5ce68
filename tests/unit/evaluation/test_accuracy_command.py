"""What the command and Ray's workers do where something fails."""

from pathlib import Path
from typing import Any

import pytest

from multiverse.commands import evaluate as command
from multiverse.evaluation.accuracy.asking import AnswerError
from multiverse.evaluation.accuracy.config import EndpointTarget, EvaluateConfig
from multiverse.evaluation.accuracy.run import Evaluated, evaluate
from multiverse.evaluation.accuracy.workers import Worker
from tests.unit.evaluation.accuracy_fakes import Told, config, opener, right


def test_pairs_that_fail_leave_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path, against="theirs", speed_pairs=1)

    async def evaluated(*_: Any) -> Evaluated:
        return await evaluate(made, opener(made, ours=Told(right(40)), theirs=Told(right(40))))

    async def fails(_: EvaluateConfig) -> dict[str, Any]:
        raise AnswerError("the engine ended the request without a result")

    monkeypatch.setattr("multiverse.evaluation.accuracy.run.evaluate", evaluated)
    monkeypatch.setattr("multiverse.evaluation.accuracy.pairs.measure_pairs", fails)
    with pytest.raises(ValueError, match="pairs could not be measured: the engine ended the request"):
        command.run(made, as_json=False, on_ray=False)
    assert "pass@1" in (tmp_path / "report.md").read_text()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_without_a_key_says_so_and_ends_quietly(tmp_path: Path) -> None:
    target = EndpointTarget(base_url="http://127.0.0.1:1/v1", key_env="NO_SUCH_KEY")
    worker = Worker(target, config(tmp_path), None)
    assert worker({"part": ["[]"]}) == {
        "refused": ["the environment variable NO_SUCH_KEY holds no API key for http://127.0.0.1:1/v1"]
    }
    worker.__del__()
    assert worker._responder is None
