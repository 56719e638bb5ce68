"""Sums, differences and comparisons of two-digit numbers, worked out by places. Subtractions never borrow."""

from multiverse.training.families.draw import Draw, difference_key, listed, sum_key
from multiverse.training.families.task import NAMED, Part, Task, split_task

ASKED = (
    "Work out {}.",
    "Please calculate {}.",
    "Calculate {} for me.",
    "Can you work out {}?",
    "I have to calculate {}. Help me.",
    "What do you get for {}?",
)


def sums(draw: Draw) -> Task:
    """Two-digit additions."""
    pairs = draw.several(
        draw.parts(),
        lambda: (draw.number(11, 79), draw.number(11, 79)),
        lambda pair: sum(pair) < 100 and pair[0] % 10 > 0 < pair[1] % 10 and draw.mine(sum_key(*pair)),
    )
    parts = [Part(f"{a} + {b}", _by_places(a, "+", b), str(a + b)) for a, b in pairs]
    return split_task("sums", draw.of(ASKED).format(listed([part.outline for part in parts])), parts)


def differences(draw: Draw) -> Task:
    """Two-digit subtractions without borrowing."""
    pairs = draw.several(
        draw.parts(),
        lambda: (draw.number(21, 99), draw.number(11, 89)),
        lambda pair: _no_borrow(*pair) and draw.mine(difference_key(*pair)),
    )
    parts = [Part(f"{a} - {b}", _by_places(a, "-", b), str(a - b)) for a, b in pairs]
    return split_task("differences", draw.of(ASKED).format(listed([part.outline for part in parts])), parts)


def comparisons(draw: Draw) -> Task:
    """Which of two is greater, the first of them a sum."""

    def make() -> tuple[int, int, int]:
        a, b = draw.number(11, 89), draw.number(2, 9)
        return a, b, a + b + draw.of((-1, 1)) * draw.number(1, 25)

    triples = draw.several(
        draw.parts(), make, lambda triple: 10 < triple[2] < 100 and draw.mine(sum_key(triple[0], triple[1]))
    )
    parts, told = [], []
    for name, (a, b, c) in zip(NAMED, triples, strict=False):
        greater = max(a + b, c)
        told.append(f"{name}: {a} + {b} or {c}")
        work = f"{name}: {a} + {b} or {c}. {changed(a, '+', b)}. Of {a + b} and {c}, {greater} is greater."
        parts.append(Part(name, work, str(greater)))
    asked = draw.of(("Which is greater, {}?", "What is more, {}?", "Find the greater value. {}.", "Compare. {}."))
    return split_task("comparisons", asked.format("; ".join(told)), parts)


def changed(value: int, sign: str, operand: int) -> str:
    """The addition or subtraction of ones alone or of tens alone, worked out: ``7 + 8 = 15, 20 + 15 = 35``."""
    tens, ones = value // 10 * 10, value % 10
    if operand < 10:
        ones = result_of(ones, sign, operand)
        return f"{value % 10} {sign} {operand} = {ones}, {tens} + {ones} = {tens + ones}"
    tens = result_of(tens, sign, operand)
    return f"{value // 10 * 10} {sign} {operand} = {tens}, {tens} + {ones} = {tens + ones}"


def result_of(value: int, sign: str, operand: int) -> int:
    """``value + operand`` or ``value - operand``."""
    return value + operand if sign == "+" else value - operand


def _by_places(a: int, sign: str, b: int) -> str:
    """An addition or subtraction of two-digit numbers, worked out place by place."""
    tens, ones = result_of(a // 10 * 10, sign, b // 10 * 10), result_of(a % 10, sign, b % 10)
    return (
        f"{a} {sign} {b}: {a // 10 * 10} {sign} {b // 10 * 10} = {tens}, {a % 10} {sign} {b % 10} = {ones}, "
        f"{tens} + {ones} = {tens + ones}."
    )


def _no_borrow(a: int, b: int) -> bool:
    return a // 10 > b // 10 and a % 10 >= b % 10 > 0
