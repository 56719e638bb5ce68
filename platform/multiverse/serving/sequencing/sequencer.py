"""The sequencer: the state machine of one request.

    text --</Goal>--> fork --> branch 1 --</Path>--+--> join --> <Conclusion> text --> ...
                           --> branch 2 --</Path>--+
                (each branch is a text of its own, so blocks nest)

Where what is decided: `blocks` (fork, waves, join), `segments` (what the engine is asked for), `region` (the tokens and
tags of one place), `closers` (ends of open structure), `budget` (who may use how much), `masking` (which tags may be
sampled), `planning` (``force`` mode).
"""

import asyncio
from collections.abc import AsyncGenerator

from multiverse.engine.segment import Segment, SegmentEngine
from multiverse.serving.events import Event, Finished, FinishReason, Result, TokensAdded
from multiverse.serving.joins import LocalReduction, Reduction
from multiverse.serving.request import GenerationRequest
from multiverse.serving.sequencing.blocks import grow
from multiverse.serving.sequencing.budget import Budget
from multiverse.serving.sequencing.masking import masked_tags
from multiverse.serving.sequencing.pieces import Codec
from multiverse.serving.sequencing.planning import run_forced
from multiverse.serving.sequencing.region import Region
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.session import EngineLimits, Session, Shared
from multiverse.structure.tracker import Tracker

__all__ = ["EngineLimits", "Sequencer"]

_PROMPT_TOKENS_AT_ONCE = 2048


class Sequencer:
    """Runs requests on a `SegmentEngine`. One sequencer serves any number of requests at once."""

    def __init__(
        self,
        engine: SegmentEngine,
        codec: Codec,
        limits: EngineLimits,
        rows: Rows | None = None,
        reduction: Reduction | None = None,
        owner: str = "local",
    ) -> None:
        """rows: how many segments may run at once, without limit by default. reduction: where branches meet, in this
        process by default, and ``owner``, this sequencer's name there."""
        self._engine = engine
        self._codec = codec
        self._limits = limits
        self._shared = Shared(rows or Rows(), reduction or LocalReduction(), owner)
        self._cleanups: set[asyncio.Task[None]] = set()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of ``request``, in the order they happen, ``Finished`` last.

        Ended at any moment, by closing the iterator, by cancelling its reader or by an error, it leaves no segment
        running and no lease behind. Raises what the engine raises.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        session = Session(self._engine, self._codec, self._limits, request, events.put_nowait, self._shared)
        task = asyncio.create_task(_run(session))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await task
        finally:
            # A task of its own: cancelling the reader once more does not stop the cleaning up.
            cleanup = asyncio.create_task(_clean_up(session, task))
            self._cleanups.add(cleanup)
            cleanup.add_done_callback(self._cleanups.discard)
            await asyncio.shield(cleanup)


async def _clean_up(session: Session, task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await session.abandon()


async def _run(session: Session) -> None:
    request = session.request
    tracker = Tracker(session.codec.vocabulary)
    for index, id in enumerate(request.prompt):
        tracker.push(id)
        if index % _PROMPT_TOKENS_AT_ONCE == _PROMPT_TOKENS_AT_ONCE - 1:
            await asyncio.sleep(0)  # other requests go on meanwhile
    start = tracker.next_position
    left = min(request.sampling.max_tokens, session.limits.max_model_len - len(request.prompt))
    positions = left if request.parallel.max_positions is None else min(left, request.parallel.max_positions)
    root = Region(session, request.prompt, tracker, Budget(left, start + positions))
    finish: FinishReason
    stop_text = None
    if request.parallel.mode == "off":
        finish, stop_text = await _run_plain(root, min(left, positions))
    elif request.parallel.mode == "force":
        finish = await run_forced(root)
    else:
        finish = await grow(root)
    await session.settle()

    answer = tuple(root.tokens[len(request.prompt) :])
    critical_path = tracker.next_position - start
    session.emit(
        Finished(
            Result(
                tokens=answer,
                finish="length" if root.cut else finish,
                critical_path=critical_path,
                parallelism=len(answer) / critical_path if critical_path else 1.0,
                blocks=tuple(root.blocks),
                fallbacks=tuple(session.fallbacks),
                stop_text=stop_text,
                branches_cut=root.cut and finish == "stop",
            )
        )
    )


async def _run_plain(root: Region, max_tokens: int) -> tuple[FinishReason, str | None]:
    """``off``: one segment with every sampling option of the request."""
    session, request = root.session, root.session.request
    if max_tokens < 1:
        return "length", None
    masked = masked_tags(open_tags=(), branch=False, may_fork=False, trained=session.limits.trained)
    segment = Segment(
        id=session.segment_id(),
        tokens=request.prompt,
        sampling=session.sampling(max_tokens, (), 0),
        masked=tuple(sorted(map(session.codec.tag, masked))),
        priority=request.arrival,
        cache_salt=request.cache_salt,
    )
    stream = session.open(segment)
    try:
        async with session.row():
            async for delta in stream:
                if delta.tokens:
                    root.append(delta.tokens)
                    session.emit(TokensAdded((), delta.tokens, delta.logprobs))
                if delta.finish is not None:
                    return delta.finish, delta.text
    finally:
        await stream.aclose()
    raise RuntimeError(f"segment {segment.id} ended without a reason")
