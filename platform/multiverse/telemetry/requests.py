"""Metrics of requests: their outcome, who sends them, their queue, their blocks, and what going parallel gains."""

from multiverse.telemetry.metric import Metric

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
_RATIOS = (1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)

# mode: auto, force or off. outcome: the finish reason, "cancelled", "error", or "refused": the engine cannot do what is
# asked for.
REQUESTS = Metric(
    "multiverse_requests_total", "counter", "Requests that ended, by outcome.", "requests", ("mode", "outcome")
)
REQUESTS_RUNNING = Metric("multiverse_requests_running", "gauge", "Requests admitted and not ended.", "requests")
REQUEST_SECONDS = Metric(
    "multiverse_request_seconds",
    "histogram",
    "From a request's admission to its end, however it ended.",
    "seconds",
    ("mode",),
    _SECONDS,
)
FIRST_TOKEN_SECONDS = Metric(
    "multiverse_first_token_seconds",
    "histogram",
    "From a request's admission to the first token of its answer; in force mode the plan is made before it.",
    "seconds",
    ("mode",),
    _SECONDS,
)

# ---- who may come in ------------------------------------------------------------------------------------------------
ADMISSION_WAITING = Metric(
    "multiverse_admission_waiting", "gauge", "Requests that wait for their turn before the engine.", "requests"
)
ADMISSION_SECONDS = Metric(
    "multiverse_admission_seconds",
    "histogram",
    "What admitted requests waited for their turn.",
    "seconds",
    buckets=_SECONDS,
)
# reason: unauthorized, not_local, width, concurrency, tokens_per_minute, queue_full or kv.
REJECTIONS = Metric(
    "multiverse_rejections_total", "counter", "Requests turned away before generation.", "requests", ("reason",)
)
# key: its configured name.
KEY_REQUESTS = Metric("multiverse_key_requests_total", "counter", "Requests admitted, by key.", "requests", ("key",))
KEY_REJECTIONS = Metric(
    "multiverse_key_rejections_total", "counter", "Requests turned away, by key.", "requests", ("key", "reason")
)
# kind: prompt or completion.
KEY_TOKENS = Metric(
    "multiverse_key_tokens_total",
    "counter",
    "Tokens of prompts and tokens made, by key, those of cancelled requests included.",
    "tokens",
    ("key", "kind"),
)
KEY_RUNNING = Metric("multiverse_key_running", "gauge", "Requests of a key that run or wait.", "requests", ("key",))
# limit: concurrency, tokens_per_minute or max_width; each in its own unit.
KEY_LIMIT = Metric(
    "multiverse_key_limit", "gauge", "A key's limits at one router; none where it has none.", "limit", ("key", "limit")
)

# ---- what was made --------------------------------------------------------------------------------------------------
TOKENS = Metric("multiverse_tokens_total", "counter", "Tokens after the prompt, of all branches.", "tokens", ("mode",))
CRITICAL_PATH_TOKENS = Metric(
    "multiverse_critical_path_tokens_total",
    "counter",
    "Positions after the prompt, the longest branch counted once per block.",
    "tokens",
    ("mode",),
)
PARALLELISM = Metric(
    "multiverse_parallelism",
    "histogram",
    "Tokens per position of the critical path, per request; 1 is sequential.",
    "ratio",
    ("mode",),
    _RATIOS,
)

# ---- what it gains --------------------------------------------------------------------------------------------------
# batch: rows of the engine's batch if the request were one row of it: 1, 2-3, 4-7, ...
SPEEDUP = Metric(
    "multiverse_speedup",
    "histogram",
    "Measured speed-up against the same tokens one after the other, per request; see the three counters of seconds.",
    "ratio",
    ("mode", "batch"),
    (0.5, 0.75, 0.9, *_RATIOS),
)
SEQUENTIAL_SECONDS = Metric(
    "multiverse_sequential_seconds_total",
    "counter",
    "What the sampled tokens behind the first would take in sequence, at the engine's own step times of that batch.",
    "seconds",
    ("mode", "batch"),
)
GENERATION_SECONDS = Metric(
    "multiverse_generation_seconds_total",
    "counter",
    "What they took, from the first token to the last, forks and joins included.",
    "seconds",
    ("mode", "batch"),
)
EXPECTED_SECONDS = Metric(
    "multiverse_expected_seconds_total",
    "counter",
    "What their critical path takes at the engine's own step times, if forks and joins take none: the limit.",
    "seconds",
    ("mode", "batch"),
)

# ---- blocks ---------------------------------------------------------------------------------------------------------
FORKS = Metric("multiverse_forks_total", "counter", "Blocks whose branches were started.", "blocks")
JOINS = Metric("multiverse_joins_total", "counter", "Blocks whose branches were merged.", "blocks")
FORK_WIDTH = Metric(
    "multiverse_fork_width",
    "histogram",
    "Branches of a block.",
    "branches",
    buckets=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0),
)
BLOCK_DEPTH = Metric(
    "multiverse_block_depth",
    "histogram",
    "Nesting depth of a block; 1 is the outermost.",
    "levels",
    buckets=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
)
BRANCH_SECONDS = Metric(
    "multiverse_branch_seconds",
    "histogram",
    "From a branch's start to its end.",
    "seconds",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0),
)
JOIN_SECONDS = Metric(
    "multiverse_join_seconds",
    "histogram",
    "From the end of a block's last branch to the first token after the join.",
    "seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# reason: late or lost.
BRANCHES_RETRIED = Metric(
    "multiverse_branches_retried_total",
    "counter",
    "Branches that went on elsewhere because they took too long or their replica was lost.",
    "branches",
    ("reason",),
)
# reason: of its first fallback.
FALLBACKS = Metric(
    "multiverse_fallbacks_total", "counter", "Requests that went on sequentially somewhere.", "requests", ("reason",)
)
