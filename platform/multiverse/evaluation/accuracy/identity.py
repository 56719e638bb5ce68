"""Which model a target is: at the same path, hub id or address there may be another one tomorrow."""

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

from multiverse.evaluation.accuracy.config import EndpointTarget, Target
from multiverse.models.sources import resolve

_SAMPLE = 2**20
_SAMPLES = 16
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


async def identity(target: Target) -> dict[str, Any]:
    """What tells the model of ``target`` from others, as fields of its essence; a server is asked.

    Raises ConfigError, TargetError, ValueError and StorageError where there is no such model.
    """
    if isinstance(target, EndpointTarget):
        from multiverse.evaluation.accuracy.endpoint import EndpointResponder

        async with EndpointResponder(target) as server:
            return server.identity
    return {"fingerprint": await asyncio.to_thread(fingerprint, target.model)}


def fingerprint(model: str) -> str | None:
    """Of a directory its files, of a hub id the revision; None where nothing is known. Reads a part of the weights."""
    directory = Path(model).expanduser()
    if directory.is_dir():
        return _of_files(directory)
    if model.startswith(("builtin:", "s3://")):
        return resolve(model).fingerprint
    return _revision(model) if _HUB_ID.fullmatch(model) else None


def _of_files(directory: Path) -> str:
    """Names, sizes, and of each file pieces of 1 MiB from its beginning to its end. Model cards change no model."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file() and path.suffix != ".md"):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        last = max(0, size - _SAMPLE)
        with path.open("rb") as file:
            for at in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
                file.seek(at)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _revision(hub_id: str) -> str | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:  # a snapshot's directory is named for its commit; without the hub, the one that is here
        return Path(snapshot_download(hub_id, allow_patterns=["config.json"])).name
    except (HfHubHTTPError, LocalEntryNotFoundError):
        return None
