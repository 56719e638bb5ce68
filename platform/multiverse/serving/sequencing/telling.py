"""What is told of a request as it happens, and which branches its client has seen anything of."""

from collections.abc import Callable

from multiverse.serving.events import BranchEmptied, BranchFinished, Event, Finished, Place, TokensAdded
from multiverse.serving.request import Seen


class Telling:
    """tell: gets every event. seen: what of them reaches the client before the end."""

    def __init__(self, tell: Callable[[Event], None], seen: Seen) -> None:
        self._tell = tell
        self._seen = seen
        self._begun: dict[Place, None] = {}
        """Branches that have text and have not finished, outer ones before those inside."""
        self._finished: set[Place] = set()
        self._void: set[Place] = set()

    def emit(self, event: Event) -> None:
        """Tell it, unless it is of a branch that was taken back, or of a block inside one."""
        if not isinstance(event, Finished) and self._is_void(event.place):
            return
        match event:
            case TokensAdded(place=place) if place:
                self._begun[place] = None
            case BranchFinished(place=place):
                self._begun.pop(place)
                self._finished.add(place)
        self._tell(event)

    def take_back_unseen(self) -> None:
        """Take back the branches that have not finished and of which the client has seen nothing.

        All in one go: when the first of the others closes, the client sees on behind it.
        """
        for place in self._begun:
            if not self._is_void(place) and not self._is_seen(place):
                self._void.add(place)
                self._tell(BranchEmptied(place))

    def taken_back(self, place: Place) -> bool:
        return place in self._void

    def begin_again(self, place: Place) -> None:
        """What comes of this branch now is told."""
        self._void.remove(place)

    def _is_void(self, place: Place) -> bool:
        return bool(self._void) and any(place[:depth] in self._void for depth in range(1, len(place) + 1))

    def _is_seen(self, place: Place) -> bool:
        """In reading order a branch is seen when all its elder siblings have finished, and so around it."""
        if self._seen != "answer":
            return self._seen == "all"
        return all(
            (*place[:depth], (block, elder)) in self._finished
            for depth, (block, number) in enumerate(place)
            for elder in range(1, number)
        )
