"""The shape of a structured answer: how many tokens stand where, whatever they say.

Shape((12, Fork((Shape((100,)), Shape((80,))), conclusion=9), 30))

12 tokens | goal | branch of 100 | branch of 80 | conclusion of 9 | 30 tokens
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from multiverse.structure.layout import Block, Layout, layout
from multiverse.structure.tags import Kind, Vocabulary

OVERHEAD = 3
"""Tokens of a branch beside its text: the white space before ``<Path>``, ``<Path>`` and ``</Path>``."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A block. branches: the text of each, without ``<Path>`` and ``</Path>``. conclusion: its tokens."""

    branches: tuple["Shape", ...]
    conclusion: int = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """Parts in their order: a number of tokens, or a block."""

    parts: tuple["int | Fork", ...]


def even(x: float, branch_tokens: int) -> Shape:
    """One block of equal branches of ``branch_tokens`` tokens, tags and label included, and behind it as many tokens
    in sequence as bring parallelism down to ``x``. x >= 1; at 1 the block has a single branch."""
    width = max(1, ceil(x - 1e-9))
    behind = round(branch_tokens * (width - x) / (x - 1)) if x > 1 else 0
    branch = Shape((branch_tokens - OVERHEAD,))
    return Shape((Fork((branch,) * width), *([behind] if behind else [])))


def of_chain(tokens: Sequence[int], vocabulary: Vocabulary) -> Shape:
    """The shape of a structured text. Raises ValueError where it has no block."""
    kinds = vocabulary.kinds(list(tokens))
    placed = layout(kinds)
    whole = [block for block in placed.blocks if block.end is not None]
    if not whole:
        raise ValueError("no block ends in it: take more of it (trace_tokens)")
    return _Reader(kinds, placed).between(0, len(tokens), whole)


class _Reader:
    def __init__(self, kinds: np.ndarray, placed: Layout) -> None:
        self._kinds, self._placed = kinds, placed

    def between(self, start: int, stop: int, blocks: Sequence[Block]) -> Shape:
        """The shape of tokens ``[start, stop)``, tags of no block of theirs counted as text."""
        inside = [block for block in blocks if start <= block.fork and (block.end or 0) <= stop]
        outermost = [block for block in inside if block.depth == min(one.depth for one in inside)]
        parts: list[int | Fork] = []
        for block in outermost:
            opener = self._last(Kind.PARALLEL, block.fork)
            parts += [opener - start] if opener > start else []
            deeper = [other for other in inside if other.depth > block.depth]
            branches = tuple(
                self.between(self._first(Kind.PATH, span.start) + 1, span.end - 1, deeper) for span in block.spans
            )
            end = block.end or 0
            opened, closed = self._first(Kind.CONCLUSION, end), self._first(Kind.CONCLUSION_END, end)
            parts.append(Fork(branches, max(1, closed - opened - 1)))
            start = min(stop, self._first(Kind.PARALLEL_END, closed) + 1)
        parts += [stop - start] if stop > start else []
        return Shape(tuple(parts))

    def _first(self, kind: Kind, start: int) -> int:
        """Index of the first token of ``kind`` from ``start`` on, or the end."""
        found = np.flatnonzero(self._kinds[start:] == kind)
        return start + int(found[0]) if len(found) else len(self._kinds)

    def _last(self, kind: Kind, stop: int) -> int:
        found = np.flatnonzero(self._kinds[:stop] == kind)
        return int(found[-1]) if len(found) else stop


def rows_by_step(tokens: Sequence[int], vocabulary: Vocabulary, start: int = 0) -> dict[int, int]:
    """How many decode steps have how many rows at least, where tokens of one position are made in one step.

    Counted from index ``start`` on; the values add up to the critical path from there, and with their rows to tokens.
    """
    placed = layout(vocabulary.kinds(list(tokens)))
    per_position = Counter(placed.positions[start:].tolist())
    return dict(sorted(Counter(per_position.values()).items()))
