"""`FleetEngine`: whole requests over a fleet of replicas."""

from collections import Counter
from pathlib import Path
from typing import Any

from multiverse.engine.step_times import StepCurve
from multiverse.serving.access.shares import share
from multiverse.serving.fleet.fleet import Fleet, NoReplica
from multiverse.serving.joins import Reduction
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.session import EngineLimits
from multiverse.serving.whole import WholeEngine

_GAUGES = ("leases", "leased_blocks", "host_blocks", "running", "waiting", "exports", "exported_bytes")
_COUNTERS = (
    "lease_spills",
    "lease_drops",
    "leases_leaked",
    "preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "sent_bytes",
    "received_bytes",
    "kv_mismatches",
)


class FleetEngine(WholeEngine):
    """owner: this router's name. routers: how many share the replicas' rows."""

    def __init__(
        self, fleet: Fleet, model: Path, limits: EngineLimits, reduction: Reduction, owner: str, routers: int = 1
    ) -> None:
        self.fleet = fleet
        self._rows = Rows(lambda: share(fleet.rows, routers))
        fleet.watch(self._rows.grant)
        super().__init__(fleet, model, limits, self._rows, reduction, owner)

    async def stats(self) -> dict[str, Any]:
        """See `stats_of`."""
        return stats_of(self.fleet) | {"queued_segments": self._rows.waiting}


def stats_of(fleet: Fleet) -> dict[str, Any]:
    """The replicas' figures, added up, and this router's. Raises NoReplica where none has answered lately.

    What counts from the start has those in it that are gone.
    """
    if not fleet.statuses:
        raise NoReplica("no engine replica answers")
    statuses, figures = fleet.statuses.values(), fleet.figures
    total: Counter[str] = Counter()
    rebuilds: Counter[str] = Counter()
    for status in statuses:
        total.update({name: status.stats.get(name, 0) for name in _GAUGES})
    for status in fleet.last_words.values():
        total.update({name: status.stats.get(name, 0) for name in _COUNTERS})
        rebuilds.update(status.stats.get("rebuilds", {}))
    capacity = sum(status.capacity for status in statuses)
    return {
        **total,
        "rebuilds": dict(rebuilds),
        "block_bytes": max(status.stats.get("block_bytes", 0) for status in statuses),
        "steps": StepCurve.of(point for status in statuses for point in status.stats.get("steps", ())).points,
        "replicas": len(statuses),
        "kv_usage": 1 - sum(status.free for status in statuses) / capacity if capacity else 0.0,
        "known_leases": fleet.leases,
        "placement": fleet.policy,
        "placements": dict(figures.decided),
        "kv_moved_bytes": dict(figures.moved),
        "replicas_lost": figures.lost,
        "branches_resumed": figures.branches,
    }
