"""What becomes of a row: a curated row, or a dead letter with the reason."""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from multiverse.curation.checks.distance import normalized_distance
from multiverse.curation.checks.figures import RowFigures, row_figures
from multiverse.curation.llm.calls import Reply
from multiverse.structure.flatten import flatten_text


@dataclass(slots=True)
class Spent:
    """What a row took of the LLM: answers of this run's calls, those that the cache had included.

    calls: per stage, refused answers included. Tokens and cost are those of the calls when they were made.
    """

    calls: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    models: set[str] = field(default_factory=set)

    def add(self, stage: str, reply: Reply) -> None:
        self.calls[stage] += 1
        self.requests += reply.attempts
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.cost += reply.cost
        self.models.add(reply.model)


@dataclass(frozen=True, slots=True)
class Curated:
    """chain: structured. sequential: the AR twin; in anchored mode the chain as it came, but for rewritten openings.

    diff: unified, of what differs from the chain as it came ("" if nothing). distance: normalized edit distance to it.
    gaps: per block that was looked at, the independence check's figure in nats per token (None: too long to be
    measured), those made sequential again (``merged`` blocks) included; empty without that check.
    """

    chain: str
    sequential: str
    diff: str
    distance: float
    figures: RowFigures
    gaps: Mapping[str, float | None]
    merged: int


def curated(chain: str, structured: str, gaps: Mapping[str, float | None], merged: int) -> Curated:
    """The row that came of ``chain``. Raises GrammarError if ``structured`` is no structured chain."""
    sequential = flatten_text(structured)
    return Curated(
        chain=structured,
        sequential=sequential,
        diff=_diff(chain, sequential),
        distance=normalized_distance(chain, sequential) if sequential != chain else 0.0,
        figures=row_figures(structured),
        gaps=gaps,
        merged=merged,
    )


class RowRejectedError(Exception):
    """A row that ends as a dead letter. stage: where. reason: why, for people. retryable: another run may do better."""

    def __init__(self, stage: str, reason: str, retryable: bool = False) -> None:
        super().__init__(stage, reason, retryable)
        self.stage = stage
        self.reason = reason
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.split("\n"), after.split("\n"), "chain", "rewritten", n=0, lineterm="")
    return "\n".join(lines) if before != after else ""
