"""Which model a target is: at the same path, hub id or address there may be another one tomorrow."""

import asyncio
import re
from pathlib import Path
from typing import Any

from multiverse.evaluation.accuracy.config import EndpointTarget, Target
from multiverse.models.sources import resolve

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
    """Of a hub id the revision, else that of its source, as when it is prepared; None where nothing is known."""
    if model.startswith(("builtin:", "s3://")) or Path(model).expanduser().is_dir():
        return resolve(model).fingerprint
    return _revision(model) if _HUB_ID.fullmatch(model) else None


def _revision(hub_id: str) -> str | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:  # a snapshot's directory is named for its commit; without the hub, the one that is here
        return Path(snapshot_download(hub_id, allow_patterns=["config.json"])).name
    except (HfHubHTTPError, LocalEntryNotFoundError):
        return None
