"""``adaptive``: the placement that the cost model estimates to cost least, the block itself and the others counted."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import Block, ReplicaView


@dataclass(slots=True)
class _Offer:
    """What ``count`` branches on one replica would cost."""

    view: ReplicaView
    room: int
    start: float
    egress: float
    burden: float
    back: float
    count: int = 0


WEIGHT = None


class Adaptive:
    def place(self, block: Block, home: str, replicas: Sequence[ReplicaView], costs: Costs) -> tuple[str, ...]:
        at_home = next(view for view in replicas if view.id == home)
        tokens = max(1, block.expected_branch_tokens)
        key = lambda v: v.running + v.waiting
        near = [v for v in replicas if v.node == at_home.node and v.id != home]
        far = [v for v in replicas if v.node != at_home.node]
        views = [at_home]
        for group in (near, far):
            views += heapq.nsmallest(block.width, (v for v in group if block.room(v, home)), key=key)
        weight = 1.0 / block.width if WEIGHT is None else WEIGHT
        offers = []
        context = block.prefix_tokens + tokens / 2
        for view in views:
            is_home = view.id == home
            start = costs.prefill(view.prefill_tokens)
            burden = egress = back = 0.0
            if not is_home:
                missing = max(0, block.prefix_tokens - view.cached_prefix_tokens)
                same = view.node == at_home.node
                pull = costs.transfer(missing, same)
                again = costs.prefill(missing)
                if block.recomputable and again < pull:
                    start += again
                    burden = again * view.rows * weight
                else:
                    start = max(start, pull)
                    egress = pull - (costs.near if same else costs.far).fixed if missing else 0
                back = costs.transfer(tokens, same)
            room = block.room(view, home)
            offers.append(_Offer(view, room, start, egress, burden, back))

        def value(offer, n, sent):
            view = offer.view
            rows = view.rows
            before = costs.step(rows, view.context_tokens)
            after = costs.step(rows + n, view.context_tokens + n * context)
            finish = offer.start + (sent if offer.egress else 0) + tokens * after + offer.back
            harm = offer.burden + rows * weight * tokens * (after - before)
            return finish, harm

        def total(counts):
            sent = worst = harm = 0.0
            for offer, n in zip(offers, counts):
                if n:
                    f, h = value(offer, n, sent)
                    sent += offer.egress
                    worst = max(worst, f)
                    harm += h
            return worst + harm

        # greedy
        counts = [0] * len(offers)
        worst = sent = 0.0
        current = [0.0] * len(offers)
        nexts = [value(o, 1, 0.0) if o.room else (float("inf"), float("inf")) for o in offers]
        for _ in range(block.width):
            best, chosen = float("inf"), 0
            for i, (f, h) in enumerate(nexts):
                if not counts[i] and offers[i].egress:
                    f += sent
                d = max(worst, f) - worst + h - current[i]
                if d < best - 1e-12:
                    best, chosen = d, i
            f, h = nexts[chosen]
            o = offers[chosen]
            if not counts[chosen] and o.egress:
                o.start += sent
                f += sent
                sent += o.egress
            worst = max(worst, f)
            current[chosen] = h
            counts[chosen] += 1
            nexts[chosen] = (
                value(o, counts[chosen] + 1, 0.0) if counts[chosen] < o.room else (float("inf"), float("inf"))
            )
        all_home = [block.width] + [0] * (len(offers) - 1)
        if total(all_home) <= worst + sum(current):
            counts = all_home
        return tuple(o.view.id for o, n in zip(offers, counts) for _ in range(n))
