"""Branches that take too long, and answers whose time is up."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.engine.segment import Delta, Sampling, Segment, SegmentEngine
from multiverse.serving.answer.reading_order import ReadingOrder
from multiverse.serving.events import BranchRetried, Event, Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions, Seen
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.grammar import parse
from tests.unit.serving.fake_engine import FakeEngine, WordCodec, script
from tests.unit.serving.fake_fleet import FakeCluster
from tests.unit.serving.sequencer_harness import GOAL_2, GOAL_3, babble

TWO: Mapping[str, str] = {
    "Q": GOAL_2,
    "\n<Path>\n1:": " one</Path>",
    "\n<Path>\n2:": " two</Path>",
    "\n<Conclusion>": " all</Conclusion>\n</Parallel> end",
}


class StuckEngine(FakeEngine):
    """Never answers for the second branch, the first ``times`` times. asked: how often it was."""

    times = 0
    asked = 0
    moved = 0

    async def run(self, segment: Segment) -> AsyncIterator[Delta]:
        if self.codec.decode(segment.tokens).endswith("2:"):
            self.asked += 1
            if self.asked <= self.times:
                await asyncio.sleep(60)
        async for delta in super().run(segment):
            yield delta

    def elsewhere(self, replica: str) -> str:
        self.moved += 1
        return replica


async def run(times: int, parallel: ParallelOptions | None = None, **limits: float) -> tuple[StuckEngine, Result, str]:
    codec = WordCodec()
    engine = StuckEngine(codec, script(codec, TWO))
    engine.times = times
    request = GenerationRequest(
        "r", tuple(codec.encode("Q")), Sampling(200, 0.0), parallel or ParallelOptions("auto"), question="What?"
    )
    sequencer = Sequencer(engine, codec, EngineLimits(1000, True, **limits))
    events = [event async for event in sequencer.generate(request)]
    last = events[-1]
    assert isinstance(last, Finished)
    assert engine.idle
    assert sum(isinstance(event, BranchRetried) for event in events) == engine.moved
    return engine, last.result, codec.decode(last.result.tokens)


async def test_a_branch_that_takes_too_long_goes_on_elsewhere() -> None:
    engine, result, text = await run(1, branch_seconds=0.1)
    assert (engine.asked, engine.moved) == (2, 1)
    assert [branch.finish for branch in result.blocks[0].branches] == ["stop", "stop"]
    assert "2: two</Path>" in text


async def test_one_that_takes_too_long_there_too_is_closed_and_the_rest_goes_on() -> None:
    engine, result, text = await run(9, branch_seconds=0.1)
    assert engine.asked == 2
    assert [branch.finish for branch in result.blocks[0].branches] == ["stop", "timeout"]
    assert "2:</Path>\n<Conclusion> all</Conclusion>" in text
    assert result.finish == "stop"


async def test_at_the_answers_time_open_branches_are_closed_and_the_rest_goes_on() -> None:
    began = time.monotonic()
    _, result, text = await run(9, answer_seconds=0.2)
    assert time.monotonic() - began < 5
    assert [branch.finish for branch in result.blocks[0].branches] == ["stop", "timeout"]
    assert text.endswith(" all</Conclusion>\n</Parallel> end")


async def test_branches_that_have_not_begun_by_then_stay_empty() -> None:
    one_at_a_time = ParallelOptions("auto", max_width=1)
    _, result, text = await run(0, one_at_a_time, answer_seconds=-1.0)
    assert "<Path>" not in text or [branch.finish for branch in result.blocks[0].branches] == ["dropped", "dropped"]


class StallingEngine(FakeEngine):
    """Stops for good behind the word "stall"."""

    async def run(self, segment: Segment) -> AsyncIterator[Delta]:
        async for delta in super().run(segment):
            yield delta
            if self.codec.decode(delta.tokens).endswith(" stall"):
                await asyncio.sleep(60)


STALLING: Mapping[str, str] = {
    "Q": GOAL_3,
    "\n<Path>\n1:": " one stall more</Path>",
    "\n<Path>\n2:": " two</Path>",
    "\n<Path>\n3:": f" three {GOAL_2.replace('1:', '3.1:').replace('2:', '3.2:')}",
    "\n<Path>\n3.1:": " inner</Path>",
    "\n<Path>\n3.2:": " stall more</Path>",
    "\n<Conclusion>": " all</Conclusion>\n</Parallel> end",
}
STALLED = {
    "nothing": (["dropped", "stop", "dropped"], "1:", "3:"),
    "answer": (["timeout", "stop", "dropped"], "1: one stall", "3:"),
    "all": (["timeout", "stop", "timeout"], "1: one stall", "3: three "),
}


async def stalled(seen: Seen) -> tuple[WordCodec, list[Event], Result]:
    codec = WordCodec()
    engine = StallingEngine(codec, script(codec, STALLING))
    request = GenerationRequest(
        "r", tuple(codec.encode("Q")), Sampling(400, 0.0), ParallelOptions("auto"), "What?", seen=seen
    )
    sequencer = Sequencer(engine, codec, EngineLimits(1000, True, answer_seconds=2.0))
    events = [event async for event in sequencer.generate(request)]
    last = events[-1]
    assert isinstance(last, Finished)
    assert engine.idle
    return codec, events, last.result


@pytest.mark.parametrize("seen", ["nothing", "answer", "all"])
async def test_what_the_client_has_not_seen_by_then_becomes_an_empty_path(seen: Seen) -> None:
    codec, _, result = await stalled(seen)
    text = codec.decode(result.tokens)
    finishes, first, third = STALLED[seen]
    assert [branch.finish for branch in result.blocks[0].branches] == finishes
    assert f"\n<Path>\n{first}</Path>\n<Path>\n2: two</Path>\n<Path>\n{third}" in text
    assert (" inner" in text) == (seen == "all")
    assert text.endswith("</Path>\n<Conclusion> all</Conclusion>\n</Parallel> end")
    assert result.finish == "stop"
    parse(text)


@pytest.mark.parametrize("seen", ["nothing", "answer", "all"])
async def test_the_stream_is_the_answer_all_the_same(seen: Seen) -> None:
    _, events, result = await stalled(seen)
    order = ReadingOrder(at_once=seen == "nothing")
    streamed = [token for event in events for run in order.push(event) for token in run.tokens]
    assert tuple(streamed) == result.tokens


async def test_of_a_branch_that_is_seen_the_unseen_branches_inside_become_empty() -> None:
    codec = WordCodec()
    inner = GOAL_2.replace("1:", "1.1:").replace("2:", "1.2:")
    texts = STALLING | {
        "\n<Path>\n1:": f" one {inner}",
        "\n<Path>\n1.1:": " x stall",
        "\n<Path>\n1.2:": " y stall",
    }
    engine = StallingEngine(codec, script(codec, texts))
    request = GenerationRequest(
        "r", tuple(codec.encode("Q")), Sampling(400, 0.0), ParallelOptions("auto"), "What?", seen="answer"
    )
    sequencer = Sequencer(engine, codec, EngineLimits(1000, True, answer_seconds=2.0))
    last = [event async for event in sequencer.generate(request)][-1]
    assert isinstance(last, Finished)
    first = last.result.blocks[0].branches[0]
    assert first.finish == "timeout"
    assert [branch.finish for branch in first.blocks[0].branches] == ["timeout", "dropped"]
    assert "1.1: x stall</Path>\n<Path>\n1.2:</Path>" in codec.decode(last.result.tokens)


async def test_a_branch_that_waits_for_its_place_in_the_batch_ends_then_too() -> None:
    codec = WordCodec()
    engine = StallingEngine(codec, script(codec, STALLING))
    request = GenerationRequest(
        "r", tuple(codec.encode("Q")), Sampling(400, 0.0), ParallelOptions("auto"), "What?", seen="all"
    )
    sequencer = Sequencer(engine, codec, EngineLimits(1000, True, answer_seconds=2.0), Rows(lambda: 1))
    last = [event async for event in sequencer.generate(request)][-1]
    assert isinstance(last, Finished)
    assert [branch.finish for branch in last.result.blocks[0].branches] == ["timeout"] * 3


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    jitter=st.integers(0, 1000),
    seconds=st.floats(0.0, 0.008),
    seen=st.sampled_from(["nothing", "answer", "all"]),
    replicas=st.sampled_from([0, 3]),
)
def test_whenever_time_is_up_the_answer_is_whole(
    seed: int, jitter: int, seconds: float, seen: Seen, replicas: int
) -> None:
    async def once() -> None:
        codec = WordCodec()
        model = babble(codec, seed)
        cluster = FakeCluster.of(codec, model, replicas, jitter=jitter)
        engine: SegmentEngine = cluster.fleet if replicas else FakeEngine(codec, model, jitter)
        reduction = cluster.reduction if replicas else None
        request = GenerationRequest(
            "r", tuple(codec.encode("Q")), Sampling(200, 0.0), ParallelOptions("auto"), "What?", seen=seen
        )
        limits = EngineLimits(1000, True, answer_seconds=seconds)
        sequencer = Sequencer(engine, codec, limits, reduction=reduction, owner="router")
        order, streamed, last = ReadingOrder(at_once=seen == "nothing"), list[int](), None
        async for last in sequencer.generate(request):
            streamed += [token for run in order.push(last) for token in run.tokens]
        assert isinstance(last, Finished)
        assert tuple(streamed) == last.result.tokens
        for _ in range(20):
            await asyncio.sleep(0)
        assert cluster.left == []

    asyncio.run(once())
