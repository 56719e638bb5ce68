"""``adaptive``: the placement that the cost model estimates to cost least, the block itself and the others counted.

Branches are placed one after the other, each where it adds least to

    when the block's last branch is back home  +  what the rows there lose, because their steps get longer

and all of them at home if that turns out to be no worse.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import Block, ReplicaView


class Adaptive:
    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        offers = _offers(block, home, replicas, costs)
        worst = 0.0
        for _ in range(block.width):
            open_ = [offer for offer in offers if offer.count < offer.room] or offers[:1]
            best = min(open_, key=lambda offer: offer.added(worst))
            worst = max(worst, best.finish(best.count + 1))
            best.count += 1
        spread = worst + sum(offer.harm(offer.count) for offer in offers)
        stay = offers[0]
        if stay.room >= block.width and stay.finish(block.width) + stay.harm(block.width) <= spread:
            return (home,) * block.width
        return tuple(offer.view.id for offer in offers for _ in range(offer.count))


@dataclass(slots=True)
class _Offer:
    """One replica and how many of the branches it has so far.

    room: how many it holds. start: seconds until a branch may begin there. back: seconds to bring its KV home.
    tokens: of a branch; context: tokens before each of them, on average. weight: what a second of another request's row
    counts. burden: what preparing the prefix there costs its rows.
    """

    view: ReplicaView
    costs: Costs
    room: int
    start: float
    back: float
    tokens: int
    context: float
    weight: float
    burden: float
    count: int = 0

    def finish(self, count: int) -> float:
        """Seconds until the last of ``count`` branches is back."""
        rows, context = self.view.rows + count, self.view.context_tokens + count * self.context
        return self.start + self.tokens * self.costs.step(rows, context) + self.back if count else 0.0

    def harm(self, count: int) -> float:
        """What the rows that are there lose by ``count`` branches, weighed."""
        if not count:
            return 0.0
        before = self.costs.step(self.view.rows, self.view.context_tokens) if self.view.rows else 0.0
        after = self.costs.step(self.view.rows + count, self.view.context_tokens + count * self.context)
        return self.weight * self.view.rows * (self.burden + self.tokens * (after - before))

    def added(self, worst: float) -> float:
        """What one more branch here adds, where the block is back after ``worst`` seconds without it."""
        more = self.count + 1
        return max(worst, self.finish(more)) - worst + self.harm(more) - self.harm(self.count)


def _offers(block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> list[_Offer]:
    """Home first, then the least loaded ones of its node and of others: as many of each as there are branches."""
    at_home = next(view for view in replicas if view.id == home)
    views = [at_home]
    for near in (True, False):
        there = (view for view in replicas if view.id != home and (view.node == at_home.node) == near)
        fitting = (view for view in there if block.room(view, home))
        views += heapq.nsmallest(block.width, fitting, key=lambda view: (view.rows, view.id))
    return [_offer(view, at_home, block, costs) for view in views]


def _offer(view: ReplicaView, home: ReplicaView, block: Block, costs: Costs) -> _Offer:
    tokens, same = max(1, block.expected_branch_tokens), view.node == home.node
    start, back, burden = costs.prefill(view.prefill_tokens), 0.0, 0.0
    if view.id != home.id:
        missing = max(0, block.prefix_tokens - view.cached_prefix_tokens)
        pull, again = costs.transfer(missing, same), costs.prefill(missing)
        if block.recomputable and again < pull:
            start, burden = start + again, again
        else:
            start = max(start, pull)
        back = costs.transfer(tokens, same)
    context = block.prefix_tokens + tokens / 2
    # A row of another request is worth as much as this block's share of its own rows.
    return _Offer(view, costs, block.room(view, home.id), start, back, tokens, context, 1 / block.width, burden)
