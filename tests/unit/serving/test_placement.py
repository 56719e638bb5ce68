"""Which replica runs which branch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.engine.measure_costs import EngineCosts, Link
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.homes import choose_home
from multiverse.serving.placement.policies import POLICIES
from multiverse.serving.placement.view import Block, Prompts, ReplicaView

# 10 ms a step, 1 ms more for each row beyond the first; moving a token takes 1 microsecond on a node, 10 between nodes.
ENGINE = EngineCosts(((1, 0.010), (64, 0.073)), 0.0, 0.0, 0.001, 0.02)
COSTS = Costs(ENGINE, Link(0.005, 1e6), Link(0.005, 1e5), kv_bytes=1)


def view(id: str, running: int = 0, node: str = "n", free: int = 10_000, cached: int = 0) -> ReplicaView:
    return ReplicaView(id, node, running, 0, free, cached, requests=running)


def placed(policy: str, replicas: list[ReplicaView], width: int = 4, expected: int = 100) -> list[str]:
    return sorted(POLICIES[policy].place(Block(width, 500, expected), "a", replicas, COSTS))


def test_home_stays_at_home_however_loaded() -> None:
    assert placed("home", [view("a", 60), view("b")]) == ["a"] * 4


def test_spread_goes_evenly_over_the_least_loaded() -> None:
    assert placed("spread", [view("a"), view("b"), view("c", 9), view("d", 9)], width=2) == ["a", "b"]
    assert placed("spread", [view("a"), view("b")], width=4) == ["a", "a", "b", "b"]


def test_adaptive_stays_at_home_where_branches_are_short() -> None:
    assert placed("adaptive", [view("a"), view("b")], expected=1) == ["a"] * 4


def test_adaptive_leaves_a_loaded_home_for_an_idle_neighbour() -> None:
    assert set(placed("adaptive", [view("a", 40), view("b")])) == {"b"}


def test_adaptive_prefers_its_own_node_where_loads_are_alike() -> None:
    assert set(placed("adaptive", [view("a", 40), view("b", node="far"), view("c")], width=1)) == {"c"}


@pytest.mark.parametrize("policy", ["spread", "adaptive"])
def test_a_replica_without_room_gets_no_branch(policy: str) -> None:
    assert set(placed(policy, [view("a", 40), view("b", free=500), view("c")])) == {"a", "c"} - (
        {"a"} if policy == "adaptive" else set()
    )


@given(
    width=st.integers(1, 8),
    expected=st.integers(1, 2000),
    loads=st.lists(
        st.tuples(st.integers(0, 80), st.integers(0, 20_000), st.sampled_from("xy")), min_size=1, max_size=9
    ),
)
def test_every_branch_gets_a_replica_that_is_there(
    width: int, expected: int, loads: list[tuple[int, int, str]]
) -> None:
    replicas = [view("a" if n == 0 else f"r{n}", load, node, free) for n, (load, free, node) in enumerate(loads)]
    for policy in POLICIES.values():
        found = policy.place(Block(width, 500, expected), "a", replicas, COSTS)
        assert len(found) == width
        assert set(found) <= {replica.id for replica in replicas}


def test_the_home_is_where_the_prefix_is_cached() -> None:
    assert choose_home(1000, 100, [view("a"), view("b", 1, cached=896)], COSTS) == "b"


def test_unless_that_is_so_loaded_that_it_does_not_pay() -> None:
    assert choose_home(1000, 100, [view("a"), view("b", 60, cached=896)], COSTS) == "a"


def test_steps_between_and_behind_the_measured_ones() -> None:
    assert COSTS.step(1) == pytest.approx(0.010)
    assert COSTS.step(11) == pytest.approx(0.020)
    assert COSTS.step(128) == pytest.approx(2 * 0.073)


def test_costs_survive_json() -> None:
    assert Costs.from_json(COSTS.to_json()) == COSTS
    with pytest.raises(ValueError, match="costs: "):
        Costs.from_json("{}")


def test_a_full_replica_becomes_home_only_where_all_are_full() -> None:
    assert choose_home(1000, 100, [view("a", free=1000), view("b", 9)], COSTS) == "b"
    assert choose_home(1000, 100, [view("a", free=1000), view("b", 9, free=1000)], COSTS) == "a"


def test_a_block_of_others_weighs_as_one_request_however_many_rows_it_has() -> None:
    wide = ReplicaView("a", "n", 8, 0, 10_000, requests=1.0)
    assert choose_home(1000, 10, [wide, view("b", 4)], COSTS) == "a"


def test_adaptive_stays_where_a_prompt_would_hold_up_one_of_many_replicas() -> None:
    calm, busy = Prompts(), Prompts((0.5,) * 64, 0.5, prefill=2.0)
    replicas = [view(id) for id in "abcd"]
    blocks = (Block(4, 10, 100, prompts=calm), Block(4, 10, 100, prompts=busy))
    assert [len(set(POLICIES["adaptive"].place(block, "a", replicas, COSTS))) for block in blocks] == [4, 1]


def test_adaptive_reckons_that_replicas_pull_one_after_the_other() -> None:
    """0.1 s for the prefix each: more than two of the seven others have nothing to gain from it."""
    slow = Costs(ENGINE, Link(0.0, 5e3), Link(0.0, 5e3), kv_bytes=1)
    placed = POLICIES["adaptive"].place(Block(8, 500, 20, False), "a", [view(id) for id in "abcdefgh"], slow)
    assert len(set(placed)) <= 3


def test_branches_leave_a_part_of_another_cache_free() -> None:
    block, there = Block(4, 500, 100), ReplicaView("b", "n", 0, 0, free_tokens=900, kv_tokens=1000)
    assert block.room(there, "a") == 1  # 900, less the prefix and a quarter of 1000
    assert block.room(there, "b") == 9
