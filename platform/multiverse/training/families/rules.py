"""Conditions on one number, and a rule with two cases: applied to several numbers, or again and again to one."""

from collections.abc import Callable
from dataclasses import dataclass

from multiverse.training.families.arithmetic import changed
from multiverse.training.families.draw import Draw, Key, difference_key, listed, sum_key
from multiverse.training.families.task import Part, Task, chained_task, split_task

LOOKED_AT = (
    "Look at {number}. Is it {}?",
    "Answer yes or no for {number}: is it {}?",
    "Tell me about {number}: is it {}?",
    "Is {number} {}? Say yes or no to each.",
)
TIMES = {2: "twice", 3: "three times", 4: "four times"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a number, why it holds or not, and whether it does."""

    text: str
    why: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """Numbers that pass the test get one change, all others another."""

    text: str
    passes: Callable[[int], bool]
    why: Callable[[int], str]
    changes: tuple[int, int]

    def change(self, number: int) -> int:
        return self.changes[0] if self.passes(number) else self.changes[1]

    def apply(self, number: int) -> int:
        return number + self.change(number)

    def worked(self, number: int) -> str:
        """The application to a number, in words."""
        change = self.change(number)
        sign = "+" if change > 0 else "-"
        work = changed(number, sign, abs(change))
        return f"{self.why(number)}, so {number} {sign} {abs(change)}: {work}."

    def key(self, number: int) -> Key:
        change = self.change(number)
        return sum_key(number, change) if change > 0 else difference_key(number, -change)

    def fits(self, draw: Draw, number: int) -> bool:
        """Whether the rule is easy to apply to a number, and that is a problem of the draw's side."""
        easy = self.change(number) > 0 or -self.change(number) % 10 <= number % 10
        return 10 < self.apply(number) < 100 and easy and draw.mine(self.key(number))

    def fitting(self, draw: Draw) -> list[int]:
        return [number for number in range(11, 100) if self.fits(draw, number)]


def conditions(draw: Draw) -> Task:
    """Several conditions on one number."""
    number, found = _conditions(draw, draw.parts())
    parts = [Part(one.text, f"Is {number} {one.text}? {one.why}, so {_yes(one)}.", _yes(one)) for one in found]
    question = draw.of(LOOKED_AT).format(listed([part.outline for part in parts]), number=number)
    return split_task("conditions", question, parts)


def cases(draw: Draw) -> Task:
    """A rule with two cases, applied to several numbers."""
    count = draw.parts()
    rule = draw.one(lambda: _rule(draw), lambda rule: len(rule.fitting(draw)) >= count)
    numbers = draw.random.sample(rule.fitting(draw), count)
    parts = [Part(str(number), rule.worked(number), str(rule.apply(number))) for number in numbers]
    asked = draw.of(
        ("Apply this to {}.", "Do this with {}.", "Do this once for each of the numbers {}.", "What becomes of {}?")
    )
    return split_task("cases", f"{rule.text} {asked.format(listed([str(number) for number in numbers]))}", parts)


def rounds(draw: Draw) -> Task:
    """A rule with two cases, applied again and again to what came out before."""
    count, lines = draw.number(2, 4), list[str]()
    while len(lines) < count:
        rule, first, lines = _rule(draw), draw.number(11, 99), []
        number = first
        while len(lines) < count and rule.fits(draw, number):
            lines.append(rule.worked(number))
            number = rule.apply(number)
    asked = draw.of(
        (
            "Apply this {times}, starting with {first}.",
            "Do this with {first}, then with the result, {times} in all.",
            "Do this {times} in a row, beginning with {first}.",
            "What becomes of {first} after doing this {times}?",
        )
    )
    return chained_task("rounds", f"{rule.text} {asked.format(times=TIMES[count], first=first)}", lines, str(number))


def _conditions(draw: Draw, count: int) -> tuple[int, list[Condition]]:
    """A number, and conditions of different kinds on it."""
    while True:
        number = draw.number(11, 99)
        found = [kind(draw, number) for kind in draw.random.sample((_parity, _size, _fives, _digits), count)]
        if draw.mine(*((number, one.text) for one in found)):
            return number, found


def _rule(draw: Draw) -> Rule:
    if draw.random.random() < 0.5:
        more, less = draw.number(2, 9), draw.number(1, 3)
        text = f"If a number is even, add {more}; if it is odd, take away {less}."
        return Rule(text, lambda n: n % 2 == 0, _parity_of, (more, -less))
    border, more, less = draw.number(3, 7) * 10, draw.number(1, 4) * 10, draw.number(1, 3) * 10
    text = f"If a number is below {border}, add {more}; if not, take away {less}."
    return Rule(
        text, lambda n: n < border, lambda n: f"{n} is {'' if n < border else 'not '}below {border}", (more, -less)
    )


def _parity_of(number: int) -> str:
    return f"{number} ends in {number % 10}, it is {'odd' if number % 2 else 'even'}"


def _parity(draw: Draw, number: int) -> Condition:
    wanted = draw.of(("even", "odd"))
    is_it = "odd" if number % 2 else "even"
    return Condition(wanted, f"It ends in {number % 10}, and {number % 10} is {is_it}", wanted == is_it)


def _size(draw: Draw, number: int) -> Condition:
    wanted, other = draw.of(("greater", "less")), draw.one(lambda: draw.number(11, 99), lambda n: n != number)
    is_it = "greater" if number > other else "less"
    tens, others = number // 10, other // 10
    why = f"It has {tens} tens, {other} has {others}"
    if tens == others:
        why += f", {number % 10} is {is_it} than {other % 10}"
    return Condition(f"{wanted} than {other}", f"{why}, it is {is_it}", wanted == is_it)


def _fives(draw: Draw, number: int) -> Condition:
    of = draw.of((5, 10))
    ends = "0 or 5" if of == 5 else "0"
    return Condition(
        f"a multiple of {of}", f"It ends in {number % 10}, multiples of {of} end in {ends}", number % of == 0
    )


def _digits(draw: Draw, number: int) -> Condition:
    first, last = divmod(number, 10)
    is_it = "greater than" if first > last else "less than" if first < last else "equal to"
    return Condition(
        "written with a greater digit first",
        f"Its digits are {first} and {last}, {first} is {is_it} {last}",
        first > last,
    )


def _yes(condition: Condition) -> str:
    return "yes" if condition.holds else "no"
