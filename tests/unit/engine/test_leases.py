"""Leases over a pool that counts references as vLLM's does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from multiverse.engine.leases import LeaseTable, Place, Spill

POOL = 12


@dataclass
class PoolBlock:
    block_id: int
    references: int = 0


@dataclass
class CountingPool:
    """``order``: ids of freed blocks, in the order in which they would be reused."""

    blocks: list[PoolBlock] = field(default_factory=lambda: [PoolBlock(id) for id in range(POOL)])
    order: list[int] = field(default_factory=list)

    def touch(self, blocks: Sequence[PoolBlock]) -> None:
        for block in blocks:
            block.references += 1

    def free_blocks(self, ordered_blocks: Iterable[PoolBlock]) -> None:
        for block in ordered_blocks:
            assert block.references > 0, f"block {block.block_id} is freed twice"
            block.references -= 1
            if not block.references:
                self.order.append(block.block_id)

    def get_num_free_blocks(self) -> int:
        return sum(block.references == 0 for block in self.blocks)


@pytest.fixture
def pool() -> CountingPool:
    return CountingPool()


def hold(table: LeaseTable, lease: str, owner: int, ids: Iterable[int], tokens: int = 4) -> None:
    """A segment runs in these blocks and ends: vLLM frees its own reference once the lease has one."""
    pool = table.pool
    assert isinstance(pool, CountingPool)
    blocks = [pool.blocks[id] for id in ids]
    pool.touch(blocks)
    table.expect(lease)
    table.hold(lease, owner, blocks, tokens)
    pool.free_blocks(reversed(blocks))


def test_a_lease_that_grew_too_old_is_given_back_and_counted(pool: CountingPool) -> None:
    now = 100.0
    table = LeaseTable(pool, host_blocks=0, clock=lambda: now)
    hold(table, "forgotten", owner=1, ids=[0, 1])
    now = 150.0
    hold(table, "fresh", owner=2, ids=[2])
    now = 161.0
    table.expire(60.0)
    assert (table.get("forgotten"), table.leaked, table.held) == (None, 1, 1)
    assert pool.get_num_free_blocks() == POOL - 1


def test_a_lease_keeps_its_blocks_and_says_where_its_tokens_are(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    hold(table, "a", 1, [3, 5], tokens=7)
    lease = table.get("a")
    assert lease is not None
    assert (lease.block_ids, lease.tokens, lease.owner) == ((3, 5), 7, 1)
    assert (table.held, table.blocks_held, pool.get_num_free_blocks()) == (1, 2, POOL - 2)


def test_a_released_lease_frees_its_last_block_first(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    hold(table, "a", 1, [3, 5, 4])
    table.release(["a"])
    assert pool.order == [4, 5, 3]
    assert (table.get("a"), table.held, pool.get_num_free_blocks()) == (None, 0, POOL)


def test_blocks_shared_by_leases_are_counted_once_and_free_with_the_last(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    hold(table, "a", 1, [0, 1])
    hold(table, "b", 1, [0, 2])
    assert table.blocks_held == 3
    table.release(["a"])
    assert pool.order == [1]
    table.release(["b"])
    assert pool.order == [1, 2, 0]


def test_a_lease_is_pending_until_its_segment_ends(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    assert not table.pending("a")
    table.expect("a")
    assert table.pending("a")
    table.hold("a", 1, [pool.blocks[0]], 1)
    assert not table.pending("a")


def test_a_segment_that_leaves_no_lease_is_not_waited_for(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    table.expect("a")
    table.give_up("a")
    assert not table.pending("a")
    assert table.get("a") is None


def test_a_lease_released_before_its_segment_ends_is_never_held(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    table.expect("a")
    table.release(["a"])
    table.hold("a", 1, [pool.blocks[0]], 1)
    assert (table.held, pool.get_num_free_blocks()) == (0, POOL)


def test_unknown_leases_are_released_without_a_word(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=8)
    hold(table, "a", 1, [0])
    table.release(["never", "a", "a"])
    assert pool.get_num_free_blocks() == POOL


def test_no_lease_is_touched_where_there_is_room(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=100)
    hold(table, "a", 1, [0, 1])
    assert table.make_room(POOL - 2, owner=0) == []
    assert table.blocks_held == 2


def test_the_newest_owners_leases_are_spilled_first_and_no_more_than_needed(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=100)
    for lease, owner, block in (("middle", 2, 0), ("oldest", 1, 1), ("newest", 3, 2)):
        hold(table, lease, owner, [block], tokens=5)
    assert table.make_room(POOL - 1, owner=1) == [Spill("newest", (2,)), Spill("middle", (0,))]
    assert (table.spilled, table.dropped, table.host_used, table.blocks_held) == (2, 0, 2, 1)


def test_what_the_asking_request_reads_is_spilled_last(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=100)
    hold(table, "mine", 3, [0], tokens=5)
    hold(table, "other", 1, [1], tokens=5)
    spills = table.make_room(POOL, owner=3, keep=frozenset({"mine"}))
    assert [spill.lease for spill in spills] == ["other", "mine"]


def test_a_spilled_lease_stays_and_is_forgotten_on_the_host_once_when_released(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=100)
    hold(table, "a", 1, [0], tokens=5)
    table.make_room(POOL, owner=1)
    lease = table.get("a")
    assert lease is not None
    assert (lease.block_ids, lease.tokens, table.held) == ((), 5, 1)
    table.release(["a"])
    assert table.take_released_on_host() == ("a",)
    assert table.take_released_on_host() == ()
    assert table.host_used == 0


def test_without_host_memory_only_newer_owners_leases_are_dropped(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    for owner in (1, 2, 3):
        hold(table, f"of-{owner}", owner, [owner], tokens=5)
    assert table.make_room(POOL, owner=2) == []
    assert [table.get(f"of-{owner}") is None for owner in (1, 2, 3)] == [False, False, True]
    assert (table.dropped, table.spilled, pool.get_num_free_blocks()) == (1, 0, POOL - 2)


def test_what_the_asking_request_reads_is_never_dropped(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    hold(table, "mine", 9, [0])
    table.make_room(POOL, owner=1, keep=frozenset({"mine"}))
    assert table.get("mine") is not None
    assert table.blocks_held == 1


def test_a_small_lease_is_spilled_where_a_large_one_does_not_fit(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=1)
    hold(table, "large", 3, [0, 1], tokens=8)
    hold(table, "small", 2, [2], tokens=4)
    assert table.make_room(POOL, owner=2) == [Spill("small", (2,))]
    assert table.get("large") is None


def test_dropping_a_lease_tells_the_worker_nothing(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    hold(table, "a", 2, [0])
    table.make_room(POOL, owner=1)
    assert table.take_released_on_host() == ()


def test_kv_of_another_engine_takes_no_room_and_is_not_told_to_the_worker(pool: CountingPool) -> None:
    table = LeaseTable(pool, host_blocks=0)
    place = Place(("/proc/1/fd/5",), offset=4096, blocks=2, skip=3)
    table.adopt("theirs", owner=1, tokens=7, place=place)
    lease = table.get("theirs")
    assert lease is not None
    assert (lease.tokens, lease.place, table.host_used, table.blocks_held) == (7, place, 0, 0)
    table.release(["theirs"])
    assert (table.get("theirs"), table.take_released_on_host()) == (None, ())


class Leases(RuleBasedStateMachine):
    """Segments start, end, and are released in any order while others ask for room."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = CountingPool()
        self.table = LeaseTable(self.pool, host_blocks=6)
        self.running: dict[str, list[PoolBlock]] = {}
        self.made = 0
        self.on_host: set[str] = set()

    @rule(prefix=st.sets(st.integers(0, POOL - 1), min_size=1, max_size=4))
    def start(self, prefix: set[int]) -> None:
        blocks = [self.pool.blocks[id] for id in sorted(prefix)]
        self.pool.touch(blocks)
        self.made += 1
        self.table.expect(f"lease-{self.made}")
        self.running[f"lease-{self.made}"] = blocks

    @precondition(lambda self: self.running)
    @rule(data=st.data(), leaves=st.booleans())
    def end(self, data: st.DataObject, leaves: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.running)))
        blocks = self.running.pop(lease)
        if leaves:
            self.table.hold(lease, data.draw(st.integers(0, 3)), blocks, tokens=2 * len(blocks))
        else:
            self.table.give_up(lease)
        self.pool.free_blocks(blocks)

    @rule(number=st.integers(1, 12))
    def release(self, number: int) -> None:
        self.table.release([f"lease-{number}"])

    @rule(blocks=st.integers(1, POOL), owner=st.integers(0, 3), keep=st.sets(st.integers(1, 12), max_size=2))
    def make_room(self, blocks: int, owner: int, keep: set[int]) -> None:
        kept = {f"lease-{number}" for number in keep}
        before = {lease for lease in kept if self.table.get(lease) is not None}
        self.on_host |= {spill.lease for spill in self.table.make_room(blocks, owner, frozenset(kept))}
        assert all(self.table.get(lease) is not None for lease in before)

    @rule()
    def step(self) -> None:
        for lease in self.table.take_released_on_host():
            self.on_host.remove(lease)

    @invariant()
    def host_memory_is_within_its_limit(self) -> None:
        assert self.table.host_used <= 6

    @invariant()
    def a_block_is_free_unless_a_segment_or_a_lease_has_it(self) -> None:
        running = {block.block_id for blocks in self.running.values() for block in blocks}
        leased = {
            id
            for number in range(1, self.made + 1)
            if (lease := self.table.get(f"lease-{number}"))
            for id in lease.block_ids
        }
        assert self.pool.get_num_free_blocks() == POOL - len(running | leased)
        assert self.table.blocks_held == len(leased)

    def teardown(self) -> None:
        for lease in list(self.running):
            self.pool.free_blocks(self.running.pop(lease))
            self.table.give_up(lease)
        self.table.release([f"lease-{number}" for number in range(1, self.made + 1)])
        self.step()
        assert self.pool.get_num_free_blocks() == POOL
        assert (self.table.held, self.table.host_used, self.on_host) == (0, 0, set())


Leases.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=20)
TestNothingLeaks = Leases.TestCase
