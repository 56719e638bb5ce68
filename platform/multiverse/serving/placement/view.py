"""What placement is told: the replicas as the router sees them, and the block to place."""

from dataclasses import dataclass

RESERVED = 0.25
"""Share of a KV cache that branches from elsewhere leave free: they bring a copy of their prefix, and where caches are
what limits a cluster, it would keep requests from coming in."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica, a little out of date.

    running, waiting: rows that decode, and rows that are queued for it.
    free_tokens: tokens of KV cache that are neither held nor promised. kv_tokens: all that the cache holds.
    cached_prefix_tokens: tokens of this request whose KV is there.
    context_tokens: KV that its rows read at each step, over all rows.
    prefill_tokens: prompt tokens that it was sent and has not computed.
    requests: that its rows belong to. One whose rows are on several replicas counts on each by its share of them.
    """

    id: str
    node: str
    running: int
    waiting: int
    free_tokens: int
    cached_prefix_tokens: int = 0
    context_tokens: int = 0
    prefill_tokens: int = 0
    requests: float = 0.0
    kv_tokens: int = 0

    @property
    def rows(self) -> int:
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts to compute that one replica gets, lately: while it does, its rows stand still.

    by_rows: per second, by how many rows it has (index); none with more. mean: per second, of all replicas.
    prefill: seconds that one takes.
    """

    by_rows: tuple[float, ...] = ()
    mean: float = 0.0
    prefill: float = 0.0

    def expected(self, rows: int, seconds: float) -> float:
        """That a replica with so many rows gets within ``seconds``: as many as others, and about one more or less.

        A replica that is less loaded than others gets the next one, and then it is so no longer.
        """
        now, mean = (self.by_rows[rows] if rows < len(self.by_rows) else 0.0) * seconds, self.mean * seconds
        return max(mean - 1.0, min(now, mean + 1.0))


@dataclass(frozen=True, slots=True)
class Block:
    """A block whose branches are due.

    prefix_tokens: tokens before the fork; their KV is at home.
    expected_branch_tokens: of one branch, as far as one knows before it is written.
    recomputable: another replica may compute the prefix itself; it may not if a closed block is in it.
    """

    width: int
    prefix_tokens: int
    expected_branch_tokens: int
    recomputable: bool = True
    prompts: Prompts = Prompts()

    def room(self, view: ReplicaView, home: str) -> int:
        """How many branches the replica's free KV holds. At home the prefix is there already; nothing is reserved."""
        taken = 0
        if view.id != home:
            taken = max(0, self.prefix_tokens - view.cached_prefix_tokens) + int(RESERVED * view.kv_tokens)
        return max(0, view.free_tokens - taken) // max(1, self.expected_branch_tokens)
