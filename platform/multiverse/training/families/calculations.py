"""Calculations of several steps: some short ones, one beside the other, or a long one, in which steps need each other.

Each step adds or subtracts one digit, and subtractions never borrow.
"""

from dataclasses import dataclass

from multiverse.training.families.arithmetic import ASKED, changed, result_of
from multiverse.training.families.draw import Draw, difference_key, listed, sum_key
from multiverse.training.families.task import NAMED, Part, Task, chained_task, split_task

STARTED = ("start with {first}, {steps}", "take {first}, {steps}", "begin with {first}, {steps}")
ADD, TAKE = ("add {}", "put {} on top"), ("take away {}", "subtract {}")

Step = tuple[str, int]
"""Sign and operand."""


@dataclass(frozen=True, slots=True)
class Calculation:
    """``first``, then one step after the other."""

    first: int
    steps: tuple[Step, ...]

    @property
    def values(self) -> list[int]:
        """The numbers on the way, ``first`` and the result included."""
        values = [self.first]
        for sign, operand in self.steps:
            values.append(result_of(values[-1], sign, operand))
        return values

    @property
    def expression(self) -> str:
        return " ".join([str(self.first), *(f"{sign} {operand}" for sign, operand in self.steps)])

    @property
    def lines(self) -> list[str]:
        """Each step worked out."""
        steps = zip(self.values[:-1], self.steps, strict=True)
        return [f"{value} {sign} {operand}: {changed(value, sign, operand)}." for value, (sign, operand) in steps]


def mixed(draw: Draw) -> Task:
    """Short calculations, one beside the other."""
    named = list(zip(NAMED, (calculation(draw, 2) for _ in range(draw.parts())), strict=False))
    parts = [Part(name, f"{name}: {' '.join(each.lines)}", str(each.values[-1])) for name, each in named]
    if draw.random.random() < 0.5:
        asked = listed([f"{name}: {each.expression}" for name, each in named])
        return split_task("mixed", draw.of(ASKED).format(asked), parts)
    started = draw.of(STARTED)
    told = [f"{name}: {started.format(first=each.first, steps=listed(_said(draw, each)))}." for name, each in named]
    return split_task("mixed", f"{' '.join(told)} {draw.of(('What are the results?', 'Give all results.'))}", parts)


def steps(draw: Draw) -> Task:
    """One calculation of several steps."""
    task = calculation(draw, draw.number(3, 5))
    started, said = draw.of(STARTED), _said(draw, task)
    if draw.random.random() < 0.5:
        told = [f"{NAMED[0]}: {started.format(first=task.first, steps=said[0])}."]
        for before, name, step in zip(NAMED, NAMED[1:], said[1:], strict=False):
            told.append(f"{name}: {started.format(first=before, steps=step)}.")
        asked = draw.of(("What is {}?", "Give {}.")).format(NAMED[len(said) - 1])
        question = f"{' '.join(told)} {asked}"
    else:
        question = f"{started.format(first=task.first, steps=listed(said)).capitalize()}. What is the result?"
    return chained_task("steps", question, task.lines, str(task.values[-1]))


def calculation(draw: Draw, count: int) -> Calculation:
    """A calculation of ``count`` steps, each on the draw's side."""
    while True:
        value = first = draw.number(21, 79)
        drawn: list[Step] = []
        while len(drawn) < count and (possible := _possible(draw, value)):
            drawn.append(draw.of(possible))
            value = result_of(value, *drawn[-1])
        if len(drawn) == count:
            return Calculation(first, tuple(drawn))


def _possible(draw: Draw, value: int) -> list[Step]:
    more = [("+", operand) for operand in range(2, 10) if value + operand < 100 and draw.mine(sum_key(value, operand))]
    less = [("-", operand) for operand in range(2, value % 10 + 1) if draw.mine(difference_key(value, operand))]
    return more + less


def _said(draw: Draw, task: Calculation) -> list[str]:
    """The steps in words."""
    return [draw.of(ADD if sign == "+" else TAKE).format(operand) for sign, operand in task.steps]
