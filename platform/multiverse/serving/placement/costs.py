"""What decoding, prefill, transfers and joins take: the cost model of placement."""

import bisect
import json
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from multiverse.engine.measure_costs import EngineCosts, Link

MEASURED = "measured.json"
"""In this package: costs of the small model on a machine without a GPU. The file says how they were measured."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one replica and the links between replicas; all replicas are taken to be alike.

    near, far: links between two replicas of one node, and of different nodes.
    kv_bytes: bytes of KV per token.
    max_rows: rows that a replica decodes at the same time; more wait.
    source: where the figures come from, for people.
    """

    engine: EngineCosts
    near: Link
    far: Link
    kv_bytes: int
    max_rows: int = 64
    source: str = ""
    _steps: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        points = self.engine.steps
        if not points or points[0][0] < 1:
            raise ValueError(f"steps {points}: must have a point, and none below 1 row")
        for (low, fast), (high, slow) in pairwise(points):
            if high <= low or slow < fast:
                raise ValueError(f"steps {points}: rows must ascend, and seconds must not fall")
        if points[0][1] <= 0:
            raise ValueError(f"steps {points}: seconds must be positive")
        object.__setattr__(self, "_steps", tuple(_curve(points, rows) for rows in range(self.max_rows + 1)))

    def step(self, rows: int, context: float = 0.0) -> float:
        """Seconds of a decode step of a batch of ``rows`` rows that have ``context`` tokens before them, all together.

        A batch has at most ``max_rows``; with more, it is how long each row waits for its next token on average.
        """
        if rows > self.max_rows:
            rows, more = self.max_rows, rows / self.max_rows
            return (self._steps[rows] + self.engine.step_context * context / more) * more
        return self._steps[rows] + self.engine.step_context * context

    def prefill(self, tokens: int) -> float:
        """Seconds to compute the KV of ``tokens`` tokens."""
        return self.engine.prefill_fixed + tokens * self.engine.prefill_token if tokens > 0 else 0.0

    def transfer(self, tokens: float, same_node: bool) -> float:
        """Seconds to bring the KV of ``tokens`` tokens from another replica."""
        link = self.link(same_node)
        return link.fixed + tokens * self.kv_bytes / link.bytes_per_second if tokens > 0 else 0.0

    def link(self, same_node: bool) -> Link:
        return self.near if same_node else self.far

    @property
    def join(self) -> float:
        """Seconds from asking for a join to its first token, where all KV is at home."""
        return self.engine.join_fixed

    def to_json(self) -> str:
        values = asdict(self)
        del values["_steps"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Costs":
        """Raises ValueError if a value is missing or unknown."""
        try:
            return cls.of(json.loads(text))
        except (KeyError, TypeError) as error:
            raise ValueError(f"costs: {error}") from error

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Costs":
        engine = dict(values["engine"])
        steps = tuple((int(rows), float(seconds)) for rows, seconds in engine.pop("steps"))
        rest = {name: value for name, value in values.items() if name not in ("engine", "near", "far")}
        return cls(EngineCosts(steps, **engine), Link(**values["near"]), Link(**values["far"]), **rest)

    @classmethod
    def load(cls, path: Path | None = None) -> "Costs":
        """From a file; None: those measured for this package."""
        if path is not None:
            return cls.from_json(path.read_text(encoding="utf-8"))
        return cls.from_json(resources.files(__package__).joinpath(MEASURED).read_text(encoding="utf-8"))


def _curve(points: tuple[tuple[int, float], ...], rows: int) -> float:
    """Straight lines between the points; the first value before them, the last line's slope behind them."""
    if rows <= points[0][0] or len(points) == 1:
        return points[0][1]
    upper = min(bisect.bisect_left(points, (rows, 0.0)), len(points) - 1)
    (low, fast), (high, slow) = points[upper - 1], points[upper]
    return fast + (slow - fast) * (rows - low) / (high - low)
