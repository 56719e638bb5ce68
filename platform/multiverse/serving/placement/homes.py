"""Which replica becomes the home of a request."""

import heapq
from collections.abc import Sequence

from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.view import ReplicaView

SHORTLIST = 4
"""How many of the replicas with the fewest rows are looked at, and of those with the fewest requests, beside those that
have some of the prefix."""


def choose_home(prompt_tokens: int, expected_tokens: int, replicas: Sequence[ReplicaView], costs: Costs) -> str:
    """The replica where the request is estimated to cost least, itself and the requests that are there counted.

    A cached prefix saves its prefill; a replica that is so much more loaded that this is lost again is not taken, nor
    one whose KV cache has no room, if another one has. expected_tokens: that it writes before it ends or forks.
    """

    def fits(view: ReplicaView) -> bool:
        return view.free_tokens >= prompt_tokens - view.cached_prefix_tokens + expected_tokens

    fitting = [view for view in replicas if fits(view)] or replicas
    cached = [view for view in fitting if view.cached_prefix_tokens]
    by_rows = heapq.nsmallest(SHORTLIST, fitting, key=lambda view: (view.rows, view.prefill_tokens, view.id))
    by_requests = heapq.nsmallest(SHORTLIST, fitting, key=lambda view: (view.requests, view.prefill_tokens, view.id))

    def cost(view: ReplicaView) -> float:
        own = costs.prefill(max(1, prompt_tokens - view.cached_prefix_tokens))
        before = costs.step(max(1, view.rows), view.context_tokens)
        after = costs.step(view.rows + 1, view.context_tokens + prompt_tokens)
        harm = view.requests * (own + expected_tokens * (after - before))
        return costs.prefill(view.prefill_tokens) + own + expected_tokens * after + harm

    return min([*cached, *by_rows, *by_requests], key=lambda view: (cost(view), view.id)).id
