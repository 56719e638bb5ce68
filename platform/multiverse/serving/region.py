"""A region: the text at one place of the tree, from its beginning to its end, however many segments that takes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from multiverse.engine.segment import Delta, Sampling, Segment, Source
from multiverse.serving.budget import Budget
from multiverse.serving.closers import Ending, ending
from multiverse.serving.events import Block, FellBack, FinishReason, Place, TokensAdded
from multiverse.serving.masking import masked_tags
from multiverse.serving.pieces import Outline, encode, read_outlines
from multiverse.serving.seeds import Path
from multiverse.serving.session import Session
from multiverse.structure.tracker import BranchClosed, Event, Malformed, OutlinesKnown, Tracker

_ENDING_BOUND = 64
_EMPTY_PATH_BOUND = 32
"""More tokens than the end of a region, and an empty path, ever cost; within them the exact cost is looked up."""


@dataclass(frozen=True, slots=True)
class Step:
    """How a segment came to its end.

    fork: a goal closed, ``outlines`` are its token index ranges (malformed: they may be due all the same).
    closed: the branch's closer. unclosed: the closer while tags of the branch were open; it is not taken into the text.
    cut: the budget ends before the next token.
    """

    kind: Literal["fork", "malformed", "closed", "unclosed", "cut", "length", "end"]
    reason: str = ""
    outlines: tuple[tuple[int, int], ...] = ()
    forced: bool = False


class Region:
    """One region while it grows. ``tokens`` is all it sees: what stands before it, then its own."""

    def __init__(
        self,
        session: Session,
        tokens: Sequence[int],
        tracker: Tracker,
        budget: Budget,
        place: Place = (),
        path: Path = (),
        sources: tuple[Source, ...] = (),
        fallen: bool = False,
        admitted: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """sources: KV of ``tokens`` that others release; ``admitted`` is awaited once this region has read it."""
        self.session = session
        self.tokens = list(tokens)
        self.tracker = tracker
        self.budget = budget
        self.place = place
        self.path = path
        self.sources = sources
        self.release: tuple[str, ...] = ()
        self.fallen = fallen
        self.cut = False
        """A share of the request's own budget ended in a branch of this region."""
        self.blocks: list[Block] = []
        self._admitted = admitted
        self._base = len(tracker.open_tags)
        self._ordinal = 0
        self._outlines = 0
        self._closer = session.codec.tag("</Path>") if place else None

    # ---- text -----------------------------------------------------------------------------------------------------

    def begin(self, pieces: Sequence[str]) -> None:
        """Write what the branch begins with, its ``<Path>`` included."""
        self.write(encode(self.session.codec, pieces))
        self._base = len(self.tracker.open_tags)

    def write(self, ids: Sequence[int]) -> list[Event]:
        """Append tokens that are not sampled."""
        if ids:
            self.session.emit(TokensAdded(self.place, tuple(ids), written=True))
        return self.append(ids)

    def append(self, ids: Sequence[int]) -> list[Event]:
        """Take tokens into the text without telling anybody."""
        self.tokens.extend(ids)
        self.budget.left -= len(ids)
        events: list[Event] = []
        for id in ids:
            events += self.tracker.push(id)
            # A <Think> that the prompt opened may end here.
            self._base = min(self._base, len(self.tracker.open_tags))
        return events

    def fall_back(self, reason: str, due: Sequence[Outline] = ()) -> None:
        """Go on sequentially: end an open goal, and never open a block here again."""
        self._report(reason)
        own = self.own_open
        if due or "<Goal>" in own:
            self._outlines = 0
            block = len(own) - 1 - own[::-1].index("<Parallel>")
            self.write(self.rest(due, down_to=self._base + block, whole=False).ids)

    def rest(self, due: Sequence[Outline] = (), down_to: int | None = None, whole: bool = True) -> Ending:
        """What closes this region from here, or with ``whole`` False, its tags down to a depth only."""
        return ending(
            self.session.codec,
            self.tracker,
            self.tokens,
            self._base if down_to is None else down_to,
            due,
            branch=whole and self._closer is not None,
        )

    def end(self, finish: FinishReason, due: Sequence[Outline] = ()) -> FinishReason:
        """Close the region by written tokens."""
        rest = self.rest(due)
        if rest.unclosed:
            self._report("unclosed")
        events = self.write(rest.ids)
        if self._closer is not None and not any(isinstance(event, BranchClosed) for event in events[-2:]):
            raise RuntimeError(f"the closers written at {self.place} do not close the branch")
        return finish

    @property
    def holds_all(self) -> bool:
        """Whether the KV of all tokens is held under one lease of this region's own."""
        return bool(self.release) and self.sources == (Source(self.release[0], 0, len(self.tokens), 0),)

    @property
    def room(self) -> int:
        """Tokens that may be added before the region has to be closed."""
        return self.budget.room(self.tracker.next_position, self.rest())

    def affords(self, ids: Sequence[int], due: Sequence[Outline]) -> bool:
        """Whether ``ids``, behind which the branches ``due`` are due, could be written and closed again."""
        after = self.tracker.copy()
        for id in ids:
            after.push(id)
        rest = ending(self.session.codec, after, self.tokens, self._base, due, self._closer is not None)
        return Budget(self.budget.left - len(ids), self.budget.ceiling).room(after.next_position, rest) >= 0

    def _report(self, reason: str) -> None:
        self.fallen = True
        self.session.fallbacks.append(reason)
        self.session.emit(FellBack(self.place, reason))

    @property
    def own_open(self) -> tuple[str, ...]:
        """Open tags of this region, outermost first."""
        return tuple(self.tracker.open_tags[self._base :])

    # ---- segments -------------------------------------------------------------------------------------------------

    async def segment(self, room: int, stop: str = "</Goal>") -> Step:
        """Sample up to ``room`` tokens that leave the region open; in a branch its closer may come behind them."""
        session, tag = self.session, self.session.codec.tag
        masked = masked_tags(
            open_tags=self.own_open,
            branch=self._closer is not None,
            may_fork=not self.fallen and len(self.place) < session.depth_limit,
            trained=session.limits.trained,
        )
        stop_ids = () if stop in masked else (tag(stop),)
        count = room if self._closer is None else room + 1
        segment = Segment(
            id=session.segment_id(),
            tokens=tuple(self.tokens),
            sampling=session.sampling(count, self.path, self._ordinal),
            stop_ids=stop_ids,
            closer=self._closer,
            masked=tuple(sorted(tag(name) for name in masked)),
            sources=self.sources,
            lease=session.leases.name() if stop_ids or self._closer is not None else None,
            release=self.release,
            priority=session.request.arrival,
            cache_salt=session.request.cache_salt,
        )
        self._ordinal += 1
        return await self._stream(segment)

    async def prefill(self) -> None:
        """Make the KV of all tokens so far, and hold it."""
        session = self.session
        lease = session.leases.name()
        segment = Segment(
            id=session.segment_id(),
            tokens=tuple(self.tokens),
            sampling=Sampling(max_tokens=1, temperature=0.0),
            sources=self.sources,
            lease=lease,
            release=self.release,
            prefill_only=True,
            priority=session.request.arrival,
            cache_salt=session.request.cache_salt,
        )
        stream = session.open(segment)
        try:
            async for _ in stream:
                await self._admit(segment)
        finally:
            await stream.aclose()
        self._hold(lease, len(self.tokens))

    async def _stream(self, segment: Segment) -> Step:
        stream = self.session.open(segment)
        got, drained = 0, False
        try:
            async for delta in stream:
                if not got:
                    await self._admit(segment)
                got += len(delta.tokens)
                step = self._take(delta)
                if step is not None:
                    break
            else:
                raise RuntimeError(f"segment {segment.id} ended without a reason")
            leased = bool(delta.tokens) and delta.tokens[-1] in (*segment.stop_ids, segment.closer)
            if leased:
                # Closed here, it would be aborted and its KV never be leased.
                self.session.drain(stream)
                drained = True
        finally:
            if not drained:
                await stream.aclose()
        if segment.lease is not None:
            await self._keep(segment, leased, got, delta)
        return step

    async def _admit(self, segment: Segment) -> None:
        """The segment runs: it has given back what it should, and read its sources."""
        self.session.leases.settle(segment.release)
        self.sources, self.release = (), ()
        await self.let_go()

    async def let_go(self) -> None:
        """The sources that came from outside are not needed any more."""
        admitted, self._admitted = self._admitted, None
        if admitted is not None:
            await admitted()

    def _take(self, delta: Delta) -> Step | None:
        """Append a delta's tokens up to where something happens, and say what; None while the segment goes on."""
        taken: list[int] = []
        step: Step | None = None
        for id in delta.tokens:
            if id == self._closer and self.own_open:
                step = Step("unclosed", forced=delta.forced)
            elif not self._fits(id):
                step = Step("cut")
            else:
                taken.append(id)
                step = self._react(id, self.append((id,)), delta.forced)
            if step is not None:
                break
        if taken:
            logprobs = delta.logprobs[: len(taken)] if delta.logprobs is not None else None
            self.session.emit(TokensAdded(self.place, tuple(taken), logprobs))
        if step is None and delta.finish is not None:
            return Step("end" if delta.finish == "stop" else "length")
        return step

    def _react(self, id: int, events: Sequence[Event], forced: bool) -> Step | None:
        self._outlines += id == self.session.codec.tag("<Outline>")
        outlines = tuple(span for event in events if isinstance(event, OutlinesKnown) for span in event.outlines)
        malformed = [event for event in events if isinstance(event, Malformed)]
        if malformed and not self.fallen:
            return Step("malformed", malformed[0].reason.value, outlines)
        if outlines:
            self._outlines = 0
            return Step("fork", outlines=outlines)
        return Step("closed", forced=forced) if id == self._closer else None

    def _fits(self, id: int) -> bool:
        """Whether what the token opens can still be closed within the budget behind it."""
        left = min(self.budget.left, self.budget.ceiling - self.tracker.next_position)
        bound = _ENDING_BOUND + _EMPTY_PATH_BOUND * (self._outlines + 1)
        if id == self._closer or left > bound:
            return True
        after = self.tracker.copy()
        due: tuple[Outline, ...] = ()
        for event in after.push(id):
            if isinstance(event, OutlinesKnown):
                due = read_outlines(self.session.codec, [*self.tokens, id], event.outlines)
        return self.affords((id,), due)

    async def _keep(self, segment: Segment, leased: bool, got: int, delta: Delta) -> None:
        """Hold the segment's lease if there is one."""
        assert segment.lease is not None
        if leased:
            # The last of stop_ids has no KV, the closer has.
            held = len(segment.tokens) + got - (delta.tokens[-1] != segment.closer)
            self._hold(segment.lease, min(held, len(self.tokens)))
        elif delta.finish is not None:
            self.session.leases.settle((segment.lease,))
        else:
            await self.session.leases.release((segment.lease,))

    def _hold(self, lease: str, tokens: int) -> None:
        self.sources, self.release = (Source(lease, 0, tokens, 0),), (lease,)
