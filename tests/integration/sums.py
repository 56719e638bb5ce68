"""One small family of tasks, drawn from a seed: sums that are independent of each other, or each built on the last.

Both kinds are asked for in the same words, so that a model has to read what depends on what.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from multiverse.serving.sequencing.pieces import Outline
from multiverse.structure.tags import LEAD_IN

Turn = str | tuple[str, ...]
"""A stretch of an answer: text that the model writes, or pieces that the engine writes while serving."""

ASKED = (
    "Work out {}.",
    "Please calculate {}.",
    "Calculate {} for me.",
    "Can you work out {}?",
    "I have to calculate {}. Help me.",
)
FURTHER = ("then add {}", "add {} to the result", "add {} to that")


@dataclass(frozen=True, slots=True)
class Task:
    """A question and its model answer. width: independent sums in it; 0 for a chain, in which nothing is."""

    question: str
    answer: tuple[Turn, ...]
    width: int

    @property
    def text(self) -> str:
        """The answer as it is read."""
        return "".join(turn if isinstance(turn, str) else "".join(turn) for turn in self.answer)


def splitting(count: int, seed: int, taken: Collection[str] = ()) -> list[Task]:
    """``count`` tasks of 2 to 4 independent sums, none with a question in ``taken`` or twice."""
    return _distinct(_splitting, count, random.Random(f"splitting {seed}"), taken)


def chained(count: int, seed: int, taken: Collection[str] = ()) -> list[Task]:
    """``count`` tasks of 2 or 3 additions that each need the one before, none with a question in ``taken`` or twice."""
    return _distinct(_chained, count, random.Random(f"chained {seed}"), taken)


def _distinct(
    make: Callable[[random.Random], Task], count: int, draw: random.Random, taken: Collection[str]
) -> list[Task]:
    tasks: dict[str, Task] = {}
    while len(tasks) < count:
        task = make(draw)
        if task.question not in taken:
            tasks[task.question] = task
    return list(tasks.values())


def _splitting(draw: random.Random) -> Task:
    pairs = [(_number(draw), _number(draw)) for _ in range(draw.randint(2, 4))]
    question = draw.choice(ASKED).format(_listed([f"{a} + {b}" for a, b in pairs]))
    return Task(question, _in_parallel(pairs), len(pairs))


def _chained(draw: random.Random) -> Task:
    first, *others = [_number(draw) for _ in range(draw.randint(3, 4))]
    steps = [f"{first} + {others[0]}", *(draw.choice(FURTHER).format(other) for other in others[1:])]
    return Task(draw.choice(ASKED).format(_listed(steps)), (_in_sequence(first, others),), 0)


def _in_parallel(pairs: list[tuple[int, int]]) -> tuple[Turn, ...]:
    outlines = [Outline(f"{place}: {a} + {b}", f"{place}:") for place, (a, b) in enumerate(pairs, start=1)]
    goal = "".join(f"<Outline>\n{outline.text}\n</Outline>\n" for outline in outlines)
    turns: list[Turn] = [f"{LEAD_IN}\n<Parallel>\n<Goal>\n{goal}</Goal>"]
    for outline, (a, b) in zip(outlines, pairs, strict=True):
        turns += [outline.beginning, f" {_added(a, b)}\n</Path>"]
    results = _listed([str(a + b) for a, b in pairs])
    turns += [("\n", "<Conclusion>"), f"\nThe sums are {results}.\n</Conclusion>\n</Parallel>\nAnswer: {results}."]
    return tuple(turns)


def _in_sequence(first: int, others: list[int]) -> str:
    lines = ["Each step needs the one before."]
    for other in others:
        lines.append(_added(first, other))
        first += other
    return "\n".join([*lines, f"Answer: {first}."])


def _added(a: int, b: int) -> str:
    """The addition of two numbers, place by place."""
    pairs = [(n // 100 * 100, n // 10 % 10 * 10, n % 10) for n in (a, b)]
    places = ", ".join(f"{of_a} + {of_b} = {of_a + of_b}" for of_a, of_b in zip(*pairs, strict=True))
    return f"{a} + {b}: {places}, together {a + b}."


def _number(draw: random.Random) -> int:
    return draw.randint(101, 499)


def _listed(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


TRAINING = (*splitting(300, seed=0), *chained(170, seed=0))
_SEEN = frozenset(task.question for task in TRAINING)
SPLITTING, CHAINED = splitting(40, seed=1, taken=_SEEN), chained(20, seed=1, taken=_SEEN)
"""Held out of training."""
