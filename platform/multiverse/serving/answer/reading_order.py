"""Events, which come as branches run, to tokens in reading order: the first branch live, its siblings after it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from multiverse.serving.events import BlockForked, BranchEmptied, BranchFinished, Event, Finished, Place, TokensAdded


@dataclass(slots=True)
class _Fork:
    branches: tuple["_Region", ...]


@dataclass(slots=True)
class _Region:
    """The text at one place: runs of tokens and the blocks between them; ``next`` is the first item not read yet."""

    items: list[TokensAdded | _Fork] = field(default_factory=list)
    next: int = 0
    finished: bool = False


class ReadingOrder:
    """Holds tokens back until all that stands before them is there.

    at_once: all come with the last event, as is right where the client sees nothing before: then text that was there
    may still become void.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._top = _Region()
        self._regions: dict[Place, _Region] = {(): self._top}

    def push(self, event: Event) -> list[TokensAdded]:
        """The runs of tokens whose turn has come with this event."""
        match event:
            case TokensAdded(place=place):
                self._regions[place].items.append(event)
            case BlockForked(place=place, block=block, outlines=outlines):
                branches = tuple(_Region() for _ in outlines)
                self._regions[place].items.append(_Fork(branches))
                self._regions |= {(*place, (block, number)): branch for number, branch in enumerate(branches, start=1)}
            case BranchEmptied(place=place):
                self._regions[place].items.clear()
            case BranchFinished(place=place):
                self._regions[place].finished = True
            case Finished():
                return list(_read(self._top))
            case _:
                return []
        return [] if self._at_once else list(_read(self._top))


def _read(region: _Region) -> Iterator[TokensAdded]:
    while region.next < len(region.items):
        item = region.items[region.next]
        if isinstance(item, TokensAdded):
            yield item
        else:
            for branch in item.branches:
                yield from _read(branch)
                if not branch.finished:
                    return
        region.next += 1
