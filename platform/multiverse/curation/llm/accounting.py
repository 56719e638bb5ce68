"""What calls to an LLM came to, and what they will come to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from multiverse.curation.llm.config import Prices


@dataclass(slots=True)
class Figures:
    """calls = made + cached + failed. attempts: requests sent. retries: by what failed (``429``, ``timeout``, ...).

    Tokens and cost are of this run: cached replies cost nothing, answers that could not be used do.
    """

    made: int = 0
    cached: int = 0
    failed: int = 0
    attempts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def calls(self) -> int:
        return self.made + self.cached + self.failed

    def use(self, prompt_tokens: int, completion_tokens: int, cost: float) -> None:
        """Tokens that the endpoint counted."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.cost += cost

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            self.made + other.made,
            self.cached + other.cached,
            self.failed + other.failed,
            self.attempts + other.attempts,
            self.retries + other.retries,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )


@dataclass(slots=True)
class Accounting:
    """Figures per stage of one worker; those of several are merged."""

    stages: dict[str, Figures] = field(default_factory=dict)

    def of(self, stage: str) -> Figures:
        """The stage's figures, to be counted up."""
        return self.stages.setdefault(stage, Figures())

    @property
    def total(self) -> Figures:
        return sum(self.stages.values(), Figures())

    @classmethod
    def merge(cls, accounts: Iterable["Accounting"]) -> "Accounting":
        merged = cls()
        for account in accounts:
            for stage, figures in account.stages.items():
                merged.stages[stage] = merged.of(stage) + figures
        return merged

    @classmethod
    def of_stages(cls, stages: Mapping[str, Mapping[str, Any]]) -> "Accounting":
        """What `report` gave as ``stages``."""
        kept = [field.name for field in fields(Figures)]
        return cls(
            {
                stage: Figures(**{name: values[name] for name in kept} | {"retries": Counter(values["retries"])})
                for stage, values in stages.items()
            }
        )

    def report(self) -> dict[str, Any]:
        """All figures as JSON takes them: ``total`` and ``stages``."""
        return {
            "total": _report(self.total),
            "stages": {stage: _report(figures) for stage, figures in self.stages.items()},
        }


def _report(figures: Figures) -> dict[str, Any]:
    return {"calls": figures.calls} | asdict(figures) | {"retries": dict(figures.retries)}


@dataclass(frozen=True, slots=True)
class StageNeed:
    """What one row needs of one stage, on average. Tokens are those of all its calls together."""

    stage: str
    calls: float
    prompt_tokens: float
    completion_tokens: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will come to if no call is cached and none is repeated. As text, a table with a line per stage."""

    rows: int
    stages: tuple[tuple[str, int, int, int, float], ...]
    """Name, calls, prompt tokens, completion tokens, cost."""

    @property
    def calls(self) -> int:
        return sum(stage[1] for stage in self.stages)

    @property
    def prompt_tokens(self) -> int:
        return sum(stage[2] for stage in self.stages)

    @property
    def completion_tokens(self) -> int:
        return sum(stage[3] for stage in self.stages)

    @property
    def cost(self) -> float:
        return sum(stage[4] for stage in self.stages)

    def __str__(self) -> str:
        total = ("total", self.calls, self.prompt_tokens, self.completion_tokens, self.cost)
        lines = [f"{'stage':<16}{'calls':>12}{'prompt tokens':>16}{'answer tokens':>16}{'cost':>12}"]
        for name, calls, prompt, completion, cost in (*self.stages, total):
            lines.append(f"{name:<16}{calls:>12,}{prompt:>16,}{completion:>16,}{cost:>12,.2f}")
        return f"Estimate for {self.rows:,} rows\n" + "\n".join(lines)


def estimate(rows: int, needs: Sequence[StageNeed], prices: Prices) -> Estimate:
    """What ``rows`` rows will come to."""
    stages = []
    for need in needs:
        calls, prompt, completion = (
            round(rows * each) for each in (need.calls, need.prompt_tokens, need.completion_tokens)
        )
        stages.append((need.stage, calls, prompt, completion, prices.cost(prompt, completion)))
    return Estimate(rows, tuple(stages))
