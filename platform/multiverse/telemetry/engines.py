"""Metrics of engine replicas and of what a router does with them, and what records the figures that both tell."""

from collections.abc import Mapping
from typing import Any

from multiverse.telemetry.metric import Metric
from multiverse.telemetry.recorders import Growing, Recorder
from multiverse.telemetry.requests import BRANCHES_RETRIED

# Of these two each router tells what it sees of the whole fleet: over several routers take the maximum.
REPLICAS = Metric("multiverse_replicas", "gauge", "Engine replicas that answer.", "replicas")
REPLICAS_LOST = Metric(
    "multiverse_replicas_lost_total", "counter", "Engine replicas that died or did not answer.", "replicas"
)
# policy: home, spread or adaptive. outcome: home or remote.
PLACEMENTS = Metric(
    "multiverse_placements_total", "counter", "Branches by where they were placed.", "branches", ("policy", "outcome")
)
SEGMENTS_WAITING = Metric(
    "multiverse_segments_waiting", "gauge", "Segments that wait in the router for a place in a batch.", "segments"
)
# distance: near or far. A replica reads what another one of its node has made; from other nodes it is carried first.
KV_MOVED = Metric(
    "multiverse_kv_moved_bytes_total", "counter", "KV that replicas read from other ones.", "bytes", ("distance",)
)
OPEN_BLOCKS = Metric("multiverse_open_blocks", "gauge", "Blocks whose branches a reducer waits for.", "blocks")

# ---- one engine -----------------------------------------------------------------------------------------------------
SEGMENTS_RUNNING = Metric("multiverse_segments_running", "gauge", "Segments in an engine's batch.", "segments")
SEGMENTS_QUEUED = Metric("multiverse_segments_queued", "gauge", "Segments that wait in an engine.", "segments")
# batch: rows that decode: 1, 2-3, 4-7, ...
STEP_SECONDS = Metric(
    "multiverse_step_seconds", "gauge", "A decode step of an engine, mean of the last ones.", "seconds", ("batch",)
)
KV_USAGE = Metric("multiverse_kv_usage", "gauge", "Share of the KV cache that is in use, leases included.", "share")
# place: cache (blocks under lease), host (leases moved out of the cache) or export (readable for other engines).
KV_HELD = Metric("multiverse_kv_held_bytes", "gauge", "KV held for joins, by where it lies.", "bytes", ("place",))
PREEMPTIONS = Metric("multiverse_preemptions_total", "counter", "Segments whose KV had to make room.", "segments")
PREFIX_QUERIES = Metric(
    "multiverse_prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", "tokens"
)
PREFIX_HITS = Metric("multiverse_prefix_cache_hits_total", "counter", "Prompt tokens found there.", "tokens")
LEASES = Metric("multiverse_leases", "gauge", "Leases on KV that are held.", "leases")
LEASED_BLOCKS = Metric("multiverse_leased_blocks", "gauge", "KV cache blocks under lease.", "blocks")
LEASE_SPILLS = Metric("multiverse_lease_spills_total", "counter", "Leases moved to host memory.", "leases")
LEASE_DROPS = Metric("multiverse_lease_drops_total", "counter", "Leases given up; their KV is rebuilt.", "leases")
LEASES_LEAKED = Metric(
    "multiverse_leases_leaked_total", "counter", "Leases that outlived their request; any is a defect.", "leases"
)
REBUILDS = Metric(
    "multiverse_rebuilds_total", "counter", "KV of closed blocks or branches made again.", "rebuilds", ("reason",)
)


def batch_label(rows: float) -> str:
    """The rows of a batch as a label: "1", "2-3", "4-7", ..."""
    low = 1 << max(0, int(rows).bit_length() - 1)
    return "1" if low == 1 else f"{low}-{2 * low - 1}"


class EngineMeter:
    """Records what engines tell of themselves: one of them (`VllmEngine.figures`), or several added up."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._growing = Growing(recorder)

    def take(self, figures: Mapping[str, Any]) -> None:
        """Counters run from the engine's start."""
        recorder, count = self._recorder, self._growing.count
        recorder.set(SEGMENTS_RUNNING, figures.get("running", 0))
        recorder.set(SEGMENTS_QUEUED, figures.get("waiting", 0))
        recorder.set(KV_USAGE, figures.get("kv_usage", 0.0))
        recorder.set(LEASES, figures.get("leases", 0))
        recorder.set(LEASED_BLOCKS, figures.get("leased_blocks", 0))
        block_bytes = figures.get("block_bytes", 0)
        recorder.set(KV_HELD, figures.get("leased_blocks", 0) * block_bytes, place="cache")
        recorder.set(KV_HELD, figures.get("host_blocks", 0) * block_bytes, place="host")
        recorder.set(KV_HELD, figures.get("exported_bytes", 0), place="export")
        count(LEASE_SPILLS, figures.get("lease_spills", 0))
        count(LEASE_DROPS, figures.get("lease_drops", 0))
        count(LEASES_LEAKED, figures.get("leases_leaked", 0))
        count(PREEMPTIONS, figures.get("preemptions", 0))
        count(PREFIX_QUERIES, figures.get("prefix_cache_queries", 0))
        count(PREFIX_HITS, figures.get("prefix_cache_hits", 0))
        for reason, total in figures.get("rebuilds", {}).items():
            count(REBUILDS, total, reason=reason)
        for rows, seconds in figures.get("steps", ()):
            recorder.set(STEP_SECONDS, seconds, batch=batch_label(rows))


class FleetMeter:
    """Records what one router tells of the replicas it uses (`multiverse.serving.fleet.fleet_engine.stats_of`)."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._growing = Growing(recorder)

    def take(self, figures: Mapping[str, Any]) -> None:
        recorder, count = self._recorder, self._growing.count
        recorder.set(REPLICAS, figures.get("replicas", 1))
        recorder.set(SEGMENTS_WAITING, figures.get("queued_segments", 0))
        count(REPLICAS_LOST, figures.get("replicas_lost", 0))
        count(BRANCHES_RETRIED, figures.get("branches_resumed", 0), reason="lost")
        for distance, total in figures.get("kv_moved_bytes", {}).items():
            count(KV_MOVED, total, distance=distance)
        for outcome, total in figures.get("placements", {}).items():
            count(PLACEMENTS, total, policy=figures["placement"], outcome=outcome)
