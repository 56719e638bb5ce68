"""From trained weights to what is served: a prepared checkpoint with the tags' manifest, or a LoRA adapter.

base (prepared)     config.json, tokenizer, chat template, licence  ->  copied
                    *.safetensors, one shard in memory at a time    ->  trained tensor, or the base's if it was frozen
                    multiverse.json                                 ->  trained, and a fingerprint of its own
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from multiverse.models.checkpoint import EMBEDDING, HEAD
from multiverse.models.manifest import FILE_NAME, Manifest
from multiverse.storage import upload_directory
from multiverse.training.adapters import MergedWeights, write_adapter


class ExportError(ValueError):
    """The weights are not those of a model trained from this base."""


def export_model(weights: Mapping[str, torch.Tensor], base: Path, target: str, *, trained: bool = True) -> Manifest:
    """Write a model that vLLM serves to ``target``, a new directory or ``s3://bucket/prefix``, whole or not at all.

    weights: by their names in the model, of any dtype; they are written in the base's. What is not among them is the
    base's. base: the prepared checkpoint that training began with. trained: whether the model writes blocks by itself.
    Returns the new ``multiverse.json``. Raises ExportError, FileExistsError, StorageError.
    """
    with _target(target) as directory:
        tensors = BaseWeights(base)
        _check(weights, tensors)
        for path in base.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and path.name != FILE_NAME:
                shutil.copyfile(path, directory / path.name)
        digests = _write_shards(weights, tensors, directory)
        before = Manifest.load(base)
        recipe = f"{before.fingerprint} trained {trained} {' '.join(digests)}"
        manifest = replace(before, trained=trained, fingerprint=hashlib.sha256(recipe.encode()).hexdigest())
        manifest.save(directory)
    return manifest


def export_merged(adapter: Path, base: Path, target: str, *, trained: bool = True) -> Manifest:
    """Write ``base`` with the adapter merged into it, as `export_model` does. Raises AdapterError, too."""
    return export_model(MergedWeights(adapter, BaseWeights(base)), base, target, trained=trained)


def export_adapter(weights: Mapping[str, torch.Tensor], config: Any, base: Path, target: str) -> None:
    """Write a peft adapter to ``target``, a new directory or ``s3://bucket/prefix``. The rest: see `write_adapter`."""
    with _target(target) as directory:
        write_adapter(weights, config, base, directory)


class BaseWeights(Mapping[str, torch.Tensor]):
    """The tensors of a Hugging Face directory, read one at a time."""

    def __init__(self, directory: Path) -> None:
        self._shards: dict[str, Path] = {}
        for shard in sorted(directory.glob("*.safetensors")):
            with safe_open(shard, framework="pt") as file:
                self._shards |= dict.fromkeys(file.keys(), shard)

    def shards(self) -> dict[Path, list[str]]:
        """The names of the tensors in each file."""
        return {
            shard: [name for name in self if self._shards[name] == shard]
            for shard in dict.fromkeys(self._shards.values())
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, name: str) -> torch.Tensor:
        with safe_open(self._shards[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def _check(weights: Mapping[str, torch.Tensor], base: BaseWeights) -> None:
    unknown = sorted(name for name in weights if name not in base and not (name == HEAD and EMBEDDING in weights))
    if unknown or not weights:
        raise ExportError(f"{unknown[0]} is no parameter of the base" if unknown else "there are no weights")


def _write_shards(weights: Mapping[str, torch.Tensor], base: BaseWeights, directory: Path) -> list[str]:
    """Write the base's shards with these weights. Its index stays right: sizes do not change. Returns their SHA-256."""
    digests = []
    for shard, names in base.shards().items():
        tensors = {}
        for name in names:
            original = base[name]
            tensor = weights.get(name, original)
            if tensor.shape != original.shape:
                raise ExportError(f"{name} has shape {list(tensor.shape)}, the base's has {list(original.shape)}")
            tensors[name] = tensor.to(original.dtype).contiguous()
        save_file(tensors, directory / shard.name, metadata={"format": "pt"})
        # safetensors makes files that only their owner can read; a model volume has many users.
        (directory / shard.name).chmod(0o644)
        with (directory / shard.name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


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
