"""Greedy tokens and log-probabilities of the engine against a reference, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from multiverse.models.manifest import Manifest

TIE = 2e-4
"""Greedy tokens may differ where the reference's best two log-probabilities are closer than this."""


@dataclass(slots=True)
class Comparison:
    """What was compared so far. ``unequal``: greedy tokens that differ although the reference had a clear best one;
    ``ties``: those that differ where it had not."""

    tokens_compared: int = 0
    max_abs_dlogp: float = 0.0
    greedy_equal: int = 0
    unequal: list[str] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)
    shortest: int = 10**9

    def add(
        self,
        where: str,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        expected: torch.Tensor,
        banned: Sequence[int],
    ) -> None:
        """expected: ``[len(tokens), vocab] float32`` log-probabilities. banned: ids the engine may not sample."""
        allowed = expected.clone()
        allowed[:, list(banned)] = -torch.inf
        best = allowed.topk(2).values
        for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            self.tokens_compared += 1
            self.max_abs_dlogp = max(self.max_abs_dlogp, abs(float(expected[index, token]) - logprob))
            if float(allowed[index, token]) == float(best[index, 0]):
                self.greedy_equal += 1
                continue
            margin = float(best[index, 0] - best[index, 1])
            (self.ties if margin <= TIE else self.unequal).append(f"{where}, token {index}: margin {margin:.2g}")
        self.shortest = min(self.shortest, len(tokens))

    def take(self, other: "Comparison") -> None:
        """Add another comparison to this one."""
        self.tokens_compared += other.tokens_compared
        self.max_abs_dlogp = max(self.max_abs_dlogp, other.max_abs_dlogp)
        self.greedy_equal += other.greedy_equal
        self.unequal += other.unequal
        self.ties += other.ties
        self.shortest = min(self.shortest, other.shortest)

    def report(self) -> dict[str, Any]:
        """What the commands tell: `figures`, and the places that differ."""
        return {
            "tokens_compared": self.tokens_compared,
            "max_abs_dlogp": self.max_abs_dlogp,
            "greedy_equal": self.greedy_equal,
            "greedy_unequal": self.unequal,
            "ties": self.ties,
        }

    def figures(self) -> dict[str, Any]:
        return {
            "tokens_compared": self.tokens_compared,
            "max_abs_dlogp": self.max_abs_dlogp,
            "greedy_equal": self.greedy_equal,
            "unequal": len(self.unequal),
            "ties": len(self.ties),
        }


def banned_ids(manifest: Manifest, end_ids: Sequence[int]) -> tuple[int, ...]:
    """Ids masked in continuations so that none ends early: tags, ends of sequence, padding rows."""
    return (*manifest.tag_ids.values(), *end_ids, *range(manifest.tokens, manifest.vocab_size))
