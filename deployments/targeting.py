"""Serve calls that go to one chosen replica, and who is told which replicas there are."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

Directory = Mapping[str, str]
"""Running replicas of a deployment: name to node."""


class Targeted(RequestRouter):  # type: ignore[misc]  # mypy does not look into Ray
    """Routes a call to the replica named by its keyword ``replica``, or to any where that is "" (Ray Serve's
    ``RequestRouter`` extension point). ``topic``: under which `watch` hears of the replicas."""

    def initialize_state(self, topic: str) -> None:
        self._topic = topic

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        wanted = pending_request.kwargs.get("replica", "") if pending_request is not None else ""
        chosen = [replica for replica in candidate_replicas if wanted in ("", replica.replica_id.unique_id)]
        # Not there (any more): whoever called hears of that from `watch`, and gives up.
        return [chosen] if chosen else []

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        _tell(self._topic, {replica.replica_id.unique_id: replica.node_id for replica in replicas})


_lock = threading.Lock()
_known: dict[str, Directory] = {}
_watchers: dict[str, list[Callable[[Directory], Any]]] = {}


def _tell(topic: str, directory: Directory) -> None:
    with _lock:
        _known[topic] = directory
        watchers = list(_watchers.get(topic, ()))
    for watcher in watchers:
        watcher(directory)


def watch(topic: str, heard: Callable[[Directory], None]) -> None:
    """Have ``heard`` called in this event loop with the replicas there are, now and whenever they change.

    Serve finds them out when this process makes its first call to the deployment.
    """
    loop = asyncio.get_running_loop()

    def watcher(directory: Directory) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(heard, directory)

    with _lock:
        _watchers.setdefault(topic, []).append(watcher)
        known = _known.get(topic)
    if known is not None:
        watcher(known)
