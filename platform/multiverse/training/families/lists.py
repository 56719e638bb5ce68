"""Short lists of numbers: something found in each of several lists, or kept up along one."""

import operator
from collections.abc import Callable, Mapping
from itertools import accumulate

from multiverse.training.families.draw import Draw, list_key
from multiverse.training.families.task import NAMED, Part, Task, chained_task, split_task

OPERATIONS = ("largest", "smallest", "total", "sorted")
ASKED = {
    "largest": (
        "Find the largest number of each list: {}.",
        "Go through these lists and write the largest number of each: {}.",
    ),
    "smallest": (
        "Find the smallest number of each list: {}.",
        "Go through these lists and write the smallest number of each: {}.",
    ),
    "total": ("Find the total of each list: {}.", "Go through these lists and write the total of each: {}."),
    "sorted": ("Put each list in order, smallest first: {}.", "Sort each of these, smallest first: {}."),
}
JOINED: Mapping[str, Callable[[int, int], int]] = {"largest": max, "smallest": min, "total": operator.add}
KEPT = {
    "largest": (
        "Go through the list {} and write the largest number so far after each.",
        "Find the largest number so far at each place of this list: {}.",
    ),
    "smallest": (
        "Go through the list {} and write the smallest number so far after each.",
        "Find the smallest number so far at each place of this list: {}.",
    ),
    "total": (
        "Go through the list {} and write the total so far after each.",
        "Find the total so far at each place of this list: {}.",
    ),
}


def lists(draw: Draw) -> Task:
    """The largest, the smallest, the total or the order of several lists."""
    operation = draw.of(OPERATIONS)
    high = 9 if operation == "total" else 99
    drawn = draw.several(draw.parts(), lambda: _numbers(draw, 3, high), lambda numbers: draw.mine(list_key(numbers)))
    named = list(zip(NAMED, drawn, strict=False))
    asked = "; ".join(f"{name}: {shown(numbers)}" for name, numbers in named)
    parts = [_part(operation, name, numbers) for name, numbers in named]
    return split_task("lists", draw.of(ASKED[operation]).format(asked), parts)


def running(draw: Draw) -> Task:
    """The largest, the smallest or the total so far, along one list."""
    operation = draw.of(tuple(KEPT))
    count, high = draw.number(4, 6), 9 if operation == "total" else 99
    numbers = draw.one(lambda: _numbers(draw, count, high), lambda numbers: draw.mine(list_key(numbers)))
    kept = kept_along(operation, numbers)
    lines = [f"{numbers[0]}.", *(f"{step}." for step in steps_along(operation, numbers))]
    question = draw.of(KEPT[operation]).format(shown(numbers))
    return chained_task("running", question, lines, ", ".join(map(str, kept)))


def kept_along(operation: str, numbers: list[int]) -> list[int]:
    """What is kept after each number."""
    return list(accumulate(numbers, JOINED[operation]))


def steps_along(operation: str, numbers: list[int]) -> list[str]:
    """How it is kept, a step for each number but the first."""
    kept = kept_along(operation, numbers)
    steps = zip(kept[:-1], numbers[1:], kept[1:], strict=True)
    if operation == "total":
        return [f"{before} + {number} = {after}" for before, number, after in steps]
    return [f"{before} and {number}, keep {after}" for before, number, after in steps]


def shown(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


def _part(operation: str, name: str, numbers: list[int]) -> Part:
    if operation == "sorted":
        first, *others = map(str, sorted(numbers))
        result = shown(sorted(numbers))
        return Part(
            name, f"{name}: {shown(numbers)}. First {first}, then {', then '.join(others)}. So {result}.", result
        )
    result = str(kept_along(operation, numbers)[-1])
    return Part(
        name,
        f"{name}: {operation} of {shown(numbers)}. {', '.join(steps_along(operation, numbers))}. So {result}.",
        result,
    )


def _numbers(draw: Draw, count: int, high: int) -> list[int]:
    """Of one digit, or of two that differ in the first: they are easy to compare."""
    if high < 10:
        return draw.random.choices(range(1, 10), k=count)
    return [10 * tens + draw.number(0, 9) for tens in draw.random.sample(range(1, 10), count)]
