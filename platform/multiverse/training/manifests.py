"""``manifest.json`` of a training checkpoint: written last, it names every file with its size and SHA-256."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
_FORMAT = 1


class DamagedError(ValueError):
    """A checkpoint's manifest or one of its files is not what was written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has come. rows: position in the curriculum. metric: what keep-best ranks by, lower is better."""

    step: int
    tokens: int
    rows: int
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same over a run. config_fingerprint: of what must not change when it is resumed."""

    strategy: str
    seed: int
    config_fingerprint: str


@dataclass(frozen=True, slots=True)
class File:
    """One file of a checkpoint. name: path relative to the checkpoint, with slashes. size in bytes."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> "File":
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return cls(name, path.stat().st_size, digest)

    def verify(self, path: Path) -> None:
        """Raises DamagedError unless ``path`` holds what was written."""
        if not path.is_file():
            raise DamagedError(f"{self.name} is missing")
        found = File.of(path, self.name)
        if found.size != self.size:
            raise DamagedError(f"{self.name} has {found.size} bytes instead of {self.size}")
        if found.sha256 != self.sha256:
            raise DamagedError(f"{self.name} has SHA-256 {found.sha256[:12]}... instead of {self.sha256[:12]}...")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint. world_size: workers that wrote it. versions: of the libraries whose formats the files have."""

    progress: Progress
    run: Run
    world_size: int
    versions: dict[str, str]
    files: tuple[File, ...]

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: two checkpoints of the same step with other files differ in it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        metric = self.progress.metric
        finite = metric if metric is not None and math.isfinite(metric) else None
        fields = asdict(replace(self, progress=replace(self.progress, metric=finite)))
        return json.dumps({"format": _FORMAT, **fields}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises DamagedError if ``text`` is no manifest, or names files outside of the checkpoint."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields["format"] != _FORMAT:
                raise DamagedError(f"{MANIFEST} has format {fields['format']}, this program reads format {_FORMAT}")
            manifest = cls(
                progress=Progress(**fields["progress"]),
                run=Run(**fields["run"]),
                world_size=fields["world_size"],
                versions=fields["versions"],
                files=tuple(File(**file) for file in fields["files"]),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DamagedError(f"{MANIFEST} is damaged: {type(error).__name__}: {error}") from error
        for file in manifest.files:
            path = PurePosixPath(file.name)
            if path.is_absolute() or ".." in path.parts:
                raise DamagedError(f"{MANIFEST} names {file.name}, which lies outside of the checkpoint")
        return manifest

    def check_sizes(self, sizes: dict[str, int]) -> None:
        """Raises DamagedError unless every file is there with its size. sizes: name -> bytes of what there is."""
        for file in self.files:
            if file.name not in sizes:
                raise DamagedError(f"{file.name} is missing")
            if sizes[file.name] != file.size:
                raise DamagedError(f"{file.name} has {sizes[file.name]} bytes instead of {file.size}")


def merged(lists: Sequence[Sequence[File]]) -> tuple[File, ...]:
    """The files of all ranks, by name. Raises ValueError where two ranks wrote the same name with other content."""
    files: dict[str, File] = {}
    for file in (file for found in lists for file in found):
        if files.setdefault(file.name, file) != file:
            raise ValueError(f"two ranks wrote different files named {file.name}")
    return tuple(files[name] for name in sorted(files))


def kept(manifests: Iterable[Manifest], keep_last: int, keep_best: int) -> set[int]:
    """The steps to keep: the ``keep_last`` newest and the ``keep_best`` of lowest metric, of equal ones the newer."""
    newest_first = sorted(manifests, key=lambda manifest: -manifest.step)
    ranked = sorted(
        (m for m in newest_first if m.progress.metric is not None and math.isfinite(m.progress.metric)),
        key=lambda m: m.progress.metric or 0.0,
    )
    return {manifest.step for manifest in newest_first[:keep_last] + ranked[:keep_best]}


def library_versions() -> dict[str, str]:
    """Of the libraries whose formats a checkpoint may have, as far as they are installed."""
    found = {}
    for package in ("multiverse", "torch", "transformers", "peft", "deepspeed"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
