"""Reads and rewrites the files of a Hugging Face checkpoint, one shard in memory at a time."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from multiverse.models.tag_rows import padded, with_tag_rows

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_INDEX = "model.safetensors.index.json"
_REWRITTEN = ("config.json", "tokenizer.json", "tokenizer_config.json", "multiverse.json", _INDEX)
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".md")


class UnsupportedModelError(ValueError):
    """The checkpoint is of a kind that cannot be served with branches."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Hugging Face directory. config, tokenizer: the parsed config.json and tokenizer.json."""

    directory: Path
    config: dict[str, Any]
    tokenizer: dict[str, Any]

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding. Transformers' default for these architectures is untied."""
        return bool(self.config.get("tie_word_embeddings", False))


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read config and tokenizer. Raises UnsupportedModelError with the reason."""
    config, tokenizer = _read(directory / "config.json"), _read(directory / "tokenizer.json")
    names = config.get("architectures") or []
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        raise UnsupportedModelError(f"{directory}: {names} is not supported; {', '.join(ARCHITECTURES)} are")
    if "quantization_config" in config:
        raise UnsupportedModelError(f"{directory}: the weights are quantized; give the unquantized checkpoint")
    others = set(config.get("layer_types") or ()) - {"full_attention"}
    if config.get("use_sliding_window") or others:
        raise UnsupportedModelError(f"{directory}: sliding-window attention is not supported")
    model, decoder = tokenizer["model"].get("type"), (tokenizer.get("decoder") or {}).get("type")
    if (model, decoder) != ("BPE", "ByteLevel"):
        raise UnsupportedModelError(
            f"{directory}: the tokenizer is {model} with decoder {decoder}; "
            "only byte-level BPE gives text back byte for byte"
        )
    return Checkpoint(directory, config, tokenizer)


def write_weights(
    source: Checkpoint, target: Path, pieces: Mapping[int, Sequence[int]], tokens: int, dtype: torch.dtype, seed: int
) -> int:
    """Write all shards as ``dtype``, embedding and head grown by `with_tag_rows`. Returns the rows of both."""
    shards = sorted(source.directory.glob("*.safetensors"))
    if not shards:
        raise UnsupportedModelError(f"{source.directory}: there are no *.safetensors")
    index: dict[str, str] = {}
    total, rows = 0, {}
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if source.tied:
            tensors.pop(HEAD, None)
        for name, tensor in tensors.items():
            if name in (EMBEDDING, HEAD):
                rows[name] = padded(max(len(tensor), tokens))
                # The head's noise must not repeat the embedding's.
                draw = 2 * seed + (name == HEAD)
                tensors[name] = with_tag_rows(tensor, pieces, rows[name], dtype, draw)
            elif tensor.is_floating_point():
                tensors[name] = tensor.to(dtype)
            index[name] = shard.name
            total += tensors[name].nbytes
        if tensors:
            save_file(tensors, target / shard.name, metadata={"format": "pt"})
            # safetensors makes files that only their owner can read; a model volume has many users.
            (target / shard.name).chmod(0o644)
    missing = ({EMBEDDING} if source.tied else {EMBEDDING, HEAD}) - rows.keys()
    if missing:
        raise UnsupportedModelError(f"{source.directory}: the weights hold no {', '.join(sorted(missing))}")
    if len(shards) > 1:
        _write(target / _INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})
    return rows[EMBEDDING]


def write_config(source: Checkpoint, target: Path, vocab_size: int, dtype: str) -> None:
    """The base's config.json with this vocabulary size and dtype, under the name the base has for it."""
    key = "torch_dtype" if "torch_dtype" in source.config else "dtype"
    _write(target / "config.json", {**source.config, "vocab_size": vocab_size, key: dtype}, indent=2)


def write_tokenizer(source: Checkpoint, target: Path, tag_ids: Mapping[str, int]) -> None:
    """The base's tokenizer with the tags as special tokens.

    Special, because only then can ``tokenizer(text, split_special_tokens=True)`` keep a tag in foreign text from
    becoming the tag's token. ``decode`` shows tags unless told to skip special tokens.
    """
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tags = {id: {"content": tag, **flags} for tag, id in tag_ids.items()}
    added = [entry for entry in source.tokenizer.get("added_tokens", []) if entry["id"] not in tags]
    added = sorted(added + [{"id": id, **entry} for id, entry in tags.items()], key=lambda entry: entry["id"])
    _write(target / "tokenizer.json", {**source.tokenizer, "added_tokens": added})
    config = _read(source.directory / "tokenizer_config.json")
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] |= {str(id): entry for id, entry in tags.items()}
    _write(target / "tokenizer_config.json", config, indent=2)


def copy_rest(source: Checkpoint, target: Path) -> None:
    """Copy what is neither weights nor rewritten: generation_config, chat template, licence."""
    for path in source.directory.iterdir():
        if path.is_file() and path.name not in _REWRITTEN and path.suffix not in _NOT_COPIED:
            shutil.copyfile(path, target / path.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(f"{path.parent}: there is no {path.name}") from None
    return content


def _write(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
