"""What a stretch of a request may still use, and how it is shared between branches.

Shares depend on the tokens alone, never on which branch ran first: a request's text does not depend on load.
"""

from dataclasses import dataclass

from multiverse.serving.sequencing.closers import Ending

CONCLUSION_RESERVE = 32
"""Tokens, and positions, kept back from branches for the conclusion; or an eighth of what is left, if that is less."""


@dataclass(slots=True)
class Budget:
    """left: tokens that may still be added, those of branches and the written ones included.
    ceiling: absolute position that is never used."""

    left: int
    ceiling: int

    def room(self, position: int, rest: Ending) -> int:
        """Tokens that may be added at ``position`` with ``rest`` still fitting behind; negative if it does not fit."""
        return min(self.left - len(rest.ids), self.ceiling - position - rest.positions)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one branch. ``capped``: ``max_branch_tokens`` is what limits it, not the request's own budget."""

    tokens: int
    ceiling: int
    capped: bool

    def budget(self) -> Budget:
        return Budget(self.tokens, self.ceiling)


def share(budget: Budget, fork: int, empty: Ending, heads: list[int], max_branch_tokens: int | None) -> Share:
    """The equal share of every branch of a block that forks at position ``fork``.

    empty: what ends the region if all branches stay empty; heads: tokens of each empty path. What follows the join of
    empty branches, and something for the conclusion, is kept back.
    """
    tokens = budget.left - (len(empty.ids) - sum(heads))
    positions = budget.ceiling - fork - (empty.positions - max(heads))
    tokens -= min(CONCLUSION_RESERVE, max(tokens, 0) // 8)
    positions -= min(CONCLUSION_RESERVE, max(positions, 0) // 8)
    own = tokens // len(heads)
    capped = max_branch_tokens is not None and max_branch_tokens < min(own, positions)
    return Share(max_branch_tokens if capped and max_branch_tokens is not None else own, fork + positions, capped)
