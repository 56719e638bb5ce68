"""Where checkpoints lie: a local (or shared) directory, or S3 and services that speak its protocol.

    location/
      step-00000100/  __0_0.distcp  __1_0.distcp  .metadata  manifest.json      whole
      step-00000120/  __0_0.distcp                                              being written, or left by a killed run

The manifest appears last and at once: by a rename, or as one S3 object. It goes first when a checkpoint is deleted.
A run that is killed may leave unfinished multipart uploads, which S3 does not list: give the bucket a lifecycle rule.
"""

import fcntl
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from multiverse.storage import Prefix, StorageError
from multiverse.training.manifests import MANIFEST, File, Manifest

log = logging.getLogger(__name__)
_STEP = re.compile(r"step-(\d{8,})")
T = TypeVar("T")


class Store(Protocol):
    """All methods raise OSError or StorageError where the storage fails. location: as it was given, for messages."""

    location: str

    def listing(self) -> dict[int, dict[str, int]]:
        """Step -> file name -> bytes, of everything that is there, whole or not."""

    def read_manifest(self, step: int) -> str: ...

    def write_manifest(self, step: int, text: str) -> None: ...

    def put(self, step: int, name: str, path: Path) -> None:
        """Store the file ``path``, which may be moved away."""

    def delete(self, step: int) -> None:
        """Delete all of a step, its manifest first."""

    def fetch(self, manifest: Manifest, cache: Path, check: Sequence[File]) -> Path:
        """A local directory with all files; those in ``check`` at least are verified. Raises DamagedError.

        cache: a directory of this node, in which what had to be copied is kept. Processes of one node share the copy.
        """


def open_store(location: str) -> Store:
    """location: a directory that all workers see, or ``s3://bucket/prefix``."""
    return S3Store(location) if location.startswith("s3://") else LocalStore(Path(location))


def step_name(step: int) -> str:
    return f"step-{step:08d}"


class LocalStore:
    """A directory that all workers see: of one node, or on a shared file system."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self.location = str(self._directory)

    def listing(self) -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = {}
        for folder in self._directory.glob("step-*"):
            if match := _STEP.fullmatch(folder.name):
                found[int(match[1])] = _sizes(folder)
        return found

    def read_manifest(self, step: int) -> str:
        return (self._directory / step_name(step) / MANIFEST).read_text(encoding="utf-8")

    def write_manifest(self, step: int, text: str) -> None:
        target = self._directory / step_name(step) / MANIFEST
        partial = target.with_name(f".{MANIFEST}.partial")
        partial.write_text(text, encoding="utf-8")
        _publish(partial, target)

    def put(self, step: int, name: str, path: Path) -> None:
        target = self._directory / step_name(step) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.move(path, partial)
        _publish(partial, target)

    def delete(self, step: int) -> None:
        folder = self._directory / step_name(step)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def fetch(self, manifest: Manifest, cache: Path, check: Sequence[File]) -> Path:
        folder = self._directory / step_name(manifest.step)
        for file in check:
            file.verify(folder / file.name)
        return folder


class S3Store:
    """A prefix of a bucket. Beside boto3's own retries, what fails is tried ``attempts`` times with growing pauses."""

    def __init__(self, uri: str, *, attempts: int = 5, first_pause: float = 1.0) -> None:
        self.location, self._attempts, self._first_pause = uri.rstrip("/"), attempts, first_pause
        self._prefix = Prefix(uri)

    def listing(self) -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = {}
        for entry in self._retried(self._prefix.list):
            folder, _, name = entry.name.partition("/")
            if match := _STEP.fullmatch(folder):
                found.setdefault(int(match[1]), {})[name] = entry.size
        return found

    def read_manifest(self, step: int) -> str:
        name = f"{step_name(step)}/{MANIFEST}"
        return self._retried(lambda: self._prefix.read(name)).decode("utf-8", errors="replace")

    def write_manifest(self, step: int, text: str) -> None:
        name = f"{step_name(step)}/{MANIFEST}"
        self._retried(lambda: self._prefix.write(name, text.encode()))

    def put(self, step: int, name: str, path: Path) -> None:
        self._retried(lambda: self._prefix.upload(path, f"{step_name(step)}/{name}"))

    def delete(self, step: int) -> None:
        name = step_name(step)
        self._retried(lambda: self._prefix.delete([f"{name}/{MANIFEST}"]))
        names = [f"{name}/{file}" for file in self.listing().get(step, ())]
        self._retried(lambda: self._prefix.delete(names))

    def fetch(self, manifest: Manifest, cache: Path, check: Sequence[File]) -> Path:
        cache.mkdir(parents=True, exist_ok=True)
        target = cache / f"{step_name(manifest.step)}-{manifest.digest[:12]}"
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                partial = cache / ".partial"
                shutil.rmtree(partial, ignore_errors=True)
                for file in manifest.files:
                    self._download(f"{step_name(manifest.step)}/{file.name}", partial / file.name)
                    file.verify(partial / file.name)
                partial.mkdir(exist_ok=True)
                partial.rename(target)
        return target

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._retried(lambda: self._prefix.download(name, path))

    def _retried(self, action: Callable[[], T]) -> T:
        pause = self._first_pause
        for attempt in range(1, self._attempts):
            try:
                return action()
            except StorageError as error:
                log.warning("attempt %d of %d: %s; again in %.0f s", attempt, self._attempts, error, pause)
                # Workers that failed together should not all come back together.
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause *= 2
        return action()


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.rglob("*"):
        # A training run may be deleting this checkpoint.
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _publish(partial: Path, target: Path) -> None:
    """Rename, with content and name safe on the disk before this returns."""
    _sync(partial)
    os.replace(partial, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
