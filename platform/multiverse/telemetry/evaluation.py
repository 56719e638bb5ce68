"""Metrics of an evaluation on its way, and what records them."""

from collections import Counter

from multiverse.telemetry.metric import Metric
from multiverse.telemetry.recorders import Recorder

# side: model, or against, the other model that answers the same. suite: the name of one of the platform's suites.
_WHOSE = ("side", "suite")
TASKS = Metric("multiverse_evaluation_tasks", "gauge", "Answers that the evaluation asks for.", "answers", _WHOSE)
# outcome: correct, wrong or failed. A gauge, since a run that goes on begins with the answers that there are.
ANSWERS = Metric(
    "multiverse_evaluation_answers",
    "gauge",
    "Answers there are, those of earlier runs included.",
    "answers",
    (*_WHOSE, "outcome"),
)
TOKENS = Metric("multiverse_evaluation_tokens_total", "counter", "Tokens of the answers made.", "tokens", _WHOSE)
POSITIONS = Metric(
    "multiverse_evaluation_critical_path_tokens_total",
    "counter",
    "Positions of the answers made; tokens / positions is their parallelism.",
    "tokens",
    _WHOSE,
)


class EvaluationMeter:
    """Records how far one side's evaluation on one suite is."""

    def __init__(self, recorder: Recorder, side: str, suite: str) -> None:
        self._recorder = recorder
        self._whose = {"side": side, "suite": suite}
        self._answers = Counter(correct=0, wrong=0, failed=0)
        for outcome in self._answers:
            self._count(outcome, 0)

    def wanted(self, answers: int) -> None:
        """How many there will be."""
        self._recorder.set(TASKS, answers, **self._whose)

    def kept(self, correct: bool) -> None:
        """An answer that was there before this run."""
        self._count("correct" if correct else "wrong")

    def answered(self, correct: bool, tokens: int, critical_path: int) -> None:
        self._count("correct" if correct else "wrong")
        self._recorder.inc(TOKENS, tokens, **self._whose)
        self._recorder.inc(POSITIONS, critical_path, **self._whose)

    def failed(self) -> None:
        """There will be no answer."""
        self._count("failed")

    def _count(self, outcome: str, more: int = 1) -> None:
        self._answers[outcome] += more
        self._recorder.set(ANSWERS, self._answers[outcome], outcome=outcome, **self._whose)
