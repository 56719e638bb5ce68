"""Metrics of an evaluation on its way, and what records them."""

from multiverse.telemetry.metric import Metric
from multiverse.telemetry.recorders import Recorder

# suite: the name of one of the platform's suites.
TASKS = Metric("multiverse_evaluation_tasks", "gauge", "Answers that the evaluation asks for.", "answers", ("suite",))
# outcome: correct, wrong or failed.
ANSWERS = Metric(
    "multiverse_evaluation_answers_total", "counter", "Answers so far, by outcome.", "answers", ("suite", "outcome")
)
TOKENS = Metric("multiverse_evaluation_tokens_total", "counter", "Tokens of the answers.", "tokens", ("suite",))
POSITIONS = Metric(
    "multiverse_evaluation_critical_path_tokens_total",
    "counter",
    "Positions of the answers; tokens / positions is their parallelism.",
    "tokens",
    ("suite",),
)


class EvaluationMeter:
    """Records how far the evaluation of one suite is."""

    def __init__(self, recorder: Recorder, suite: str, answers: int) -> None:
        """answers: how many there will be."""
        self._recorder = recorder
        self._suite = suite
        recorder.set(TASKS, answers, suite=suite)

    def answered(self, correct: bool, tokens: int, critical_path: int) -> None:
        self._recorder.inc(ANSWERS, suite=self._suite, outcome="correct" if correct else "wrong")
        self._recorder.inc(TOKENS, tokens, suite=self._suite)
        self._recorder.inc(POSITIONS, critical_path, suite=self._suite)

    def failed(self) -> None:
        """There will be no answer."""
        self._recorder.inc(ANSWERS, suite=self._suite, outcome="failed")
