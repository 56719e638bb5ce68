"""Metrics of curation, and what records them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from multiverse.telemetry.metric import Metric
from multiverse.telemetry.recorders import Growing, Recorder

if TYPE_CHECKING:
    from multiverse.curation.llm.accounting import Figures

# stage: the curation stage where the row ended. outcome: curated, rejected, or retryable (another run may do better).
ROWS = Metric(
    "multiverse_curation_rows_total", "counter", "Rows that ended, by stage and outcome.", "rows", ("stage", "outcome")
)
# outcome: made, cached or failed.
LLM_CALLS = Metric(
    "multiverse_curation_llm_calls_total", "counter", "Calls to the LLM, by outcome.", "calls", ("stage", "outcome")
)
LLM_REQUESTS = Metric(
    "multiverse_curation_llm_requests_total", "counter", "Requests sent for them, repeated ones too.", "requests",
    ("stage",),
)  # fmt: skip
# reason: what failed before: a status code, timeout, connection, ...
LLM_RETRIES = Metric(
    "multiverse_curation_llm_retries_total", "counter", "Requests that were repeated.", "requests", ("stage", "reason")
)
# kind: prompt or completion.
LLM_TOKENS = Metric(
    "multiverse_curation_llm_tokens_total", "counter", "Tokens that the endpoint counted.", "tokens", ("stage", "kind")
)
LLM_COST = Metric(
    "multiverse_curation_llm_cost_total", "counter", "Cost of the calls, in the currency of the prices.", "currency",
    ("stage",),
)  # fmt: skip


class CurationMeter:
    """Records what one worker of a curation job does."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._growing = Growing(recorder)

    def row(self, stage: str, outcome: str) -> None:
        """A row ended: "curated", "rejected" or "retryable", in ``stage``."""
        self._recorder.inc(ROWS, stage=stage, outcome=outcome)

    def llm(self, stages: Mapping[str, "Figures"]) -> None:
        """Take in an `Accounting`'s ``stages``: totals since the worker's start, of which the new part is added."""
        count = self._growing.count
        for stage, figures in stages.items():
            for outcome in ("made", "cached", "failed"):
                count(LLM_CALLS, getattr(figures, outcome), stage=stage, outcome=outcome)
            count(LLM_REQUESTS, figures.attempts, stage=stage)
            for reason, retries in figures.retries.items():
                count(LLM_RETRIES, retries, stage=stage, reason=reason)
            count(LLM_TOKENS, figures.prompt_tokens, stage=stage, kind="prompt")
            count(LLM_TOKENS, figures.completion_tokens, stage=stage, kind="completion")
            count(LLM_COST, figures.cost, stage=stage)
