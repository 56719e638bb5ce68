"""Barriers and join plans."""

import pytest

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Source
from multiverse.serving.joins import Barrier, BlockKey, BranchEnd, OpenBlock

KEY = BlockKey("router", "request", 1)


def end(number: int, *tokens: int) -> BranchEnd:
    return BranchEnd(number, tokens, f"lease-{number}", "stop")


def reference(start: int, stop: int) -> KVReference:
    return KVReference("x", start, stop, 0, 1, "", 1, "", "other", "node", ())


def test_a_barrier_is_complete_when_every_branch_has_arrived() -> None:
    barrier = Barrier(OpenBlock(KEY, width=2, fork=10))
    assert (barrier.arrive(end(2, 5)), barrier.arrive(end(1, 3, 4))) == (False, True)


def test_branches_stand_in_their_order_and_the_first_lease_holds_the_prefix_too() -> None:
    barrier = Barrier(OpenBlock(KEY, width=2, fork=10))
    barrier.arrive(end(2, 5))
    barrier.arrive(end(1, 3, 4))
    plan = barrier.plan()
    assert plan.tokens == (3, 4, 5)
    assert plan.sources == (Source("lease-1", 0, 12, 0), Source("lease-2", 12, 13, 10))
    assert (plan.leases, plan.adopted) == (("lease-1", "lease-2"), ())


def test_a_prefix_that_is_held_supplies_what_it_has() -> None:
    held = (Source("parent", 0, 9, 0),)
    barrier = Barrier(OpenBlock(KEY, width=2, fork=10, prefix=held))
    barrier.arrive(end(1, 3, 4))
    barrier.arrive(end(2, 5))
    assert barrier.plan().sources == (*held, Source("lease-1", 9, 12, 9), Source("lease-2", 12, 13, 10))


def test_adopted_kv_is_counted_from_the_token_it_begins_with() -> None:
    barrier = Barrier(OpenBlock(KEY, width=2, fork=10, prefix=(Source("parent", 0, 9, 0),)))
    barrier.arrive(end(1, 3, 4))
    barrier.arrive(end(2, 5))
    found = reference(9, 11)
    plan = barrier.plan([("lease-2", found)])
    assert plan.sources[-1] == Source("lease-2", 12, 13, 1)
    assert plan.adopted == (("lease-2", found),)


def test_a_branch_that_arrives_twice_is_as_if_it_had_once() -> None:
    barrier = Barrier(OpenBlock(KEY, width=2, fork=0))
    barrier.arrive(end(1, 3))
    assert barrier.arrive(end(1, 3)) is False
    with pytest.raises(ValueError, match=r"branch 1 of block .* arrived twice, with other tokens"):
        barrier.arrive(end(1, 4))


@pytest.mark.parametrize("number", [0, 3])
def test_a_branch_that_the_block_does_not_have_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"has 2 branches, number {number} is not one"):
        Barrier(OpenBlock(KEY, width=2, fork=0)).arrive(end(number, 1))
