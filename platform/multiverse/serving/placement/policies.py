"""Which replica runs which branch: ``home``, ``spread`` and ``adaptive`` behind one interface."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Protocol

from multiverse.serving.placement.adaptive import Adaptive
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import Block, ReplicaView


class Placement(Protocol):
    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        """The replica of each branch, in the branches' order. ``home`` is one of ``replicas``."""
        ...


class Home:
    """All branches where the prefix is."""

    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        return (home,) * block.width


class Spread:
    """Evenly over the replicas with the fewest rows, as many as there are branches, whatever that costs."""

    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        node = next(view.node for view in replicas if view.id == home)
        fitting = [(view.rows, view.id != home, view.node != node, view.id, view) for view in replicas]
        rooms = [
            (view.id, block.room(view, home))
            for *_, view in heapq.nsmallest(block.width, (row for row in fitting if block.room(row[-1], home)))
        ]
        placed: list[str] = []
        while len(placed) < block.width and rooms:
            placed += [id for id, _ in rooms]
            rooms = [(id, room - 1) for id, room in rooms if room > 1]
        return (*placed[: block.width], *(home,) * (block.width - len(placed)))


POLICIES: Mapping[str, Placement] = {"home": Home(), "spread": Spread(), "adaptive": Adaptive()}
