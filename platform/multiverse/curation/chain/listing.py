"""Chains, steps and blocks as lines of a prompt."""

import json
from collections.abc import Sequence

from multiverse.curation.chain.groups import Block, first_sentence, last_sentence
from multiverse.curation.chain.plan import Step, label
from multiverse.curation.chain.sentences import Sentence

_SHOWN_BRANCH = 400
"""Characters of a branch's beginning that are shown: its sentences stand in the conversation."""


def numbered(sentences: Sequence[Sentence]) -> str:
    """A line per sentence, ``[3] text``; line breaks inside of one are kept."""
    return "\n".join(f"[{number}] {sentence.text.strip()}" for number, sentence in enumerate(sentences, start=1))


def step_lines(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Number and description of all steps and sub-steps, in order."""
    lines = []
    for number, step in enumerate(steps, start=1):
        lines.append((label((number,)), _described(step)))
        lines += [(label((number, place)), _described(part)) for place, part in enumerate(step.parts, start=1)]
    return lines


def block_lines(forks: Sequence[Block], sentences: Sequence[Sentence]) -> str:
    """Per block its branches: their sentences' numbers, titles and how they begin."""
    lines = []
    for number, block in enumerate(forks, start=1):
        lines.append(f"Block {number}, {len(block.branches)} branches:")
        for place, branch in enumerate(block.branches, start=1):
            first, last = first_sentence(branch.body), last_sentence(branch.body)
            begins = sentences[first].text.strip()[:_SHOWN_BRANCH]
            titles = "; ".join(branch.titles)
            lines.append(f'- branch {place}: sentences {first + 1} to {last} ({titles}), begins "{begins}"')
    return "\n".join(lines)


def step_question(question: str, sentences: Sequence[Sentence]) -> dict[str, str]:
    """What the prompt about steps is filled in with."""
    count = len(sentences)
    return {
        "question": question,
        "sentences": str(count),
        "chain": numbered(sentences),
        "example": example_steps(count),
    }


def example_steps(sentences: int) -> str:
    """An answer about steps that fits a chain of so many sentences: small models keep to an example's numbers."""
    if sentences < 3:
        return json.dumps({"steps": {"1": "Find the result"}})
    odd = (sentences + 2) // 2 + 1
    steps = {"1": "Set up the equation", "2": "Try the cases"}
    return json.dumps({"steps": steps, "sub_steps": {"2": "Case of even n", f"{odd}": "Case of odd n"}})


def example_needs(steps: Sequence[Step]) -> str:
    """An answer about the dependencies of ``steps`` in which each needs the one before, and no sub-step any."""
    needs = {}
    for number, step in enumerate(steps, start=1):
        needs[label((number,))] = [number - 1] if number > 1 else []
        needs |= {label((number, place)): [] for place in range(1, len(step.parts) + 1)}
    return json.dumps({"needs": needs, "alternatives": []})


def _described(step: Step) -> str:
    return f"sentences {step.begin + 1} to {step.end}, {step.title}"
