"""What is kept of a run: one file for each repeat of each cell."""

import json
from dataclasses import dataclass
from typing import Any

from multiverse.storage import Folder, Prefix


@dataclass(frozen=True, slots=True)
class Record:
    """One repeat of one cell. Seconds until the last request of the batch is at its end, from the fork on, of chains
    from the first token on.

    x: tokens / critical path of what comes from there. sequential_s: as many tokens in sequence. curve: by rows,
    seconds of a step. fork_s, join_s: all forks and joins of a request, median over the batch; branch_step_s: a step of
    its branches between them. second_prefill_s: its joins by text, None where they were not run.
    others: the share of the cores that other processes took meanwhile, in all of the group. machine: what it ran on.
    """

    cell: str
    repeat: int
    tokens: int
    x: float
    structured_s: float
    sequential_s: float
    limit: float
    curve: dict[int, float]
    fork_s: float
    branch_step_s: float
    join_s: float
    second_prefill_s: float | None
    others: float = 0.0
    commit: str = ""
    machine: str = ""

    def decoding_s(self, batch: int) -> float:
        """Seconds that the steps of the structured answers take by the curve, forks and joins taking none."""
        return self.tokens * self.curve[batch] / self.limit

    @property
    def name(self) -> str:
        return f"cells/{self.cell}/{self.repeat}.json"

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Record":
        return cls(**(values | {"curve": {int(rows): seconds for rows, seconds in values["curve"].items()}}))

    def __str__(self) -> str:
        ratio = self.sequential_s / self.structured_s
        again = "" if self.second_prefill_s is None else f", second prefill {self.second_prefill_s / self.join_s:.1f}"
        return (
            f"{self.cell} #{self.repeat}: x {self.x:.2f}, over AR {ratio:.2f}, of the limit "
            f"{ratio / self.limit:.3f}, join {self.join_s * 1e3:.0f} ms{again}"
        )


def read(folder: Folder | Prefix) -> list[Record]:
    names = [name for name in folder.names() if name.startswith("cells/")]
    return [Record.of(json.loads(folder.read(name))) for name in names]
