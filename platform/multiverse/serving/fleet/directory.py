"""Which replicas there are, told from the thread that finds out to the event loops that go by it."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

Directory = Mapping[str, str]
"""Running replicas of a deployment: name to node."""

_lock = threading.Lock()
_known: dict[str, Directory] = {}
_watchers: dict[str, list[Callable[[Directory], Any]]] = {}


def tell(topic: str, directory: Directory) -> None:
    """These replicas there are now. From any thread."""
    with _lock:
        _known[topic] = directory
        watchers = list(_watchers.get(topic, ()))
    for watcher in watchers:
        watcher(directory)


def watch(topic: str, heard: Callable[[Directory], None]) -> Callable[[], None]:
    """Have ``heard`` called in this event loop with the replicas there are, now and whenever they change.

    Gives a function that ends it. Serve finds the replicas out when this process first calls the deployment.
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

    def end() -> None:
        with _lock:
            _watchers[topic].remove(watcher)

    return end
