"""*Speed-up*: what parallel generation gains now."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import THIRD, distribution, figure, frame, lines, row
from dashboards.queries import Query, mean, quantile, rate, ratio
from multiverse.telemetry.engines import STEP_SECONDS
from multiverse.telemetry.requests import (
    CRITICAL_PATH_TOKENS,
    EXPECTED_SECONDS,
    GENERATION_SECONDS,
    PARALLELISM,
    REQUESTS,
    SEQUENTIAL_SECONDS,
    SPEEDUP,
    TOKENS,
)

PARALLEL = "auto|force"


def build() -> Dashboard:
    measured = ratio(SEQUENTIAL_SECONDS, GENERATION_SECONDS, mode=PARALLEL)
    limit = ratio(SEQUENTIAL_SECONDS, EXPECTED_SECONDS, mode=PARALLEL)
    return (
        frame(
            "Speed-up",
            "multiverse-speedup",
            "What parallel generation gains against the same tokens one after the other, at the engine's own step "
            "times of the batch that each request ran in.",
            REQUESTS,
        )
        .with_panel(
            figure(
                "Speed-up, measured",
                "What the tokens of auto and force would have taken in sequence, by what they took. Below 1, going "
                "parallel costs time.",
                "ratio",
                Query(measured, "speed-up"),
            )
        )
        .with_panel(
            figure(
                "Speed-up, limit",
                "The same if forks and joins took no time and all branches ran at once.",
                "ratio",
                Query(limit, "limit"),
            )
        )
        .with_panel(
            figure(
                "Share of the limit",
                "Measured speed-up by its limit: what forks, joins and waiting branches leave of it.",
                "share",
                Query(f"({measured}) / ({limit})", "share"),
            )
        )
        .with_panel(
            figure(
                "Parallelism",
                "Tokens per position of the critical path in auto and force: the limit of the speed-up at batch 1.",
                "ratio",
                Query(ratio(TOKENS, CRITICAL_PATH_TOKENS, mode=PARALLEL), "x"),
            )
        )
        .with_row(row("By model and mode"))
        .with_panel(
            lines(
                "Speed-up by model and mode",
                "Measured, and its limit. Mode off is 1 up to noise: it shows how good the step times are.",
                "ratio",
                Query(ratio(SEQUENTIAL_SECONDS, GENERATION_SECONDS, "model", "mode"), "{{model}} {{mode}}"),
                Query(ratio(SEQUENTIAL_SECONDS, EXPECTED_SECONDS, "model", "mode"), "{{model}} {{mode}}, limit"),
            )
        )
        .with_panel(
            lines(
                "Parallelism by model and mode",
                "Tokens per position of the critical path.",
                "ratio",
                Query(ratio(TOKENS, CRITICAL_PATH_TOKENS, "model", "mode"), "{{model}} {{mode}}"),
            )
        )
        .with_row(row("By batch size"))
        .with_panel(
            lines(
                "Speed-up by batch size",
                "Batch: rows of the engine's batch if the request were one row of it. The larger it is, the less a "
                "further row is free.",
                "ratio",
                Query(ratio(SEQUENTIAL_SECONDS, GENERATION_SECONDS, "batch", mode=PARALLEL), "{{batch}} rows"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Limit by batch size",
                "What the step times allow at that batch.",
                "ratio",
                Query(ratio(SEQUENTIAL_SECONDS, EXPECTED_SECONDS, "batch", mode=PARALLEL), "{{batch}} rows"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Decode step by batch size",
                "The engines' own step times, which the speed-up is computed from: mean of the last steps.",
                "seconds",
                Query(mean(STEP_SECONDS, "batch"), "{{batch}} rows"),
                width=THIRD,
            )
        )
        .with_row(row("Per request"))
        .with_panel(
            lines(
                "Speed-up of requests in auto and force",
                "Median, and the request that a tenth is slower than.",
                "ratio",
                Query(quantile(0.5, SPEEDUP, mode=PARALLEL), "median"),
                Query(quantile(0.1, SPEEDUP, mode=PARALLEL), "10 %"),
                width=THIRD,
            )
        )
        .with_panel(
            distribution(
                "Parallelism of requests in auto and force",
                "Requests per second by their parallelism.",
                "ratio",
                PARALLELISM,
                width=THIRD,
                mode=PARALLEL,
            )
        )
        .with_panel(
            lines(
                "Tokens by mode",
                "Tokens after the prompt, of all branches.",
                "tokens/s",
                Query(rate(TOKENS, "mode"), "{{mode}}"),
                width=THIRD,
            )
        )
    )
