"""How many engine replicas there should be (Ray Serve's autoscaling policy extension point)."""

import math
from typing import Any

SEGMENTS = "segments"


def by_segments(context: Any) -> tuple[int, dict[str, Any]]:
    """As many replicas as it takes for each to have about ``target_ongoing_requests`` segments.

    Serve's own count of calls says nothing here: all segments of a router share one call.
    """
    # The mean of the last seconds, of each replica: branches begin and end together, so a moment says little.
    segments = (context.aggregated_metrics or {}).get(SEGMENTS, {}).values()
    target = context.config.get_target_ongoing_requests()
    wanted = math.ceil(sum(segments) / target) if segments else context.target_num_replicas
    bounds = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(max(wanted, bounds[0]), bounds[1]), {}
