"""What the engine tells the connector with a request, and the connector its worker: plain data.

A segment's directions travel as ``SamplingParams(extra_args={"kv_transfer_params": ...})``, vLLM's channel from a
request to a KV connector, and arrive as ``request.kv_transfer_params``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from multiverse.engine.leases import Lease, Place, Spill
from multiverse.engine.segment import Export, Source


@dataclass(frozen=True, slots=True)
class Adopted:
    """KV of ``tokens`` tokens that another engine made, to be read under the name ``lease``."""

    lease: str
    tokens: int
    place: Place


@dataclass(frozen=True, slots=True)
class Directions:
    """What the connector does for one request. ``leasing_ids``: one of these must be in the output for a lease.

    exports: written to the arena: of the request's own lease when its KV is complete, of others when it first runs.
    """

    segment: str
    owner: int
    lease: str | None = None
    leasing_ids: tuple[int, ...] = ()
    always_lease: bool = False
    sources: tuple[Source, ...] = ()
    release: tuple[str, ...] = ()
    adopted: tuple[Adopted, ...] = ()
    exports: tuple[Export, ...] = ()

    def to_params(self) -> dict[str, Any]:
        return {
            "segment": self.segment,
            "owner": self.owner,
            "lease": self.lease,
            "leasing_ids": list(self.leasing_ids),
            "always_lease": self.always_lease,
            "sources": [[source.lease, source.start, source.stop, source.offset] for source in self.sources],
            "release": list(self.release),
            "adopted": [
                [it.lease, it.tokens, list(it.place.paths), it.place.offset, it.place.blocks, it.place.skip]
                for it in self.adopted
            ],
            "exports": [[export.id, export.lease, export.start] for export in self.exports],
        }

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> "Directions":
        return cls(
            segment=params["segment"],
            owner=params["owner"],
            lease=params["lease"],
            leasing_ids=tuple(params["leasing_ids"]),
            always_lease=params["always_lease"],
            sources=tuple(Source(*source) for source in params["sources"]),
            release=tuple(params["release"]),
            adopted=tuple(
                Adopted(lease, tokens, Place(tuple(paths), offset, blocks, skip))
                for lease, tokens, paths, offset, blocks, skip in params["adopted"]
            ),
            exports=tuple(Export(*export) for export in params["exports"]),
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a lease's KV is: in ``blocks`` of the cache, at another engine's ``place``, or else in host memory."""

    lease: str
    blocks: tuple[int, ...] | None
    place: Place | None

    @classmethod
    def of(cls, lease: Lease) -> "Stored":
        return cls(lease.id, lease.block_ids or None, lease.place)

    @property
    def skip(self) -> int:
        """Tokens in front of the lease's first one."""
        return self.place.skip if self.place is not None else 0


@dataclass(frozen=True, slots=True)
class Load:
    """Copy ``length`` tokens, from token ``start`` of a lease, to token ``target_start`` of a request's blocks."""

    source: Stored
    start: int
    target: tuple[int, ...]
    target_start: int
    length: int


@dataclass(frozen=True, slots=True)
class ExportCopy:
    """Write blocks ``first ... first + count`` of a lease to the arena, at ``offset``."""

    source: Stored
    first: int
    count: int
    offset: int


@dataclass(slots=True)
class StepTransfers(KVConnectorMetadata):
    """One engine step's copies: spills before it writes anything, loads before the forward, exports behind it."""

    spills: list[Spill] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    exports: list[ExportCopy] = field(default_factory=list)
    forget: Sequence[str] = ()


@dataclass
class ConnectorStats(KVConnectorStats):
    """The connector's report to the engine's front end: gauges as they are, counters since the engine started.

    ``refused``: segments that must be rebuilt, as [segment, reason].
    """

    def reset(self) -> None:
        self.data: dict[str, Any] = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """The newer report holds all of the older one."""
        return other if other.data else self

    def reduce(self) -> dict[str, int | float]:
        return {key: value for key, value in self.data.items() if isinstance(value, int | float)}

    def is_empty(self) -> bool:
        return not self.data
