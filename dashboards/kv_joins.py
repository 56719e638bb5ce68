"""*KV and joins*: blocks from fork to join, the KV that is held and moved for them, and where branches run."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import THIRD, distribution, figure, frame, lines, row
from dashboards.queries import Query, grown, quantile, rate, ratio, total
from multiverse.telemetry.engines import (
    KV_HELD,
    KV_MOVED,
    LEASE_DROPS,
    LEASE_SPILLS,
    LEASED_BLOCKS,
    LEASES,
    LEASES_LEAKED,
    OPEN_BLOCKS,
    PLACEMENTS,
    PREEMPTIONS,
    PREFIX_HITS,
    PREFIX_QUERIES,
    REBUILDS,
)
from multiverse.telemetry.requests import (
    BLOCK_DEPTH,
    BRANCH_SECONDS,
    FORK_WIDTH,
    FORKS,
    JOIN_SECONDS,
    JOINS,
    REQUESTS,
)


def build() -> Dashboard:
    return (
        frame(
            "KV and joins",
            "multiverse-kv-joins",
            "Blocks from fork to join, the KV that is held and moved for them, and where branches run.",
            REQUESTS,
        )
        .with_panel(figure("Forks", "Blocks whose branches were started.", "per second", Query(rate(FORKS), "forks")))
        .with_panel(figure("Joins", "Blocks whose branches were merged.", "per second", Query(rate(JOINS), "joins")))
        .with_panel(
            figure(
                "Join, median",
                "From the end of a block's last branch to the first token behind the join.",
                "seconds",
                Query(quantile(0.5, JOIN_SECONDS), "join"),
            )
        )
        .with_panel(
            figure(
                "Leases leaked",
                "Leases that outlived their request, in the time shown. Any is a defect.",
                "count",
                Query(f"{grown(LEASES_LEAKED)} or vector(0)", "leaked"),
            )
        )
        .with_row(row("Blocks"))
        .with_panel(distribution("Width", "Blocks per second by their branches.", "count", FORK_WIDTH, width=THIRD))
        .with_panel(
            distribution(
                "Depth",
                "Blocks per second by their nesting depth; 1 is the outermost.",
                "count",
                BLOCK_DEPTH,
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Open blocks",
                "Blocks whose branches a reducer waits for.",
                "count",
                Query(total(OPEN_BLOCKS, "replica"), "{{replica}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Branch time",
                "From a branch's start to its end.",
                "seconds",
                Query(quantile(0.5, BRANCH_SECONDS), "median"),
                Query(quantile(0.99, BRANCH_SECONDS), "99 %"),
            )
        )
        .with_panel(
            lines(
                "Join time",
                "From the end of a block's last branch to the first token behind the join.",
                "seconds",
                Query(quantile(0.5, JOIN_SECONDS), "median"),
                Query(quantile(0.99, JOIN_SECONDS), "99 %"),
            )
        )
        .with_row(row("KV"))
        .with_panel(
            lines(
                "KV held for joins",
                "Where it lies: blocks under lease in the cache, leases moved to the host, exports for other engines.",
                "bytes",
                Query(total(KV_HELD, "place"), "{{place}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Leases",
                "Held now, and the KV cache blocks under them.",
                "count",
                Query(total(LEASES), "leases"),
                Query(total(LEASED_BLOCKS), "blocks"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "KV moved between replicas",
                "Read by another replica of the same node (near), or carried to another node first (far).",
                "bytes/s",
                Query(rate(KV_MOVED, "distance"), "{{distance}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Under memory pressure",
                "Leases moved to the host, leases dropped (their KV is rebuilt), segments preempted.",
                "per second",
                Query(rate(LEASE_SPILLS), "spilled"),
                Query(rate(LEASE_DROPS), "dropped"),
                Query(rate(PREEMPTIONS), "preempted"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Rebuilds",
                "KV of closed blocks or branches made again, by reason.",
                "per second",
                Query(rate(REBUILDS, "reason"), "{{reason}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Prefix cache hits",
                "Share of the prompt tokens looked up that were found.",
                "share",
                Query(ratio(PREFIX_HITS, PREFIX_QUERIES), "hits"),
                width=THIRD,
            )
        )
        .with_row(row("Placement"))
        .with_panel(
            lines(
                "Branches by placement",
                "Where their prefix is (home), or on another replica (remote).",
                "per second",
                Query(rate(PLACEMENTS, "policy", "outcome"), "{{policy}} {{outcome}}"),
                width=24,
            )
        )
    )
