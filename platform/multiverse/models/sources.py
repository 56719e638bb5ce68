"""Where a checkpoint to be prepared comes from: ``builtin:``, ``s3://``, a local directory, or a hub id."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiverse import storage
from multiverse.models import builtin

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*")
_READ_WHOLE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """fingerprint: changes with the source's content. fetch: given an empty scratch directory, returns a Hugging Face
    directory, which is the scratch directory or one that must not be written to. adapter: to be merged into what that
    gives, once it is prepared. trained: whether the adapter makes it write blocks.
    """

    fingerprint: str
    fetch: Callable[[Path], Path]
    adapter: Path | None = None
    trained: bool = False


def resolve(source: str) -> Source:
    """Find ``source`` without reading its weights. Raises ValueError, or StorageError for ``s3://``."""
    if source.startswith("builtin:"):
        return _builtin(source)
    if source.startswith("s3://"):
        objects = storage.list_prefix(source)
        listing = "\n".join(f"{entry.key} {entry.size} {entry.etag}" for entry in objects)
        return Source(_digest(listing), lambda scratch: storage.download_prefix(source, scratch / "source"))
    directory = Path(source).expanduser()
    if directory.is_dir():
        return Source(_digest(_describe(directory)), lambda scratch: directory)
    if _HUB_ID.fullmatch(source) and not source.startswith("."):
        snapshot = _snapshot(source)
        # A hub snapshot's directory is named for its commit.
        return Source(_digest(f"{source}@{snapshot.name}"), lambda scratch: snapshot)
    raise ValueError(
        f"{source} is neither a directory, nor a hub id (owner/name), nor s3://bucket/prefix, "
        f"nor builtin:{builtin.NAME}"
    )


def _builtin(source: str) -> Source:
    name = source.removeprefix("builtin:")
    if name == builtin.NAME:
        return Source(builtin.fingerprint(), _exported)
    if name not in builtin.TRAINED:
        names = ", ".join(f"builtin:{name}" for name in (builtin.NAME, *builtin.TRAINED))
        raise ValueError(f"there is no {source}; there are {names}")
    adapter = builtin.adapter_directory(name)
    recipe = f"{builtin.fingerprint()} adapter {_describe(adapter)}"
    return Source(_digest(recipe), _exported, adapter, builtin.TRAINED[name])


def _exported(scratch: Path) -> Path:
    builtin.export(scratch)
    return scratch


def _snapshot(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(f"{hub_id} is no directory here, and the model hub did not give it: {error}") from error


def _describe(directory: Path) -> str:
    """A line per file: small ones by content, weights by size and time of change (reading them takes minutes).

    Model cards and other texts change no model.
    """
    lines = []
    for path in sorted(path for path in directory.iterdir() if path.is_file() and path.suffix != ".md"):
        stat = path.stat()
        if stat.st_size <= _READ_WHOLE:
            lines.append(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
        else:
            lines.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return "\n".join(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
