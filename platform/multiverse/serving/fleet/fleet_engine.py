"""`FleetEngine`: whole requests over a fleet of replicas."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from multiverse.serving.fleet.fleet import Fleet, NoReplica
from multiverse.serving.joins import Reduction
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.session import EngineLimits
from multiverse.serving.whole import WholeEngine

_SUMMED = (
    "leases",
    "leased_blocks",
    "lease_spills",
    "lease_drops",
    "leases_leaked",
    "running",
    "waiting",
    "preemptions",
    "exports",
    "exported_bytes",
    "sent_bytes",
    "received_bytes",
    "kv_mismatches",
)


class FleetEngine(WholeEngine):
    """owner: this router's name."""

    def __init__(self, fleet: Fleet, model: Path, limits: EngineLimits, reduction: Reduction, owner: str) -> None:
        self.fleet = fleet
        self._rows = Rows(lambda: fleet.rows)
        fleet.watch(self._rows.grant)
        super().__init__(fleet, model, limits, self._rows, reduction, owner)

    async def stats(self) -> dict[str, Any]:
        """The replicas' figures, added up, and this router's. Raises NoReplica where none has answered lately."""
        statuses = self.fleet.statuses
        if not statuses:
            raise NoReplica("no engine replica answers")
        total: Counter[str] = Counter()
        rebuilds: Counter[str] = Counter()
        for status in statuses.values():
            total.update({name: status.stats.get(name, 0) for name in _SUMMED})
            rebuilds.update(status.stats.get("rebuilds", {}))
        free = sum(status.free for status in statuses.values())
        capacity = sum(status.capacity for status in statuses.values())
        await asyncio.sleep(0)
        return {
            **total,
            "rebuilds": dict(rebuilds),
            "replicas": len(statuses),
            "kv_usage": 1 - free / capacity if capacity else 0.0,
            "queued_segments": self._rows.waiting,
            "known_leases": self.fleet.leases,
            "figures": self.fleet.figures,
        }
