"""*Curation*: rows by stage and outcome, and what the LLM is asked and costs."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import THIRD, figure, frame, lines, row
from dashboards.queries import OF_MODEL, Query, grown, rate
from multiverse.telemetry.curation import LLM_CALLS, LLM_COST, LLM_REQUESTS, LLM_RETRIES, LLM_TOKENS, ROWS


def build() -> Dashboard:
    def part(whole: str, share: str) -> str:
        return f"{share} / {whole}"

    rows, calls = rate(ROWS, where=OF_MODEL), rate(LLM_CALLS, where=OF_MODEL)
    return (
        frame(
            "Curation",
            "multiverse-curation",
            "Chains on their way to structured chains. Model: the LLM that is asked.",
            ROWS,
            deployments=False,
        )
        .with_panel(figure("Rows", "Rows that ended.", "per second", Query(rows, "rows")))
        .with_panel(
            figure(
                "Curated",
                "Share of the rows that ended that became structured chains.",
                "share",
                Query(part(rows, rate(ROWS, where=OF_MODEL, outcome="curated")), "curated"),
            )
        )
        .with_panel(
            figure(
                "Calls from the cache",
                "Share of the LLM's calls that cost nothing.",
                "share",
                Query(part(calls, rate(LLM_CALLS, where=OF_MODEL, outcome="cached")), "cached"),
            )
        )
        .with_panel(
            figure(
                "Cost",
                "In the time shown, in the currency of the prices.",
                "count",
                Query(grown(LLM_COST, where=OF_MODEL), "cost"),
            )
        )
        .with_row(row("Rows"))
        .with_panel(
            lines(
                "Rows by stage and outcome",
                "Where rows end: curated, rejected, or retryable, where another run may do better.",
                "per second",
                Query(rate(ROWS, "stage", "outcome", where=OF_MODEL), "{{stage}} {{outcome}}"),
                width=24,
            )
        )
        .with_row(row("LLM"))
        .with_panel(
            lines(
                "Calls by stage and outcome",
                "Made, answered by the cache, or given up.",
                "per second",
                Query(rate(LLM_CALLS, "stage", "outcome", where=OF_MODEL), "{{stage}} {{outcome}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Requests and retries",
                "Requests sent, and those repeated, by what failed before.",
                "per second",
                Query(rate(LLM_REQUESTS, where=OF_MODEL), "requests"),
                Query(rate(LLM_RETRIES, "reason", where=OF_MODEL), "retries, {{reason}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Tokens",
                "As the endpoint counts them.",
                "tokens/s",
                Query(rate(LLM_TOKENS, "stage", "kind", where=OF_MODEL), "{{stage}} {{kind}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Cost by stage",
                "Per second, in the currency of the prices.",
                "scientific",
                Query(rate(LLM_COST, "stage", where=OF_MODEL), "{{stage}}"),
                width=24,
            )
        )
    )
