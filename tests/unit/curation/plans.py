"""Random plans for a chain, and the answers of a language model that give them."""

import json
import random
from typing import Any

from multiverse.curation.chain.groups import Block, Body, Branch, Span
from multiverse.curation.chain.plan import BlockTexts, Dependencies, Links, Step


def random_steps(draw: random.Random, begin: int, end: int, depth: int = 2) -> list[dict[str, Any]]:
    """Steps of sentences ``begin`` to ``end``, from 1 and inclusive, with gaps, ``depth`` levels of them."""
    steps, at = [], begin
    while at <= end:
        first = min(end, at + draw.choice([0, 0, 0, 1]))
        last = min(end, first + draw.choice([0, 0, 1, 2, 4, (end - begin) // 16]))
        step: dict[str, Any] = {"title": f"Step {first}", "first": first, "last": last}
        if depth > 1 and draw.random() < 0.7:
            step["sub_steps"] = random_steps(draw, first, last, depth - 1)
        steps.append(step)
        at = last + 1
    return steps


def random_needs(draw: random.Random, steps: list[dict[str, Any]], above: str = "") -> dict[str, Any]:
    """What each step needs and is an alternative to: few things, so that there are blocks."""
    needs: dict[str, list[int]] = {}
    alternatives: list[list[str]] = []
    for number, step in enumerate(steps, start=1):
        earlier = range(1, number)
        needs[f"{above}{number}"] = [other for other in earlier if draw.random() < 0.2]
        if number > 1 and draw.random() < 0.2:
            alternatives.append([f"{above}{draw.choice(earlier)}", f"{above}{number}"])
        inner = random_needs(draw, step.get("sub_steps", []), f"{above}{number}.")
        needs |= inner["needs"]
        alternatives += inner["alternatives"]
    return {"needs": needs, "alternatives": alternatives}


def random_replies(draw: random.Random, sentences: int) -> tuple[str, str]:
    """The answers about steps and about dependencies."""
    steps = random_steps(draw, 1, sentences)
    return json.dumps({"steps": steps}), json.dumps(random_needs(draw, steps))


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
