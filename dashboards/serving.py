"""*Serving*: requests, their latency, their queue, keys and replicas."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import THIRD, figure, frame, lines, row
from dashboards.queries import Query, fleet_rate, highest, quantile, rate, total
from multiverse.telemetry.engines import (
    KV_USAGE,
    REPLICAS,
    REPLICAS_LOST,
    SEGMENTS_QUEUED,
    SEGMENTS_RUNNING,
    SEGMENTS_WAITING,
)
from multiverse.telemetry.requests import (
    ADMISSION_SECONDS,
    ADMISSION_WAITING,
    BRANCHES_RETRIED,
    FALLBACKS,
    FIRST_TOKEN_SECONDS,
    KEY_REJECTIONS,
    KEY_REQUESTS,
    KEY_RUNNING,
    KEY_TOKENS,
    REJECTIONS,
    REQUEST_SECONDS,
    REQUESTS,
    REQUESTS_RUNNING,
    TOKENS,
)


def build() -> Dashboard:
    return (
        frame("Serving", "multiverse-serving", "Requests, their latency and queue, keys, replicas.", REQUESTS)
        .with_panel(figure("Requests", "Requests that ended.", "requests/s", Query(rate(REQUESTS), "requests")))
        .with_panel(
            figure("Tokens", "Tokens after the prompt, of all branches.", "tokens/s", Query(rate(TOKENS), "tokens"))
        )
        .with_panel(
            figure("Running", "Requests admitted and not ended.", "count", Query(total(REQUESTS_RUNNING), "running"))
        )
        .with_panel(
            figure(
                "Replicas",
                "Engine replicas that answer, as the router sees it that sees most.",
                "count",
                Query(highest(REPLICAS), "replicas"),
            )
        )
        .with_row(row("Requests"))
        .with_panel(
            lines(
                "Requests by outcome",
                "Good ends are stop and length. The client went: cancelled. Its schema cannot be used: refused. The "
                "engine failed it: error.",
                "requests/s",
                Query(rate(REQUESTS, "mode", "outcome"), "{{mode}} {{outcome}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Time to the first token",
                "From admission; in force mode the plan is made before it.",
                "seconds",
                Query(quantile(0.5, FIRST_TOKEN_SECONDS, "mode"), "{{mode}} median"),
                Query(quantile(0.99, FIRST_TOKEN_SECONDS, "mode"), "{{mode}} 99 %"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Time of a request",
                "From admission to its end, however it ended.",
                "seconds",
                Query(quantile(0.5, REQUEST_SECONDS, "mode"), "{{mode}} median"),
                Query(quantile(0.99, REQUEST_SECONDS, "mode"), "{{mode}} 99 %"),
                width=THIRD,
            )
        )
        .with_row(row("Admission and keys"))
        .with_panel(
            lines(
                "Waiting",
                "Requests before the engine; segments in routers for a place in a batch; segments in engines.",
                "count",
                Query(total(ADMISSION_WAITING), "requests"),
                Query(total(SEGMENTS_WAITING), "segments in routers"),
                Query(total(SEGMENTS_QUEUED), "segments in engines"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Time in the queue",
                "What admitted requests waited for their turn.",
                "seconds",
                Query(quantile(0.5, ADMISSION_SECONDS), "median"),
                Query(quantile(0.99, ADMISSION_SECONDS), "99 %"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Turned away",
                "By reason: keys' limits, or queue_full and kv, where the server has no room.",
                "requests/s",
                Query(rate(REJECTIONS, "reason"), "{{reason}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Tokens by key",
                "Prompt tokens and tokens made, by the key's name.",
                "tokens/s",
                Query(rate(KEY_TOKENS, "key", "kind"), "{{key}} {{kind}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Requests by key",
                "Admitted, and running or waiting now.",
                "count",
                Query(rate(KEY_REQUESTS, "key"), "{{key}}, per second"),
                Query(total(KEY_RUNNING, "key"), "{{key}}, now"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Keys at their limits",
                "Requests turned away, by key and reason.",
                "requests/s",
                Query(rate(KEY_REJECTIONS, "key", "reason"), "{{key}} {{reason}}"),
                width=THIRD,
            )
        )
        .with_row(row("Engines"))
        .with_panel(
            lines(
                "Batch",
                "Segments that decode, by replica.",
                "count",
                Query(total(SEGMENTS_RUNNING, "replica"), "{{replica}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "KV cache in use",
                "Leases included, by replica. Above the high water mark nothing new is admitted.",
                "share",
                Query(highest(KV_USAGE, "replica"), "{{replica}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "What went wrong and was put right",
                "Replicas lost, branches that went on elsewhere, requests that went on sequentially, by first reason.",
                "per second",
                Query(fleet_rate(REPLICAS_LOST), "replicas lost"),
                Query(rate(BRANCHES_RETRIED, "reason"), "branches retried, {{reason}}"),
                Query(rate(FALLBACKS, "reason"), "fallbacks, {{reason}}"),
                width=THIRD,
            )
        )
    )
