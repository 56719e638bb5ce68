"""Where a run's figures go: the terminal, TensorBoard, MLflow, metrics."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiverse.telemetry import training as metrics
from multiverse.telemetry.recorders import Recorder
from multiverse.training.checkpoints import Outcome
from multiverse.training.examples import Report
from multiverse.training.loop import StepReport
from multiverse.training.run import Looked, Observer


class Several(Observer):
    """Tells all of them."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def data(self, report: Report, steps: int, resumed_at: int) -> None:
        for observer in self._observers:
            observer.data(report, steps, resumed_at)

    def step(self, report: StepReport, steps: int) -> None:
        for observer in self._observers:
            observer.step(report, steps)

    def looked(self, looked: Looked) -> None:
        for observer in self._observers:
            observer.looked(looked)

    def saved(self, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.saved(outcome)


class Terminal(Observer):
    """A progress bar with loss, tokens per second and time left; a line per tenth of the run where there is no
    terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        self._console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("")
        self._rate = 0.0

    def data(self, report: Report, steps: int, resumed_at: int) -> None:
        self._console.print(str(report))
        for message in report.messages[:10]:
            self._console.print(f"  {message}", markup=False)
        if resumed_at:
            self._console.print(f"resumed at step {resumed_at}")
        self._bar.update(self._task, total=steps, completed=resumed_at)
        self._bar.start()

    def step(self, report: StepReport, steps: int) -> None:
        now = report.tokens / report.seconds
        self._rate = 0.9 * self._rate + 0.1 * now if self._rate else now
        text = f"loss {report.loss:.3f}, {self._rate:.0f} tokens/s"
        self._bar.update(self._task, completed=report.step + 1, description=text)
        every = max(1, steps // 10)
        if not self._console.is_terminal and (report.step + 1) % every == 0:
            left = (steps - report.step - 1) * report.seconds
            self._console.print(f"step {report.step + 1} of {steps}: {text}, about {left / 60:.0f} min left")
        if report.step + 1 == steps:
            self._bar.stop()

    def saved(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._console.print(f"step {outcome.step} was not saved: {outcome.error}", markup=False)

    def looked(self, looked: Looked) -> None:
        text = f"step {looked.step}: held-out loss {looked.loss:.3f}"
        if (made := looked.generated) is not None:
            text += f"; of {made.answers} answers {made.parallel:.0%} parallel, {made.valid:.0%} valid, x "
            text += f"{made.parallelism:.2f}"
        self._console.print(text)


class TensorBoard(Observer):
    """Scalars under ``directory``."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory))

    def step(self, report: StepReport, steps: int) -> None:
        for name, value in scalars(report).items():
            self._writer.add_scalar(f"train/{name}", value, report.step + 1)

    def looked(self, looked: Looked) -> None:
        for name, value in seen(looked).items():
            self._writer.add_scalar(f"held_out/{name}", value, looked.step)
        self._writer.flush()

    def saved(self, outcome: Outcome) -> None:
        self._writer.flush()


class MLflow(Observer):
    """Metrics at a tracking server. Raises ImportError, with what to install, where mlflow is missing."""

    def __init__(self, uri: str, parameters: dict[str, Any]) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError(
                "mlflow is set in the configuration and not installed: pip install mlflow-skinny"
            ) from error
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("multiverse")
        mlflow.start_run()
        mlflow.log_params(parameters)
        self._log = mlflow.log_metrics

    def step(self, report: StepReport, steps: int) -> None:
        self._log({f"train/{name}": value for name, value in scalars(report).items()}, step=report.step + 1)

    def looked(self, looked: Looked) -> None:
        self._log({f"held_out/{name}": value for name, value in seen(looked).items()}, step=looked.step)


class Metrics(Observer):
    """The run as metrics (`multiverse.telemetry.training`)."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def data(self, report: Report, steps: int, resumed_at: int) -> None:
        self._recorder.set(metrics.STEPS, steps)
        self._recorder.set(metrics.STEP, resumed_at)

    def step(self, report: StepReport, steps: int) -> None:
        recorder = self._recorder
        recorder.set(metrics.STEP, report.step + 1)
        recorder.observe(metrics.STEP_SECONDS, report.seconds)
        recorder.inc(metrics.TOKENS, report.tokens)
        recorder.set(metrics.LEARNING_RATE, report.rate)
        recorder.set(metrics.GRADIENT_NORM, report.norm)
        for part, loss in {"all": report.loss, **report.by_part}.items():
            recorder.set(metrics.LOSS, loss, part=part)

    def looked(self, looked: Looked) -> None:
        for part, loss in {"all": looked.loss, **looked.by_part}.items():
            self._recorder.set(metrics.HELD_OUT_LOSS, loss, part=part)
        if (made := looked.generated) is not None:
            self._recorder.set(metrics.HELD_OUT_VALID, made.valid)
            self._recorder.set(metrics.HELD_OUT_PARALLELISM, made.parallelism)

    def saved(self, outcome: Outcome) -> None:
        self._recorder.inc(metrics.CHECKPOINTS, outcome="saved" if outcome.error is None else "failed")
        if outcome.error is None:
            self._recorder.observe(metrics.CHECKPOINT_SECONDS, outcome.seconds)
            self._recorder.set(metrics.CHECKPOINT_BYTES, outcome.size)


class Curve(Observer):
    """Keeps the loss of every step. For tests and for the summary of a job."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def step(self, report: StepReport, steps: int) -> None:
        self.losses[report.step] = report.loss


def scalars(report: StepReport) -> dict[str, float]:
    """What is logged of a step."""
    return {
        "loss": report.loss,
        "tokens_per_s": report.tokens / report.seconds,
        "learning_rate": report.rate,
        "gradient_norm": report.norm,
        **{f"loss_{name}": value for name, value in report.by_part.items()},
    }


def seen(looked: Looked) -> dict[str, float]:
    """What is logged of held-out rows."""
    values = {"loss": looked.loss, **{f"loss_{name}": value for name, value in looked.by_part.items()}}
    if (made := looked.generated) is not None:
        values |= {"valid": made.valid, "parallel": made.parallel, "parallelism": made.parallelism}
    return {name: value for name, value in values.items() if math.isfinite(value)}
