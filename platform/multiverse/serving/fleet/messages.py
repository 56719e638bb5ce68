"""What routers and engine replicas tell each other: plain data, and the two sides as protocols."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Segment


class ReplicaLost(RuntimeError):
    """A replica died, is draining, or does not answer: what it held is gone."""


class SegmentFailed(RuntimeError):
    """The engine of a replica could not run a segment; another one could not either."""


@dataclass(frozen=True, slots=True)
class Failed:
    """How a segment ended that did not end well.

    refused: its caller's fault. dead: the engine's process is gone. unsent: it never got to the replica.
    """

    kind: Literal["refused", "failed", "dead", "unsent"]
    message: str


@dataclass(frozen=True, slots=True)
class Submit:
    segment: Segment


@dataclass(frozen=True, slots=True)
class Stop:
    """Abort a segment. One that has ended stays ended."""

    segment: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give back leases and exports."""

    ids: tuple[str, ...]


Command = Submit | Stop | Release
Output = tuple[str, Delta | Failed]
"""Of which segment, and what. A segment's last output is a delta with ``finish``, or a failure."""


def joined(outputs: Sequence[Output]) -> list[Output]:
    """The same with one delta for each segment, in the order in which they begin."""
    found: dict[str, Delta] = {}
    failed: list[Output] = []
    for id, item in outputs:
        if isinstance(item, Failed):
            failed.append((id, item))
        elif (before := found.get(id)) is None:
            found[id] = item
        else:
            logprobs = (*(before.logprobs or ()), *(item.logprobs or ()))
            found[id] = replace(item, tokens=(*before.tokens, *item.tokens), logprobs=logprobs or None)
    return [*found.items(), *failed]


@dataclass(frozen=True, slots=True)
class Status:
    """A replica as its engine last reported it.

    running, waiting: segments. capacity, free: tokens of KV cache, those under lease are not free. rows: segments that
    may run at once. stats: figures of `EngineStats`, and of what went in and out.
    """

    running: int
    waiting: int
    capacity: int
    free: int
    rows: int
    stats: Mapping[str, Any] = field(default_factory=dict)


class Link(Protocol):
    """A router's connection to one replica. Every call may raise ReplicaLost."""

    @property
    def id(self) -> str: ...

    @property
    def node(self) -> str:
        """Replicas of one node read each other's memory."""
        ...

    def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        """See `SegmentEngine`. Raises ValueError for what the engine refuses, SegmentFailed if it fails."""
        ...

    async def release(self, ids: Sequence[str]) -> None: ...

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        """Export a held lease from token ``start`` on; None if it is not there or there is no room."""
        ...

    async def exported(self, id: str) -> KVReference | None:
        """What became of a segment's export; waits until it is known."""
        ...

    async def carried(self, reference: KVReference) -> KVReference | None:
        """The same reference, readable on other nodes."""
        ...

    async def status(self) -> Status: ...

    async def close(self) -> None: ...
