"""Random draws for tasks, such that what is drawn for training and what is held out never meet."""

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal, TypeVar

Split = Literal["train", "held_out"]
Key = tuple[str | int, ...]
Item = TypeVar("Item")

HELD_OUT_OF = 5
"""One in so many problems is held out."""
PARTS = (2, 3, 4)
WEIGHTS = (1, 2, 5)


def side(key: Key) -> Split:
    """The one side a problem belongs to, the same in every process and for every seed."""
    digest = blake2b(repr(key).encode(), digest_size=4).digest()
    return "held_out" if int.from_bytes(digest) % HELD_OUT_OF == 0 else "train"


def sum_key(a: int, b: int) -> Key:
    """The key of an addition, in either order."""
    return ("+", min(a, b), max(a, b))


def difference_key(a: int, b: int) -> Key:
    """The key of ``a - b``."""
    return ("-", a, b)


def list_key(numbers: Sequence[int]) -> Key:
    """The key of a list of numbers, in any order."""
    return ("list", *sorted(numbers))


class Draw:
    """A source of problems of one split. ``random``: for all that does not tell the sides apart."""

    def __init__(self, split: Split, seed: str) -> None:
        self.split: Split = split
        self.random = random.Random(f"{split} {seed}")

    def parts(self) -> int:
        """How many parts a task has."""
        return self.random.choices(PARTS, WEIGHTS)[0]

    def mine(self, *keys: Key) -> bool:
        """Whether all these problems are on this draw's side."""
        return all(side(key) == self.split for key in keys)

    def one(self, make: Callable[[], Item], fits: Callable[[Item], bool]) -> Item:
        """The first thing made that fits."""
        while not fits(item := make()):
            pass
        return item

    def several(self, count: int, make: Callable[[], Item], fits: Callable[[Item], bool]) -> list[Item]:
        """``count`` different things that fit."""
        items: list[Item] = []
        while len(items) < count:
            if (item := self.one(make, fits)) not in items:
                items.append(item)
        return items

    def number(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both included."""
        return self.random.randint(low, high)

    def of(self, items: Sequence[Item]) -> Item:
        return self.random.choice(items)


def listed(items: Sequence[str]) -> str:
    """``a, b and c``, or ``a`` alone."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]
