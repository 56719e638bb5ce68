"""Tensors of a prepared checkpoint, and the same checkpoint with other ones.

base (prepared)     config.json, tokenizer, chat template, licence  ->  copied
                    *.safetensors, one shard in memory at a time    ->  the tensor given, or the base's
                    multiverse.json                                 ->  trained, and a fingerprint of its own
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from multiverse.models.checkpoint import EMBEDDING, HEAD
from multiverse.models.manifest import FILE_NAME, Manifest


class WeightsError(ValueError):
    """The weights are not those of a model trained from this base."""


def write_model(weights: Mapping[str, torch.Tensor], base: Path, directory: Path, *, trained: bool) -> Manifest:
    """Write ``base`` with other weights into ``directory``, which is there and empty.

    weights: by their names in the model, of any dtype; they are written in the base's. What is not among them is the
    base's. base: a prepared checkpoint. trained: whether the model writes blocks by itself. Returns the new
    ``multiverse.json``. Raises WeightsError.
    """
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
        raise WeightsError(f"{unknown[0]} is no parameter of the base" if unknown else "there are no weights")


def _write_shards(weights: Mapping[str, torch.Tensor], base: BaseWeights, directory: Path) -> list[str]:
    """Write the base's shards with these weights. Its index stays right: sizes do not change. Returns their SHA-256."""
    digests = []
    for shard, names in base.shards().items():
        tensors = {}
        for name in names:
            original = base[name]
            tensor = weights.get(name, original)
            if tensor.shape != original.shape:
                raise WeightsError(f"{name} has shape {list(tensor.shape)}, the base's has {list(original.shape)}")
            tensors[name] = tensor.to(original.dtype).contiguous()
        save_file(tensors, directory / shard.name, metadata={"format": "pt"})
        # safetensors makes files that only their owner can read; a model volume has many users.
        (directory / shard.name).chmod(0o644)
        with (directory / shard.name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests
