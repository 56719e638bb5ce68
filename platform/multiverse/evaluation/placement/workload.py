"""Requests for simulations of placement: drawn once per cell, so that every policy gets the same ones."""

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.placement.costs import Costs

BRANCHES = {"short": 32, "medium": 128, "long": 512, "skewed": 128}
"""Expected tokens of a branch. They vary evenly between half and one and a half times that, but for "skewed": there
they are log-normal, so that few branches are many times as long as most."""
SKEW = 1.2
"""Standard deviation of the logarithm of a skewed length."""
LONGEST = 4096
WIDTHS = {"narrow": (2, 4), "wide": (8, 16)}
"""Branches of a block, evenly between the two."""
PROMPT = (64, 512)
SEQUENTIAL = (32, 96)
"""Tokens before the block, and again after it."""
FOLLOW_UPS = 0.3
"""Share of requests that go on with an earlier one, all of whose text is a prefix of their prompt."""
PAUSE = 20.0
"""Seconds between an earlier request's arrival and that of the one that follows it, at least."""
CONTEXT = 4096
"""Requests that have grown longer than this are not followed up."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One request. Tokens: prompt, before the block, of each branch, after the block. ``earlier``: which request it
    goes on with; ``new_prompt``: what it adds to that one's text. arrival: seconds."""

    arrival: float
    prompt: int
    new_prompt: int
    head: int
    branches: tuple[int, ...]
    tail: int
    earlier: int | None

    @property
    def prefix(self) -> int:
        """Tokens before the fork."""
        return self.prompt + self.head

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.branches) + self.tail


def draw_chains(count: int, per_second: float, branches: str, widths: str, seed: int) -> list[Chain]:
    """``count`` requests that arrive by chance, independently of each other. branches: a key of `BRANCHES`."""
    draw = random.Random(seed)
    chains: list[Chain] = []
    arrivals: list[float] = []
    at = 0.0
    for _ in range(count):
        at += draw.expovariate(per_second)
        new_prompt = prompt = draw.randint(*PROMPT)
        follows, which = draw.random() < FOLLOW_UPS, draw.random()
        long_ago = bisect.bisect_left(arrivals, at - PAUSE)
        earlier = int(which * long_ago) if follows and long_ago else None
        if earlier is not None and chains[earlier].tokens > CONTEXT:
            earlier = None
        if earlier is not None:
            prompt += chains[earlier].tokens
        lengths = tuple(_length(draw, branches) for _ in range(draw.randint(*WIDTHS[widths])))
        head, tail = draw.randint(*SEQUENTIAL), draw.randint(*SEQUENTIAL)
        chains.append(Chain(at, prompt, new_prompt, head, lengths, tail, earlier))
        arrivals.append(at)
    return chains


def _length(draw: random.Random, branches: str) -> int:
    mean = BRANCHES[branches]
    if branches == "skewed":
        return min(LONGEST, max(8, round(draw.lognormvariate(math.log(mean) - SKEW**2 / 2, SKEW))))
    return round(draw.uniform(0.5, 1.5) * mean)


def draw_load(
    count: int, load: float, replicas: int, branches: str, widths: str, costs: Costs, kv_tokens: int, seed: int
) -> list[Chain]:
    """Requests at ``load`` times what so many replicas can serve, each with ``kv_tokens`` tokens of KV cache."""
    per_second = 1.0
    for _ in range(3):  # how much context follow-ups bring along depends on how fast requests come
        chains = draw_chains(count, per_second, branches, widths, seed)
        per_second = load * replicas / demand(chains, costs, kv_tokens)
    return draw_chains(count, per_second, branches, widths, seed)


def demand(chains: Sequence[Chain], costs: Costs, kv_tokens: int) -> float:
    """Seconds that a request takes of a replica, on average, if cached prefixes are found and batches have the best
    size that the KV cache has room for. Its inverse is what a replica can serve per second."""
    rows = context = prefill = steps = kv = 0.0
    for chain in chains:
        parts = [(chain.head, chain.prompt), *((length, chain.prefix) for length in chain.branches)]
        parts.append((chain.tail, chain.tokens - chain.tail))
        rows += sum(length for length, _ in parts)
        context += sum(length * (before + length / 2) for length, before in parts)
        prefill += costs.prefill(chain.new_prompt)
        steps += chain.head + max(chain.branches) + chain.tail
        kv += chain.tokens
    count, per_row = len(chains), context / rows
    most = min(costs.max_rows, max(1, int(kv_tokens / (kv / count) * rows / steps)))
    best = min(costs.step(batch, batch * per_row) / batch for batch in range(1, most + 1))
    return (prefill + rows * best) / count
