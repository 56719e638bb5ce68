"""One worker's whole run: from the configuration to the exported model."""

import asyncio
import hashlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from multiverse.models.manifest import Manifest
from multiverse.models.precision import warn_if_slow
from multiverse.models.prepare import prepare
from multiverse.models.tokens import Tokens
from multiverse.training.adapters import write_adapter
from multiverse.training.checkpoint_store import open_store
from multiverse.training.checkpoints import Checkpoints, Outcome
from multiverse.training.config import TrainConfig
from multiverse.training.curriculum import Curriculum, Form
from multiverse.training.examples import Example, ExampleSettings, Report, Twins, build_examples
from multiverse.training.export import export_adapter, export_merged, export_model
from multiverse.training.generation import HeldOut, TrainedSegments, answers, figures
from multiverse.training.loop import StepReport, held_out_loss, run_step
from multiverse.training.manifests import Progress, Run
from multiverse.training.models import DTYPES, learning_rate, load_model
from multiverse.training.packing import Batch, plan
from multiverse.training.rows import Row, read_rows
from multiverse.training.steps import Steps
from multiverse.training.strategies import Strategy, build
from multiverse.training.workers import Workers


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of held-out rows after a step. generated: None where nothing was generated."""

    step: int
    loss: float
    by_part: dict[str, float]
    generated: HeldOut | None


class Observer:
    """What is told of a run, on the first worker only. Does nothing by itself."""

    def data(self, report: Report, steps: int, resumed_at: int) -> None: ...

    def step(self, report: StepReport, steps: int) -> None: ...

    def looked(self, looked: Looked) -> None: ...

    def saved(self, outcome: Outcome) -> None: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """finished: all steps were done and the model lies at ``model``."""

    finished: bool
    step: int
    steps: int
    tokens: int
    loss: float | None
    model: str | None


class Training:
    """A run on this worker. The process group, if there is one, exists already."""

    def __init__(self, config: TrainConfig, observer: Observer, device: torch.device) -> None:
        self._config, self._observer, self._device = config, observer, device
        self._rank: int = dist.get_rank() if dist.is_initialized() else 0
        self._workers: int = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(config.seed)
        self._base = prepare(config.model, dtype=config.dtype)
        self._tokens, self._manifest = Tokens.load(self._base), Manifest.load(self._base)
        twins, self._report = self._examples(read_rows(config.data.rows))
        if not twins:
            raise ValueError(f"{config.data.rows}: no row can be used: {self._report}")
        curriculum = Curriculum(len(twins), config.seed, config.curriculum.kind, config.curriculum.passes)
        self._steps = Steps(curriculum, twins, config.rows_per_step, config.data.max_tokens)
        self._form: Form = "ar" if config.curriculum.kind == "ar" else "multiverse"
        held_out = list(read_rows(config.data.held_out)) if config.data.held_out else []
        self._questions = [row.question + config.data.parallel_suffix for row in held_out[: config.held_out.rows]]
        self._held_out = self._share_of([twins[self._form] for twins in self._examples(held_out)[0]])
        if device.type == "cpu":
            warn_if_slow(config.dtype)
        model = load_model(self._base, DTYPES[config.dtype], config.lora)
        self._adapter = model.peft_config["default"] if config.lora is not None else None
        self._strategy: Strategy = build(model, config.strategy, config.optimizer, device)
        run = Run(config.strategy.name, config.seed, fingerprint(config, self._manifest))
        self._ties = Workers.of_process_group() if dist.is_initialized() else Workers.alone()
        self._staging = node_directory(self._ties)
        self._checkpoints = Checkpoints(
            open_store(f"{config.out.rstrip('/')}/checkpoints"),
            run,
            keep_last=config.checkpoints.keep_last,
            keep_best=config.checkpoints.keep_best,
            staging=self._staging,
            workers=self._ties,
            report=observer.saved if self._rank == 0 else None,
        )
        self._tokens_seen = 0
        self._loss: float | None = None
        self._looked_loss: float | None = None

    def __call__(self) -> Summary:
        """Train from the newest whole checkpoint, or from the beginning, to the end or to ``max_minutes``."""
        try:
            return self._run()
        finally:
            self._checkpoints.close()
            shutil.rmtree(self._staging, ignore_errors=True)

    def _run(self) -> Summary:
        config, begun = self._config, time.monotonic()
        first = self._resume()
        all_steps = len(self._steps)
        last = min(all_steps, config.max_steps or all_steps)
        if self._rank == 0:
            self._observer.data(self._report, last, first)
        for step in range(first, last):
            report = run_step(
                self._strategy, self._steps, step, learning_rate(config.optimizer, step, all_steps), self._device
            )
            self._tokens_seen += report.tokens
            self._loss = report.loss
            if self._rank == 0:
                self._observer.step(report, last)
            done = step + 1
            if config.held_out.every_steps and (done % config.held_out.every_steps == 0 or done == last):
                self._look(done)
            over = self._over(begun)
            if done == last or over or done % config.checkpoints.every_steps == 0:
                self._save(done, must=done == last or over)
            if over and done < last:
                return Summary(False, done, last, self._tokens_seen, self._loss, None)
        return Summary(True, last, last, self._tokens_seen, self._loss, self._export())

    def _examples(self, rows: Iterable[Row]) -> tuple[list[Twins], Report]:
        data = self._config.data
        settings = ExampleSettings(
            max_tokens=data.max_tokens,
            too_long=data.too_long,
            invalid=data.invalid,
            loss_on_written=data.loss_on_written,
            parallel_suffix=data.parallel_suffix,
            sequential_suffix=data.sequential_suffix,
        )
        return build_examples(rows, self._tokens, settings)

    def _share_of(self, examples: Sequence[Example]) -> list[Batch]:
        """What this worker computes of them, packed; as many sequences on every worker."""
        if not examples:
            return []
        bins = plan([len(example) for example in examples], self._config.data.max_tokens)
        batches = [Batch.of([examples[index] for index in chosen]) for chosen in bins]
        mine = batches[self._rank :: self._workers]
        idle = Batch.of([min(examples, key=len)]).without_labels()
        return mine + [idle] * (-(-len(batches) // self._workers) - len(mine))

    def _resume(self) -> int:
        found = self._checkpoints.resume()
        if found is None:
            return 0
        newest, directory = found
        scratch = self._staging / "converted"
        self._strategy.read(directory, newest, scratch, self._ties.group)
        self._tokens_seen = newest.progress.tokens
        return newest.step

    def _save(self, step: int, must: bool) -> None:
        if must:
            self._checkpoints.wait()
        progress = Progress(
            step=step,
            tokens=self._tokens_seen,
            rows=step * self._config.rows_per_step,
            metric=self._looked_loss if self._held_out else self._loss,
        )
        self._checkpoints.save(progress, self._strategy.stage(self._ties.group))

    def _over(self, begun: float) -> bool:
        """Whether the time is over; the first worker's clock decides for all."""
        if self._config.max_minutes is None:
            return False
        over = [time.monotonic() - begun > self._config.max_minutes * 60]
        if self._workers > 1:
            dist.broadcast_object_list(over, src=0)
        return over[0]

    def _look(self, step: int) -> None:
        losses = held_out_loss(self._strategy, self._held_out, self._device)
        self._looked_loss = losses.mean
        generated = self._generate() if self._form == "multiverse" else None
        if self._rank == 0:
            self._observer.looked(Looked(step, losses.mean, losses.by_part(), generated))

    def _generate(self) -> HeldOut:
        """Greedy answers to some held-out questions. All workers make the same ones: a sharded model needs all."""
        segments = TrainedSegments(self._strategy, self._tokens, self._manifest, self._device)
        self._strategy.model.eval()
        results = asyncio.run(answers(segments, self._tokens, self._questions, self._config.held_out.max_tokens))
        self._strategy.model.train()
        return figures(results, self._tokens)

    def _export(self) -> str:
        """Where the model is; with LoRA it is the base with the adapter in it, and the adapter lies beside it."""
        place = self._config.out.rstrip("/")
        weights = self._strategy.weights()
        if self._rank == 0:
            trained = self._form == "multiverse"
            if not place.startswith("s3://"):
                for earlier in ("model", "adapter"):  # of fewer steps
                    shutil.rmtree(Path(place) / earlier, ignore_errors=True)
            if self._adapter is None:
                export_model(weights, self._base, f"{place}/model", trained=trained)
            else:
                with tempfile.TemporaryDirectory() as scratch:
                    adapter = Path(scratch)
                    write_adapter(weights, self._adapter, self._base, adapter)
                    export_merged(adapter, self._base, f"{place}/model", trained=trained)
                export_adapter(weights, self._adapter, self._base, f"{place}/adapter")
        if self._workers > 1:
            dist.barrier()
        return f"{place}/model"


def node_directory(workers: Workers) -> Path:
    """A new directory of this node, the same for all of its workers: they share what one of them has fetched."""
    name = f"multiverse-train-{workers.agree(uuid.uuid4().hex)[0]}"
    directory = Path(tempfile.gettempdir()) / name
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def fingerprint(config: TrainConfig, manifest: Manifest) -> str:
    """Of what must stay the same when a run is resumed: not the workers, the strategy, or when to save and stop."""
    free = {"out", "strategy", "workers", "checkpoints", "held_out", "max_steps", "max_minutes", "mlflow", "model"}
    text = config.model_dump_json(exclude=free) + manifest.fingerprint
    return hashlib.sha256(text.encode()).hexdigest()


def train(config: TrainConfig, observer: Observer | None = None, device: torch.device | None = None) -> Summary:
    """Run ``config`` in this process, as one of the workers of its process group if there is one.

    Raises ValueError for data or checkpoints that cannot be used, and StorageError.
    """
    return Training(config, observer or Observer(), device or torch.device("cpu"))()
