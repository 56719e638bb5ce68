"""Which replica becomes the home of a request."""

import heapq
from collections.abc import Sequence

from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import ReplicaView

SHORTLIST = 4


def choose_home(prompt_tokens: int, expected_tokens: int, replicas: Sequence[ReplicaView], costs: Costs) -> str:
    """The replica where the request is estimated to cost least, itself and the others counted."""
    p = costs.engine.prefill_token
    b = (costs.step(16) - costs.step(1)) / 15
    per = p / (max(1, expected_tokens) * b) if b > 0 else 0.0
    views = [v for v in replicas if v.cached_prefix_tokens]
    views += heapq.nsmallest(SHORTLIST, replicas, key=lambda v: v.running + v.waiting + per * v.prefill_tokens)

    def cost(v):
        missing = max(1, prompt_tokens - v.cached_prefix_tokens)
        pre = costs.prefill(missing)
        before = costs.step(v.rows, v.context_tokens)
        after = costs.step(v.rows + 1, v.context_tokens + prompt_tokens)
        return (
            costs.prefill(v.prefill_tokens)
            + pre
            + expected_tokens * after
            + v.rows * (pre + expected_tokens * (after - before))
        )

    return min(views, key=cost).id
