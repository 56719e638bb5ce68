"""Checkpoints of training, saved while training goes on, and whole or not there.

    thread that trains (all workers)         thread that saves (all workers)
    save: is anyone still saving? -> skip    worker 0 clears what a killed run left of this step
          stage: copies of the state,        each writes its files, then puts them with size and SHA-256
          or files of DeepSpeed              worker 0 checks all sizes, writes manifest.json, deletes what is superseded

What fails on one worker fails on all, is reported, and never raised: training goes on, the next save tries again.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from multiverse.storage import StorageError
from multiverse.training.checkpoint_store import Store, step_name
from multiverse.training.manifests import (
    MANIFEST,
    DamagedError,
    File,
    Manifest,
    Progress,
    Run,
    kept,
    library_versions,
    merged,
)
from multiverse.training.workers import CheckpointError, Workers, together

log = logging.getLogger(__name__)

Finish = Callable[[], None]
Stage = Callable[[Path], Finish | None]
"""Called on the thread that trains with an empty directory of this worker. It takes what the checkpoint needs from the
model: either by writing the files into the directory, or by copying the state and returning what writes the copy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one save ended. seconds: since `Checkpoints.save`. size: bytes of all workers. error: None if it is valid."""

    step: int
    seconds: float
    size: int
    error: str | None


class Checkpoints:
    """The checkpoints of one run in ``store`` (`open_store`), to which nobody else may write.

    Each worker has one, and calls `resume`, before anything else, and `save` when the others do.

    keep_last, keep_best: the newest, and those of the lowest metric, that stay when a newer one is valid.
    staging: a directory of this node for files on their way. report: told of every outcome, on the thread that saves.
    saved, failed, skipped: how many saves ended so far, and how; the same on all workers.
    """

    def __init__(
        self,
        store: Store,
        run: Run,
        *,
        staging: Path,
        keep_last: int = 2,
        keep_best: int = 1,
        workers: Workers | None = None,
        report: Callable[[Outcome], None] | None = None,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ValueError(f"keep_last is {keep_last} and keep_best {keep_best}: at least 1 and 0 are needed")
        self.saved, self.failed, self.skipped = 0, 0, 0
        self._run, self._keep_last, self._keep_best, self._report = run, keep_last, keep_best, report
        self._workers = workers or Workers.alone()
        self._leads = self._workers.rank == 0
        self._store = store
        self._cache = staging / "fetched"
        self._staging = staging / f"rank-{self._workers.rank:05d}"
        self._thread: threading.Thread | None = None
        self._last = -1

    def save(self, progress: Progress, stage: Stage) -> bool:
        """Begin to save, and return when the state is staged. False: skipped, a worker still saves an earlier step.

        Nothing is done for the step that was saved or resumed from last. Never raises for what goes wrong. The last
        save of a run should not be skipped: call `wait` before it.
        """
        saving = self._thread is not None and self._thread.is_alive()
        answers = self._workers.agree((saving, self._last == progress.step))
        if any(saving for saving, _ in answers):
            self.skipped += 1
            log.warning("step %d is not saved: the save before it has not ended", progress.step)
            return False
        if all(done for _, done in answers):
            return True
        begin = time.monotonic()
        finish: Finish | None = None
        problem: Exception | None = None
        try:
            # Nobody reads what was fetched any more: all workers train.
            shutil.rmtree(self._cache, ignore_errors=True)
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)
            finish = stage(self._staging)
        except Exception as error:
            problem = error
        arguments = (progress, finish, problem, begin)
        # A daemon: a worker that fails while S3 hangs must be able to end.
        self._thread = threading.Thread(target=self._save, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def resume(self) -> tuple[Manifest, Path] | None:
        """The newest valid checkpoint and a local directory with its verified files; None: there is none.

        What is unfinished or damaged is passed over with a warning. Raises CheckpointError on all workers if it was
        saved under another configuration, or if the storage cannot be read: to begin anew because S3 is down would
        lose the run.
        """
        agree = self._workers.agree
        candidates = together(agree, lambda: self._valid() if self._leads else [])[0]
        for manifest in candidates:
            name = f"{self._store.location}/{step_name(manifest.step)}"
            saved, ours = manifest.run.config_fingerprint, self._run.config_fingerprint
            if saved != ours:
                raise CheckpointError(
                    f"{name} was saved under the configuration {saved}, this is {ours}: choose another location, or "
                    "remove what is there"
                )
            problems = together(agree, partial(self._try_fetch, manifest))
            if not any(problems):
                self._last = manifest.step
                return manifest, self._store.fetch(manifest, self._cache, ())
            if self._leads:
                problem = next(problem for problem in problems if problem)
                log.warning("%s is passed over: %s", name, problem)
        return None

    def newest(self) -> Manifest | None:
        """The newest checkpoint whose files are all there with the right sizes. Asks no other worker."""
        return next(iter(self._valid()), None)

    def fetch(self, manifest: Manifest) -> Path:
        """A local directory with all files, verified. Raises DamagedError, StorageError."""
        return self._store.fetch(manifest, self._cache, manifest.files)

    def wait(self) -> None:
        """Until the save in flight, if there is one, has ended."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Wait for the save in flight and remove what is staged. Before the process group is destroyed."""
        self.wait()
        shutil.rmtree(self._staging, ignore_errors=True)

    def _save(self, progress: Progress, finish: Finish | None, problem: Exception | None, begin: float) -> None:
        size, failure = 0, None
        try:
            size = self._write(progress, finish, problem)
            self.saved += 1
            self._last = progress.step
        except Exception as error:
            failure = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
            self.failed += 1
            log.error("step %d was not saved: %s", progress.step, failure)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        if self._report is not None:
            self._report(Outcome(progress.step, time.monotonic() - begin, size, failure))
        if failure is None and self._leads:
            self._delete_superseded(progress.step)

    def _write(self, progress: Progress, finish: Finish | None, problem: Exception | None) -> int:
        def prepare() -> None:
            if problem is not None:
                raise problem
            if self._leads:
                self._store.delete(progress.step)

        def write() -> list[File]:
            if finish is not None:
                finish()
            paths = sorted(path for path in self._staging.rglob("*") if path.is_file())
            return [File.of(path, path.relative_to(self._staging).as_posix()) for path in paths]

        def put() -> None:
            others = {file.name for files in lists[: self._workers.rank] for file in files}
            for file in lists[self._workers.rank]:
                if file.name not in others:
                    self._store.put(progress.step, file.name, self._staging / file.name)

        def publish() -> None:
            if self._leads:
                manifest.check_sizes(self._store.listing().get(progress.step, {}))
                self._store.write_manifest(progress.step, manifest.to_json())

        gather = self._workers.gather
        together(gather, prepare)
        lists = together(gather, write)
        manifest = Manifest(progress, self._run, self._workers.world_size, library_versions(), merged(lists))
        together(gather, put)
        together(gather, publish)
        return manifest.size

    def _delete_superseded(self, step: int) -> None:
        """Of the steps up to ``step``, which has just become valid. Later ones are of a run that this one went back
        behind; they are replaced when this run gets there."""
        try:
            listing = {found: sizes for found, sizes in self._store.listing().items() if found <= step}
            keep = kept(self._valid(listing), self._keep_last, self._keep_best)
            for old in sorted(listing.keys() - keep - {step}):
                self._store.delete(old)
        except (OSError, StorageError) as error:
            log.warning("superseded checkpoints are still there, the next save deletes them: %s", error)

    def _valid(self, listing: dict[int, dict[str, int]] | None = None) -> list[Manifest]:
        """The checkpoints whose files are all there with the right sizes, newest first; warns of the others."""
        valid = []
        for step, sizes in sorted((self._store.listing() if listing is None else listing).items(), reverse=True):
            try:
                if MANIFEST not in sizes:
                    raise DamagedError(f"unfinished, it has no {MANIFEST}")
                manifest = Manifest.from_json(self._store.read_manifest(step))
                manifest.check_sizes(sizes)
                valid.append(manifest)
            except DamagedError as error:
                log.warning("%s/%s is passed over: %s", self._store.location, step_name(step), error)
        return valid

    def _try_fetch(self, manifest: Manifest) -> str | None:
        """What is wrong with this worker's share of the files; together the workers verify all."""
        try:
            share = manifest.files[self._workers.rank :: self._workers.world_size]
            self._store.fetch(manifest, self._cache, share)
        except DamagedError as error:
            return str(error)
        return None
