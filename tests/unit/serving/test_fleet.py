"""Requests over a fleet of replicas: what they write is what one engine writes, whoever dies meanwhile."""

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multiverse.engine.segment import Sampling
from multiverse.serving.events import Event, Finished, Result, TokensAdded
from multiverse.serving.fleet.fleet import NoReplica
from multiverse.serving.fleet.fleet_engine import stats_of
from multiverse.serving.fleet.messages import Status
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from tests.unit.serving.fake_engine import FakeEngine, Model, WordCodec
from tests.unit.serving.fake_fleet import FakeCluster, resumable
from tests.unit.serving.sequencer_harness import GOAL_3, babble

THREE: Mapping[str, str] = {
    "Q": f" so{GOAL_3}",
    "\n<Path>\n1:": " one and one more</Path>",
    "\n<Path>\n2:": " two</Path>",
    "\n<Path>\n3:": " three is the longest of them</Path>",
    "\n<Conclusion>": " all</Conclusion>\n</Parallel> end",
}
ANSWER = (
    f" so{GOAL_3}\n<Path>\n1: one and one more</Path>\n<Path>\n2: two</Path>"
    "\n<Path>\n3: three is the longest of them</Path>\n<Conclusion> all</Conclusion>\n</Parallel> end"
)


def request(codec: WordCodec, max_tokens: int = 400) -> GenerationRequest:
    return GenerationRequest("r", tuple(codec.encode("Q")), Sampling(max_tokens, 0.0), ParallelOptions("auto"), "What?")


async def finish(cluster: FakeCluster, codec: WordCodec, max_tokens: int = 400) -> Result:
    """Run one request to its end; nothing may be left of it, and its tokens come once each."""
    sequencer = Sequencer(cluster.fleet, codec, EngineLimits(1000, True), reduction=cluster.reduction, owner="router")
    events: list[Event] = [event async for event in sequencer.generate(request(codec, max_tokens))]
    last = events[-1]
    assert isinstance(last, Finished)
    told = sum(len(event.tokens) for event in events if isinstance(event, TokensAdded))
    assert told == len(last.result.tokens)
    for _ in range(20):
        await asyncio.sleep(0)
    assert cluster.left == []
    return last.result


async def alone(model: Model, codec: WordCodec, max_tokens: int = 400) -> tuple[int, ...]:
    """What one engine writes."""
    sequencer = Sequencer(FakeEngine(codec, model), codec, EngineLimits(1000, True))
    events = [event async for event in sequencer.generate(request(codec, max_tokens))]
    last = events[-1]
    assert isinstance(last, Finished)
    return last.result.tokens


@pytest.mark.parametrize("nodes", [1, 3])
async def test_branches_on_three_replicas_are_joined(nodes: int) -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), nodes=nodes)
    result = await finish(cluster, codec)
    assert codec.decode(result.tokens) == ANSWER
    assert {branch.replica for branch in result.blocks[0].branches} == {"r0", "r1", "r2"}
    assert cluster.fleet.figures.pulled > 0
    assert cluster.fleet.figures.missing == 0


@pytest.mark.parametrize(("nodes", "distance"), [(1, "near"), (3, "far")])
async def test_kv_that_moves_is_counted_by_how_far(nodes: int, distance: str) -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), nodes=nodes)
    await finish(cluster, codec)
    assert list(cluster.fleet.figures.moved) == [distance]
    assert cluster.fleet.figures.moved[distance] > 0


@pytest.mark.parametrize(("policy", "decided"), [("home", {"home": 3}), ("spread", {"home": 1, "remote": 2})])
async def test_placement_is_counted_by_its_outcome(policy: str, decided: dict[str, int]) -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), policy=policy)
    await finish(cluster, codec)
    assert cluster.fleet.figures.decided == decided
    assert (cluster.fleet.figures.lost, cluster.fleet.figures.branches) == (0, 0)


async def test_lost_replicas_and_the_branches_that_ran_there_are_counted() -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), deaths={1: 1})
    await finish(cluster, codec)
    assert (cluster.fleet.figures.lost, cluster.fleet.figures.branches) == (1, 1)


def status(running: int, free: int, **stats: object) -> Status:
    return Status(running, 0, 100, free, 64, {"running": running, **stats})


async def test_figures_are_the_sum_of_the_replicas_and_counters_outlive_them() -> None:
    codec = WordCodec()
    fleet = FakeCluster.of(codec, resumable(codec, THREE), replicas=2).fleet
    fleet.report("r0", status(3, 10, waiting=5, lease_spills=4, rebuilds={"missing": 2}))
    fleet.report("r1", status(1, 90, waiting=1, lease_spills=1, rebuilds={"preempted": 1, "missing": 1}))
    stats = stats_of(fleet)
    assert (stats["running"], stats["waiting"], stats["kv_usage"], stats["replicas"]) == (4, 6, 0.5, 2)
    fleet.lose("r0")
    stats = stats_of(fleet)
    assert (stats["running"], stats["waiting"], stats["replicas"], stats["replicas_lost"]) == (1, 1, 1, 1)
    assert stats["kv_usage"] == pytest.approx(0.1)
    assert (stats["lease_spills"], stats["rebuilds"]) == (5, {"missing": 3, "preempted": 1})
    fleet.remove("r1")
    with pytest.raises(NoReplica):
        stats_of(fleet)


async def test_the_link_between_nodes_is_as_fast_as_it_was_seen() -> None:
    codec = WordCodec()
    fleet = FakeCluster.of(codec, resumable(codec, THREE), replicas=2).fleet
    assumed = fleet.costs.far
    fleet.report("r0", status(1, 90, received_bytes=2**20, received_seconds=1.0))
    assert fleet.costs.far == assumed
    fleet.report("r0", status(1, 90, received_bytes=30 * 10**6, received_seconds=0.1))
    fleet.report("r1", status(1, 90, received_bytes=10 * 10**6, received_seconds=0.1))
    assert fleet.costs.far.bytes_per_second == pytest.approx(200e6)
    assert fleet.costs.far.fixed == assumed.fixed


async def test_home_moves_nothing() -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), policy="home")
    result = await finish(cluster, codec)
    assert codec.decode(result.tokens) == ANSWER
    assert len({branch.replica for branch in result.blocks[0].branches}) == 1
    assert cluster.fleet.figures.pulled == 0


@pytest.mark.parametrize("delta", range(1, 12))
@pytest.mark.parametrize("replica", [0, 1])
async def test_a_replica_may_die_at_any_delta(replica: int, delta: int) -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), deaths={replica: delta})
    assert codec.decode((await finish(cluster, codec)).tokens) == ANSWER


@pytest.mark.parametrize("call", [1, 2, 3, 4])
async def test_a_reducer_may_die_at_any_call(call: int) -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), reducer_dies_at=call)
    cluster.reducers["m1"].dies_at = None
    assert codec.decode((await finish(cluster, codec)).tokens) == ANSWER


async def test_without_any_reducer_the_join_goes_on() -> None:
    codec = WordCodec()
    cluster = FakeCluster.of(codec, resumable(codec, THREE), reducer_dies_at=1)
    cluster.reducers["m1"].dies_at = 1
    assert codec.decode((await finish(cluster, codec)).tokens) == ANSWER


async def test_a_cancelled_request_leaves_nothing_anywhere() -> None:
    codec = WordCodec()
    for after in (1, 3, 6, 9, 14):
        cluster = FakeCluster.of(codec, resumable(codec, THREE), jitter=after)
        sequencer = Sequencer(cluster.fleet, codec, EngineLimits(1000, True), reduction=cluster.reduction, owner="x")
        events = sequencer.generate(request(codec))
        for _ in range(after):
            await anext(events)
        await events.aclose()
        for _ in range(50):
            await asyncio.sleep(0)
        assert cluster.left == []


@settings(deadline=None, max_examples=60)
@example(seed=54, jitter=2, nodes=1, deaths={0: 17, 1: 3}, reducer=None, policy="home")
@given(
    seed=st.integers(0, 10_000),
    jitter=st.integers(0, 1000),
    nodes=st.integers(1, 3),
    deaths=st.dictionaries(st.integers(0, 3), st.integers(1, 40), max_size=3),
    reducer=st.none() | st.integers(1, 8),
    policy=st.sampled_from(["home", "spread", "adaptive"]),
)
def test_any_text_survives_any_deaths(
    seed: int, jitter: int, nodes: int, deaths: dict[int, int], reducer: int | None, policy: str
) -> None:
    async def both() -> None:
        codec = WordCodec()
        model = babble(codec, seed)
        expected = await alone(model, codec, 150)
        cluster = FakeCluster.of(codec, model, 5, nodes, jitter, deaths, reducer, policy)
        assert (await finish(cluster, codec, 150)).tokens == expected

    asyncio.run(both())
