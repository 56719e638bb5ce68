"""What the engine tells the connector with a request, and the connector its worker: plain data.

A segment's directions travel as ``SamplingParams(extra_args={"kv_transfer_params": ...})``, vLLM's channel from a
request to a KV connector, and arrive as ``request.kv_transfer_params``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from multiverse.engine.leases import Spill
from multiverse.engine.segment import Source


@dataclass(frozen=True, slots=True)
class Directions:
    """What the connector does for one request. ``leasing_ids``: one of these must be in the output for a lease."""

    segment: str
    owner: int
    lease: str | None = None
    leasing_ids: tuple[int, ...] = ()
    always_lease: bool = False
    sources: tuple[Source, ...] = ()
    release: tuple[str, ...] = ()

    def to_params(self) -> dict[str, Any]:
        return {
            "segment": self.segment,
            "owner": self.owner,
            "lease": self.lease,
            "leasing_ids": list(self.leasing_ids),
            "always_lease": self.always_lease,
            "sources": [[source.lease, source.start, source.stop, source.offset] for source in self.sources],
            "release": list(self.release),
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
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Copy ``length`` tokens, from token ``start`` of a lease, to token ``target_start`` of a request's blocks.

    The lease lies in ``blocks``, or in the worker's host memory where ``blocks`` is None.
    """

    lease: str
    blocks: tuple[int, ...] | None
    start: int
    target: tuple[int, ...]
    target_start: int
    length: int


@dataclass(slots=True)
class StepTransfers(KVConnectorMetadata):
    """One engine step's copies: spills before the step writes anything, then loads before the forward."""

    spills: list[Spill] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
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


HostLeases = dict[str, list[torch.Tensor]]
