"""From trained weights to what is served: a prepared checkpoint with the tags' manifest, or a LoRA adapter."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from multiverse.models.adapters import MergedWeights
from multiverse.models.manifest import Manifest
from multiverse.models.weights import BaseWeights, write_model
from multiverse.storage import upload_directory
from multiverse.training.adapters import write_adapter


def export_model(weights: Mapping[str, torch.Tensor], base: Path, target: str, *, trained: bool = True) -> Manifest:
    """Write a model that vLLM serves to ``target``, a new directory or ``s3://bucket/prefix``, whole or not at all.

    The rest: see `write_model`. Raises WeightsError, FileExistsError, StorageError.
    """
    with _target(target) as directory:
        return write_model(weights, base, directory, trained=trained)


def export_merged(adapter: Path, base: Path, target: str, *, trained: bool = True) -> Manifest:
    """Write ``base`` with the adapter merged into it, as `export_model` does. Raises AdapterError, too."""
    return export_model(MergedWeights(adapter, BaseWeights(base)), base, target, trained=trained)


def export_adapter(weights: Mapping[str, torch.Tensor], config: Any, base: Path, target: str) -> None:
    """Write a peft adapter to ``target``, a new directory or ``s3://bucket/prefix``. The rest: see `write_adapter`."""
    with _target(target) as directory:
        write_adapter(weights, config, base, directory)


@contextmanager
def _target(target: str) -> Iterator[Path]:
    """A directory to write into, which then becomes ``target``."""
    if target.startswith("s3://"):
        with TemporaryDirectory() as scratch:
            yield Path(scratch)
            upload_directory(Path(scratch), target)
        return
    final = Path(target).absolute()
    if final.exists():
        raise FileExistsError(f"{final} exists already")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        yield partial
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
