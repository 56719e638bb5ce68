"""Random plans for a chain, and the answers of a language model that give them."""

import json
import random
from collections.abc import Sequence
from typing import Any

from multiverse.curation.chain.groups import Block, Body, Branch, Span
from multiverse.curation.chain.plan import BlockTexts, Dependencies, Links, Step, label, numbers, read_steps
from multiverse.curation.chain.replies import MOST_STEPS


def random_steps(draw: random.Random, sentences: int) -> dict[str, dict[str, str]]:
    """An answer about the steps of so many sentences, with parts, and with sentences before the first of either."""
    begins = [number for number in range(1, sentences + 1) if draw.random() < draw.choice([0.9, 0.4, 0.1])]
    begins = begins or [draw.randint(1, sentences)]
    parts = [number for number in range(begins[0], sentences + 1) if draw.random() < draw.choice([0.9, 0.4])]
    return {
        "steps": {str(number): f"Step {number}" for number in begins[:MOST_STEPS]},
        "sub_steps": {str(number): f"Part {number}" for number in parts[:MOST_STEPS]},
    }


def random_needs(draw: random.Random, steps: Sequence[Step]) -> dict[str, Any]:
    """What each step needs and is an alternative to: few things, so that there are blocks."""
    needs: dict[str, list[int]] = {}
    alternatives: list[list[str]] = []
    for number in numbers(steps):
        earlier = range(1, number[-1])
        needs[label(number)] = [other for other in earlier if draw.random() < 0.2]
        if earlier and draw.random() < 0.2:
            alternatives.append([label((*number[:-1], draw.choice(earlier))), label(number)])
    return {"needs": needs, "alternatives": alternatives}


def random_replies(draw: random.Random, sentences: int) -> tuple[str, str]:
    """The answers about steps and about dependencies."""
    steps = json.dumps(random_steps(draw, sentences))
    return steps, json.dumps(random_needs(draw, read_steps(steps, sentences)))


def texts_for(blocks: list[Block]) -> list[BlockTexts]:
    """Outlines and a conclusion for each block."""
    return [
        BlockTexts(
            tuple(f"branch {place} of block {number}" for place in range(len(block.branches))),
            "Both are done.",
            (None,) * len(block.branches),
        )
        for number, block in enumerate(blocks)
    ]


def links(*needs: set[int], alternatives: dict[int, set[int]] | None = None) -> Links:
    given = alternatives or {}
    return Links(
        tuple(frozenset(numbers) for numbers in needs),
        tuple(frozenset(given.get(step, ())) for step in range(len(needs))),
    )


def flat(*needs: set[int], alternatives: dict[int, set[int]] | None = None) -> Dependencies:
    """Dependencies of steps without parts."""
    return Dependencies(links(*needs, alternatives=alternatives), (links(),) * len(needs))


def single_steps(count: int) -> list[Step]:
    """A step per sentence."""
    return [Step(f"s{index}", index, index + 1) for index in range(count)]


def block(*branches: Body) -> Block:
    """A block of branches without titles."""
    return Block(tuple(Branch((), body) for body in branches))


def untitled(body: Body) -> Body:
    """The body with no titles, for comparison with what `block` makes."""
    return tuple(
        node if isinstance(node, Span) else block(*(untitled(branch.body) for branch in node.branches)) for node in body
    )
