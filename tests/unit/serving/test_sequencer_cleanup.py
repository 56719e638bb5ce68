"""However a request ends, no segment runs on and no lease stays."""

import asyncio
from collections.abc import Sequence

import pytest

from multiverse.engine.segment import Sampling
from multiverse.serving.events import Event
from multiverse.serving.request import GenerationRequest, Mode, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from tests.unit.serving.fake_engine import EngineDied, FakeEngine, WordCodec, script
from tests.unit.serving.sequencer_harness import GOAL_2

CONCLUDED = "\n</Conclusion>\n</Parallel>"
TEXTS = {
    "]": "1: the first\n2: the second",
    "Q": f"go {GOAL_2}",
    "\n<Path>\n1:": f" x {GOAL_2.replace('1:', '1.1:').replace('2:', '1.2:')}",
    "first**:": " x</Path>",
    "second**:": " <Parallel>\n<Goal>\n<Outline>\n2.1: p",
    ".1:": " p</Path>",
    ".2:": " q </Goal>",
    "q </Goal>": " q</Path>",
    "\n<Path>\n2:": " y",
    "</Path>\n<Conclusion>": f"{CONCLUDED} on </Outline>",
    "on </Outline>": " end",
}


def start(
    mode: Mode, jitter: int | None = None, dies_at: int | None = None
) -> tuple[FakeEngine, Sequencer, GenerationRequest]:
    codec = WordCodec()
    engine = FakeEngine(codec, script(codec, TEXTS), jitter, dies_at)
    request = GenerationRequest(
        "r", tuple(codec.encode("Q")), Sampling(max_tokens=400), ParallelOptions(mode, width=2), question="What?"
    )
    return engine, Sequencer(engine, codec, EngineLimits(2000, trained=True)), request


async def events_of(mode: Mode) -> Sequence[Event]:
    _, sequencer, request = start(mode)
    return [event async for event in sequencer.generate(request)]


@pytest.mark.parametrize("mode", ["auto", "force", "off"])
@pytest.mark.parametrize("jitter", [None, 1])
async def test_closed_at_any_event_all_is_given_back(mode: Mode, jitter: int | None) -> None:
    for taken in range(len(await events_of(mode)) + 1):
        engine, sequencer, request = start(mode, jitter)
        events = sequencer.generate(request)
        for _ in range(taken):
            await anext(events, None)
        await events.aclose()
        assert engine.idle, f"after {taken} events"


@pytest.mark.parametrize("mode", ["auto", "force", "off"])
async def test_cancelled_at_any_moment_all_is_given_back(mode: Mode) -> None:
    steps, finished = 0, False
    while not finished:
        engine, sequencer, request = start(mode)

        async def read(sequencer: Sequencer = sequencer, request: GenerationRequest = request) -> None:
            async for _ in sequencer.generate(request):
                pass

        task = asyncio.create_task(read())
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.idle, f"after {steps} turns of the loop"
        steps += 1
    assert steps > 20


@pytest.mark.parametrize("mode", ["auto", "force", "off"])
async def test_an_error_of_the_engine_reaches_the_reader_and_all_is_given_back(mode: Mode) -> None:
    whole, sequencer, request = start(mode)
    async for _ in sequencer.generate(request):
        pass
    for dies_at in range(1, whole.deltas + 1):
        engine, sequencer, request = start(mode, dies_at=dies_at)
        with pytest.raises(EngineDied):
            async for _ in sequencer.generate(request):
                pass
        assert engine.idle, f"died at delta {dies_at}"


@pytest.mark.parametrize("turns_between", [1, 2, 3])
async def test_a_reader_cancelled_twice_leaves_the_cleaning_up_alone(turns_between: int) -> None:
    for turns in range(60):
        engine, sequencer, request = start("auto")

        async def read(sequencer: Sequencer = sequencer, request: GenerationRequest = request) -> None:
            async for _ in sequencer.generate(request):
                pass

        task = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(turns_between):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(50):
            await asyncio.sleep(0)
        assert engine.idle, f"cancelled after {turns} turns of the loop"
