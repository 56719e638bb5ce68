"""Makes a checkpoint ready: the tags as single tokens with rows of their own, and ``multiverse.json`` beside it."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from multiverse.models import checkpoint
from multiverse.models.adapters import MergedWeights
from multiverse.models.checkpoint import Checkpoint
from multiverse.models.manifest import FILE_NAME, Manifest
from multiverse.models.plain import plain_tokenizer
from multiverse.models.sources import resolve
from multiverse.models.weights import BaseWeights, write_model
from multiverse.structure.tags import LAYOUT_VERSION, TAGS

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_RECIPE = 1
"""Part of the fingerprint: raised when the same source would be prepared otherwise."""


def prepare(source: str, out: Path | None = None, *, dtype: str = "bfloat16", seed: int = 0) -> Path:
    """Prepare ``source`` in the directory ``out``, and return that directory.

    source: a Hugging Face directory, a hub id, ``s3://bucket/prefix`` or ``builtin:...``. out: by default a
    directory named for the fingerprint under ``$MULTIVERSE_HOME`` or ``~/.cache/multiverse``. dtype: of the weights.
    seed: of the tag rows' noise.

    ``out`` appears whole or not at all. If it holds this source, prepared with these arguments, nothing is done.
    Raises ValueError (`UnsupportedModelError` with the reason for a model that cannot work), StorageError for ``s3://``,
    and FileExistsError where ``out`` holds anything else.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    found = resolve(source)
    recipe = f"{found.fingerprint} {dtype} {seed} layout {LAYOUT_VERSION} recipe {_RECIPE}"
    fingerprint = hashlib.sha256(recipe.encode()).hexdigest()
    out = (out or home() / "models" / fingerprint[:16]).absolute()
    if _done(out, fingerprint):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with _staging(out) as staging:
        # Another process may have prepared it while this one waited for the lock.
        if _done(out, fingerprint):
            return out
        scratch, target = staging / "scratch", staging / "target"
        scratch.mkdir()
        target.mkdir()
        base = checkpoint.open_checkpoint(found.fetch(scratch))
        _build(base, target, source, fingerprint, dtype, seed)
        if found.adapter is not None:
            target = _merged(found.adapter, target, staging / "merged", found.trained)
        os.replace(target, out)
    return out


def prepared(model: str, dtype: str = "bfloat16") -> Path:
    """The directory ``model`` itself if it is prepared, and what `prepare` makes of it otherwise."""
    directory = Path(model).expanduser()
    return directory if (directory / FILE_NAME).exists() else prepare(model, dtype=dtype)


def home() -> Path:
    """Where prepared models are cached: ``$MULTIVERSE_HOME`` or ``~/.cache/multiverse``."""
    configured = os.environ.get("MULTIVERSE_HOME")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "multiverse"


def _build(base: Checkpoint, target: Path, source: str, fingerprint: str, dtype: str, seed: int) -> None:
    tokenizer = Tokenizer.from_str((base.directory / "tokenizer.json").read_text(encoding="utf-8"))
    known = {tag: id for tag in TAGS if (id := tokenizer.token_to_id(tag)) is not None}
    first = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    new = {tag: first + i for i, tag in enumerate(tag for tag in TAGS if tag not in known)}
    tag_ids = {tag: known.get(tag, new.get(tag, -1)) for tag in TAGS}
    tokens = first + len(new)
    plain = plain_tokenizer(tokenizer)
    pieces = {id: plain.encode(tag[1:-1], add_special_tokens=False).ids for tag, id in new.items()}
    vocab_size = checkpoint.write_weights(base, target, pieces, tokens, DTYPES[dtype], seed)
    checkpoint.write_config(base, target, vocab_size, dtype)
    checkpoint.write_tokenizer(base, target, tag_ids)
    checkpoint.copy_rest(base, target)
    Manifest(
        source=source,
        tag_ids=tag_ids,
        space_ids=_space_ids(tokenizer, first),
        tokens=tokens,
        vocab_size=vocab_size,
        layout_version=LAYOUT_VERSION,
        trained=_trained(base.directory, known),
        fingerprint=fingerprint,
    ).save(target)


def _merged(adapter: Path, base: Path, target: Path, trained: bool) -> Path:
    target.mkdir()
    write_model(MergedWeights(adapter, BaseWeights(base)), base, target, trained=trained)
    replace(Manifest.load(base), trained=trained).save(target)
    return target


def _trained(directory: Path, known: dict[str, int]) -> bool:
    """What the source says of itself; without a manifest, a model that came with all block tags was trained on them."""
    if (directory / FILE_NAME).exists():
        return Manifest.load(directory).trained
    return TAGS.keys() - known.keys() <= {"<Think>", "</Think>"}


def _space_ids(tokenizer: Tokenizer, tokens: int) -> tuple[int, ...]:
    texts = tokenizer.decode_batch([[id] for id in range(tokens)], skip_special_tokens=False)
    return tuple(id for id, text in enumerate(texts) if text.isspace())


def _done(out: Path, fingerprint: str) -> bool:
    """Whether ``out`` is there as wanted. Raises FileExistsError where it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if (out / FILE_NAME).is_file() and Manifest.load(out).fingerprint == fingerprint:
        return True
    raise FileExistsError(f"{out} holds something else than this source, dtype and seed give; remove it first")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """An empty directory beside ``out``, for one process at a time. What a killed run left there is removed."""
    staging = out.with_name(f".{out.name}.partial")
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
