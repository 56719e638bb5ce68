"""People: parts that have parts of their own, and things that go from hand to hand."""

from itertools import pairwise

from multiverse.training.families.draw import Draw, Key, list_key, listed
from multiverse.training.families.lists import shown, steps_along
from multiverse.training.families.task import Part, Task, block, chained_task, split_task

NAMES = ("Ann", "Ben", "Dan", "Eva", "Kim", "Lee", "Mia", "Tom", "Sam", "Max", "Amy", "Bob", "Joe", "Sue", "Tim", "Leo")
GOODS = ("pens", "cups", "books", "hats", "balls", "bags", "keys", "maps")

Basket = list[tuple[int, str, int]]
"""How many, of what, at which price."""


def baskets(draw: Draw) -> Task:
    """What each of several people pays, for one kind of thing or two."""
    told: list[str] = []
    parts: list[Part] = []
    for name, count in _people(draw):
        basket = _basket(draw, count)
        told.append(f"{name} buys {listed([f'{number} {good} at {price}' for number, good, price in basket])}.")
        parts.append(_nested(name, len(parts) + 1, [_paid(*thing) for thing in basket]))
    asked = draw.of(("How much does each pay?", "What does each of them pay?", "Find what each has to pay."))
    return split_task("baskets", f"{' '.join(told)} {asked}", parts)


def teams(draw: Draw) -> Task:
    """The sum of the best scores of several people, each in one round or two."""
    told: list[str] = []
    parts: list[Part] = []
    for name, count in _people(draw):
        rounds = draw.several(
            count, lambda: draw.random.choices(range(1, 10), k=3), lambda numbers: draw.mine(list_key(numbers))
        )
        told.append(f"{name} scored {listed([shown(numbers) for numbers in rounds])}.")
        parts.append(_nested(name, len(parts) + 1, [_best(numbers) for numbers in rounds]))
    asked = draw.of(
        (
            "The best score of each round counts. What does each have?",
            "Add the best scores of the rounds, for each player.",
            "For each, add up the best of each round.",
        )
    )
    return split_task("teams", f"{' '.join(told)} {asked}", parts)


def parcels(draw: Draw) -> Task:
    """Where several things are that go around."""
    count, passes = draw.parts(), draw.number(3, 4)
    while True:
        circle = draw.random.sample(NAMES, draw.number(5, 6))
        starts = [name for name in circle if draw.mine(("passes", *_holders(circle, name, passes)))]
        if len(starts) >= count:
            break
    parts = []
    for name in draw.random.sample(starts, count):
        holders = _holders(circle, name, passes)
        parts.append(Part(name, f"{name}: {', '.join(_handed(holders))}. So {holders[-1]}.", holders[-1]))
    asked = draw.of(
        (
            "Each has a book, and all are passed on {passes} times. Who gets the book of {}?",
            "The books are passed on {passes} times. Who has the book of {} then?",
            "After {passes} passes, where is the book of {}?",
        )
    )
    owners = listed([part.outline for part in parts])
    return split_task("parcels", f"{_told(draw, circle)} {asked.format(owners, passes=passes)}", parts)


def handovers(draw: Draw) -> Task:
    """Where one thing is that goes around."""
    passes = draw.number(3, 6)
    circle = draw.one(
        lambda: draw.random.sample(NAMES, draw.number(5, 6)),
        lambda circle: draw.mine(("passes", *_holders(circle, circle[0], passes))),
    )
    holders = _holders(circle, circle[0], passes)
    asked = draw.of(
        (
            "{} has a book, and it is passed on {passes} times. Who gets it?",
            "The book of {} is passed on {passes} times. Who has it then?",
            "After {passes} passes, where is the book of {}?",
        )
    )
    question = f"{_told(draw, circle)} {asked.format(circle[0], passes=passes)}"
    return chained_task("handovers", question, [f"{step}." for step in _handed(holders)], holders[-1])


def _people(draw: Draw) -> list[tuple[str, int]]:
    """Names, and how many parts of its own each has: two, or one for one of three people."""
    counts = [2, 2, 1] if draw.random.random() < 0.3 else [2, 2]
    draw.random.shuffle(counts)
    return list(zip(draw.random.sample(NAMES, len(counts)), counts, strict=True))


def _nested(name: str, place: int, inner: list[Part]) -> Part:
    """A person's part: the line of the one part, or a block of two and the addition of what they give."""
    if len(inner) == 1:
        return Part(name, f"{name}: {inner[0].work} Together {inner[0].result}.", inner[0].result)
    total = str(sum(int(part.result) for part in inner))
    added = " + ".join(part.result for part in inner)
    work = f"{name}:\n\n{block(inner, parent=f'{place}.')}\nTogether {added} = {total}."
    return Part(name, work, total)


def _basket(draw: Draw, kinds: int) -> Basket:
    return draw.one(
        lambda: [(draw.number(2, 3), good, draw.number(2, 9)) for good in draw.random.sample(GOODS, kinds)],
        lambda basket: _adds_up(basket) and draw.mine(_basket_key(basket)),
    )


def _adds_up(basket: Basket) -> bool:
    """Whether the sum is easy: nothing is carried."""
    return sum(number * price % 10 for number, _, price in basket) < 10


def _basket_key(basket: Basket) -> Key:
    return ("basket", *(figure for number, price in sorted((n, p) for n, _, p in basket) for figure in (number, price)))


def _paid(number: int, good: str, price: int) -> Part:
    sums = ", ".join(f"{price * times} + {price} = {price * (times + 1)}" for times in range(1, number))
    return Part(f"{number} at {price}", f"{number} {good} at {price}: {sums}.", str(number * price))


def _best(numbers: list[int]) -> Part:
    return Part(shown(numbers), f"{shown(numbers)}: {', '.join(steps_along('largest', numbers))}.", str(max(numbers)))


def _told(draw: Draw, circle: list[str]) -> str:
    gives = [f"{name} gives to {circle[(place + 1) % len(circle)]}" for place, name in enumerate(circle)]
    draw.random.shuffle(gives)
    return f"{listed(gives)}."


def _holders(circle: list[str], first: str, passes: int) -> list[str]:
    """Who has the thing, from ``first`` on, after each pass."""
    at = circle.index(first)
    return [circle[(at + place) % len(circle)] for place in range(passes + 1)]


def _handed(holders: list[str]) -> list[str]:
    pairs = pairwise(holders)
    return [f"{place} {giver} to {taker}" for place, (giver, taker) in enumerate(pairs, start=1)]
