"""Branches that take too long, and answers whose time is up."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from multiverse.engine.segment import Delta, Sampling, Segment
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from tests.unit.serving.fake_engine import FakeEngine, WordCodec, script
from tests.unit.serving.sequencer_harness import GOAL_2

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
    assert "<Path>" not in text or [branch.finish for branch in result.blocks[0].branches] == ["timeout", "timeout"]
