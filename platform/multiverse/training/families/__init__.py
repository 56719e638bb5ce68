"""Families of small tasks, drawn from a seed: some split into independent parts, the others are asked alike but do not.

What is held out is decided problem by problem (`multiverse.training.families.draw.side`), so no sum, word or list that
a held-out task is about is in a training task.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from multiverse.training.families import arithmetic, calculations, lists, measures, people, rules, strings
from multiverse.training.families.draw import Draw, Split
from multiverse.training.families.task import Task, answer_of, grade

__all__ = ["FAMILIES", "Family", "Task", "answer_of", "generate", "grade"]


@dataclass(frozen=True, slots=True)
class Family:
    """``make``: one task. ``splits``: its tasks have independent parts."""

    name: str
    make: Callable[[Draw], Task]
    splits: bool

    @property
    def about(self) -> str:
        """What its tasks are, in a line."""
        return (self.make.__doc__ or "").strip()


_SPLITTING = (
    arithmetic.sums,
    arithmetic.differences,
    calculations.mixed,
    arithmetic.comparisons,
    rules.conditions,
    rules.cases,
    strings.backwards,
    strings.letters,
    lists.lists,
    measures.units,
    measures.dates,
    people.parcels,
    people.teams,
    people.baskets,
)
_CHAINED = (calculations.steps, rules.rounds, strings.edits, lists.running, measures.hops, people.handovers)

FAMILIES: Mapping[str, Family] = {
    make.__name__: Family(make.__name__, make, makes is _SPLITTING)
    for makes in (_SPLITTING, _CHAINED)
    for make in makes
}


def generate(families: Sequence[str], split: Split, count: int, seed: int) -> list[Task]:
    """``count`` tasks, as many of each family as of any other (give or take one), shuffled; no question twice.

    Raises ValueError for a family there is not.
    """
    if unknown := [name for name in families if name not in FAMILIES]:
        raise ValueError(f"no family {unknown[0]!r}: there are {', '.join(FAMILIES)}")
    if not families:
        raise ValueError(f"no family is named: there are {', '.join(FAMILIES)}")
    tasks: dict[str, Task] = {}
    draws = {name: Draw(split, f"{name} {seed}") for name in families}
    for place in range(count):
        name = families[place % len(families)]
        while (task := FAMILIES[name].make(draws[name])).question in tasks:
            pass
        tasks[task.question] = task
    shuffled = list(tasks.values())
    random.Random(f"{split} {seed}").shuffle(shuffled)
    return shuffled
