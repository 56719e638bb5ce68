"""``adaptive``: the placement that the cost model estimates to cost least, the block itself and the others counted.

Branches are placed one after the other, each where it adds least to

    when the last branch has run  +  bringing KV home  +  prefills of others that hold one of the replicas up
    +  what other requests there lose, because their steps get longer

and all of them at home if that turns out to be no worse. The more replicas a block is on, the likelier one of them gets
a prompt to compute meanwhile, and the join waits for the slowest.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import Block, ReplicaView


class Adaptive:
    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        at_home = next(view for view in replicas if view.id == home)
        views = _candidates(block, at_home, replicas)
        plan = _Plan(block.prompts.prefill, [_Offer(view, at_home, block, costs) for view in views])
        for _ in range(block.width):
            plan.add_best()
        stay = _Plan(block.prompts.prefill, [_Offer(at_home, at_home, block, costs)])
        if stay.offers[0].room >= block.width:
            for _ in range(block.width):
                stay.add(stay.offers[0])
            if stay.cost <= plan.cost:
                return (home,) * block.width
        return tuple(offer.view.id for offer in plan.offers for _ in range(offer.count))


def _candidates(block: Block, home: ReplicaView, replicas: Sequence[ReplicaView]) -> list[ReplicaView]:
    """Home first, then the least loaded ones of its node and of others: as many of each as there are branches."""
    views = [home]
    for near in (True, False):
        there = (view for view in replicas if view.id != home.id and (view.node == home.node) == near)
        fitting = (view for view in there if block.room(view, home.id))
        views += heapq.nsmallest(block.width, fitting, key=lambda view: (view.rows, view.prefill_tokens, view.id))
    return views


class _Offer:
    """One replica: how many branches it has (``count``), and what it would take to run more.

    start: seconds until a branch may begin there, but for transfers. pull, back: seconds that home's link is taken by
    the prefix, and by a branch's KV; fixed: what a transfer takes more. burden: seconds that its rows stand still while
    it computes the prefix. seconds: that its branches would run if it had one more. harm, prompts: of the branches it
    has, see `_Plan`; more_harm, more_prompts: what one more would add.
    """

    __slots__ = (
        "_block", "_context", "_costs", "_idle_step", "_tokens", "back", "burden", "count", "fixed", "harm",
        "more_harm", "more_prompts", "prompts", "pull", "room", "seconds", "start", "view",
    )  # fmt: skip

    def __init__(self, view: ReplicaView, home: ReplicaView, block: Block, costs: Costs) -> None:
        self.view, self.room, self.count = view, block.room(view, home.id), 0
        self._block, self._costs = block, costs
        self._tokens = max(1, block.expected_branch_tokens)
        self._context = block.prefix_tokens + self._tokens / 2
        self._idle_step = costs.step(view.rows, view.context_tokens) if view.rows else 0.0
        self.start = costs.prefill(view.prefill_tokens)
        self.pull = self.back = self.fixed = self.burden = self.harm = self.prompts = 0.0
        if view.id != home.id:
            same = view.node == home.node
            missing = max(0, block.prefix_tokens - view.cached_prefix_tokens)
            again = costs.prefill(missing)
            self.fixed = costs.link(same).fixed
            if block.recomputable and again < costs.transfer(missing, same):
                self.start, self.burden = self.start + again, again
            else:
                self.pull = costs.transfer(missing, same) - self.fixed
            self.back = costs.transfer(self._tokens, same) - self.fixed
        self._look_ahead()

    def add(self) -> None:
        self.count += 1
        self.harm += self.more_harm
        self.prompts += self.more_prompts
        self._look_ahead()

    def _look_ahead(self) -> None:
        more = self.count + 1
        rows, context = self.view.rows + more, self.view.context_tokens + more * self._context
        self.seconds = self._tokens * self._costs.step(rows, context)
        harm = self.view.requests * (self.burden + self.seconds - self._tokens * self._idle_step)
        self.more_harm = harm - self.harm
        self.more_prompts = self._block.prompts.expected(rows, self.seconds) - self.prompts


@dataclass(slots=True)
class _Plan:
    """Branches on replicas.

    finish: seconds until the last has run. sent, back: seconds that home's link is taken by the prefix, and by the
    branches' KV; fixed: what a transfer takes more. harm: seconds that other requests lose. used: how many replicas;
    prompts: those that they get meanwhile; prefill: seconds that one takes.
    """

    prefill: float
    offers: list[_Offer]
    finish: float = 0.0
    sent: float = 0.0
    back: float = 0.0
    fixed: float = 0.0
    harm: float = 0.0
    used: int = 0
    prompts: float = 0.0

    @property
    def cost(self) -> float:
        return self._cost(self.finish, self.back + self.fixed, self.harm, self.used, self.prompts)

    def add_best(self) -> None:
        open_ = [offer for offer in self.offers if offer.count < offer.room] or self.offers[:1]
        self.add(min(open_, key=self._with))

    def add(self, offer: _Offer) -> None:
        offer.start = self._start(offer)
        self.finish = max(self.finish, offer.start + offer.seconds)
        self.harm += offer.more_harm
        self.prompts += offer.more_prompts
        self.back, self.fixed = self.back + offer.back, max(self.fixed, offer.fixed)
        if not offer.count:
            self.sent += offer.pull
            self.used += 1
        offer.add()

    def _start(self, offer: _Offer) -> float:
        """When its next branch may begin; the first one waits for the prefix."""
        return offer.start if offer.count else max(offer.start, self.sent + offer.pull + offer.fixed)

    def _with(self, offer: _Offer) -> float:
        return self._cost(
            max(self.finish, self._start(offer) + offer.seconds),
            self.back + offer.back + max(self.fixed, offer.fixed),
            self.harm + offer.more_harm,
            self.used + (not offer.count),
            self.prompts + offer.more_prompts,
        )

    def _cost(self, finish: float, back: float, harm: float, used: int, prompts: float) -> float:
        """The join waits for the replica that gets the most prompts, which is about one more than the mean."""
        most = min(prompts, prompts / used + 1.0) if used else 0.0
        return finish + back + harm + most * self.prefill
