"""What placement is told: the replicas as the router sees them, and the block to place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica, a little out of date.

    running, waiting: rows that decode, and rows that are queued for it.
    free_tokens: tokens of KV cache that are neither held nor promised.
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

    @property
    def rows(self) -> int:
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Block:
    """A block whose branches are due.

    prefix_tokens: tokens before the fork; their KV is at home.
    expected_branch_tokens: of one branch, as far as one knows before it is written.
    prompts: that one replica gets per second, lately, by how many rows it has (index); none with more. prefill: seconds
    that one of them takes.
    recomputable: another replica may compute the prefix itself; it may not if a closed block is in it.
    """

    width: int
    prefix_tokens: int
    expected_branch_tokens: int
    recomputable: bool = True
    prompts: tuple[float, ...] = ()
    prefill: float = 0.0

    def room(self, view: ReplicaView, home: str) -> int:
        """How many branches the replica's free KV holds. At home the prefix is there already."""
        prefix = 0 if view.id == home else max(0, self.prefix_tokens - view.cached_prefix_tokens)
        return max(0, view.free_tokens - prefix) // max(1, self.expected_branch_tokens)
