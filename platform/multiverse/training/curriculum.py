"""Which rows are trained on in which order and form: from sequential to parallel, as in section 5 of the paper.

pass        1   2   3     4     5      6     7   8
Multiverse  0   0   10 %  half  the    90 %  all all     all other rows of a pass are seen as their AR twins
                                other
                                half
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Form = Literal["ar", "multiverse"]
CurriculumKind = Literal["paper", "linear", "multiverse", "ar"]

PAPER_PASSES = 8


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A sequence of (row index, form), which depends on its fields only: resumed anywhere, it goes on as it would have.

    rows: how many there are; every pass holds each once, in an order of its own.
    kind: ``paper``, the eight passes above; every row comes four times in each form. ``linear``, passes from no row to
    all rows in the Multiverse form, in equal steps, where a row that has changed its form keeps it. ``multiverse`` and
    ``ar``, one form only: ``ar`` with the same rows, seed and passes is the baseline of the others, example by example
    in the same order. A training step is a number of examples, so the number of steps is the same, too.
    """

    rows: int
    seed: int
    kind: CurriculumKind = "paper"
    passes: int = PAPER_PASSES

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a curriculum needs rows, not {self.rows}")
        if self.passes < 1 or (self.kind == "paper" and self.passes != PAPER_PASSES):
            right = f"has {PAPER_PASSES}" if self.kind == "paper" else "needs at least 1"
            raise ValueError(f"{self.passes} passes: the curriculum {self.kind!r} {right}")
        if self.kind == "linear" and self.passes < 2:
            raise ValueError("the curriculum 'linear' needs at least 2 passes: the first is sequential")

    def __len__(self) -> int:
        return self.rows * self.passes

    def __getitem__(self, position: int) -> tuple[int, Form]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of a curriculum of {len(self)}")
        number, place = divmod(position, self.rows)
        row = _order(self.rows, self.seed, number)[place]
        return row, "multiverse" if self._is_multiverse(number, row) else "ar"

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Form]]:
        """What stands at the positions ``[start, stop)``, up to the end."""
        return (self[position] for position in range(start, min(stop, len(self))))

    def pass_slices(self) -> tuple[slice, ...]:
        """The positions of each pass."""
        return tuple(slice(begin, begin + self.rows) for begin in range(0, len(self), self.rows))

    def _is_multiverse(self, number: int, row: int) -> bool:
        if self.kind in ("ar", "multiverse"):
            return self.kind == "multiverse"
        rank = _ranks(self.rows, self.seed)[row]
        if self.kind == "linear":
            return rank < round(self.rows * number / max(self.passes - 1, 1))
        tenth, half = round(self.rows / 10), self.rows // 2
        chosen = (False, False, rank < tenth, rank < half, rank >= half, rank >= tenth, True, True)
        return chosen[number]


@lru_cache(maxsize=32)
def _order(rows: int, seed: int, number: int) -> tuple[int, ...]:
    """The rows of a pass in their order."""
    return _shuffled(rows, f"{seed} pass {number}")


@lru_cache(maxsize=8)
def _ranks(rows: int, seed: int) -> tuple[int, ...]:
    """By row, how early it changes its form."""
    return _shuffled(rows, f"{seed} forms")


def _shuffled(count: int, seed: str) -> tuple[int, ...]:
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return tuple(numbers)
