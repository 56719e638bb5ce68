"""A region: the text at one place of the tree, from its beginning to its end, however many segments that takes.

Pure bookkeeping: what segments bring is taken in here, `segments` runs them, `blocks` decides what comes next.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Source
from multiverse.serving.events import Block, FellBack, FinishReason, Place, TokensAdded
from multiverse.serving.sequencing.budget import Budget
from multiverse.serving.sequencing.closers import Ending, ending
from multiverse.serving.sequencing.pieces import Outline, encode, read_outlines
from multiverse.serving.sequencing.seeds import Path
from multiverse.serving.sequencing.session import Session
from multiverse.structure.tracker import BranchClosed, Event, Malformed, OutlinesKnown, Tracker

_ENDING_BOUND = 64
_EMPTY_PATH_BOUND = 32
"""More tokens than the end of a region, and an empty path, ever cost; within them the exact cost is looked up."""


@dataclass(frozen=True, slots=True)
class Step:
    """How a segment came to its end.

    fork: a goal closed, ``outlines`` are its token index ranges (malformed: they may be due all the same).
    closed: the branch's closer. unclosed: the closer while tags of the branch were open; it is not taken into the text.
    cut: the budget ends before the next token. late: it took longer than it may.
    """

    kind: Literal["fork", "malformed", "closed", "unclosed", "cut", "length", "end", "late"]
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
        context: Sequence[int] | None = None,
        replica: str = "",
        home: str = "",
    ) -> None:
        """sources: KV of the context that others release; ``admitted`` is awaited once this region has read it.

        context: what the model is given, where that is not ``tokens`` (after a join by text). replica: where it
        runs; home: where its block will be joined.
        """
        self.session = session
        self.tokens = list(tokens)
        self.context = self.tokens if context is None else list(context)
        self.replica = replica
        self.home = home
        self.begun_at = len(self.tokens)
        self._context_begun_at = len(self.context)
        self.branch_start = sources[-1].stop if sources and place else None
        self.late = 0
        """How often a segment of this region was given up because it took too long."""
        self.tracker = tracker
        self.budget = budget
        self.place = place
        self.path = path
        self.sources = sources
        self.release: tuple[str, ...] = ()
        self.adopted: tuple[tuple[str, KVReference], ...] = ()
        self.fallen = fallen
        self.cut = False
        """A share of the request's own budget ended in a branch of this region."""
        self.blocks: list[Block] = []
        self._admitted = admitted
        self._base = len(tracker.open_tags)
        self.segments = 0
        self._outlines = 0
        self.closer = session.codec.tag("</Path>") if place else None

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
        if self.context is not self.tokens:
            self.context.extend(ids)
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
            branch=whole and self.closer is not None,
        )

    def end(self, finish: FinishReason, due: Sequence[Outline] = ()) -> FinishReason:
        """Close the region by written tokens."""
        rest = self.rest(due)
        if rest.unclosed:
            self._report("unclosed")
        events = self.write(rest.ids)
        if self.closer is not None and not any(isinstance(event, BranchClosed) for event in events[-2:]):
            raise RuntimeError(f"the closers written at {self.place} do not close the branch")
        return finish

    @property
    def holds_all(self) -> bool:
        """Whether the KV of all of the context is held under one lease of this region's own."""
        return bool(self.release) and self.sources == (Source(self.release[0], 0, len(self.context), 0),)

    def spell_out(self) -> None:
        """From here on the model reads all of this region's own text, tags included, as ordinary text."""
        text = self.session.codec.decode(self.tokens[self.begun_at :])
        self.context = [*self.context[: self._context_begun_at], *self.session.codec.encode_plain(text)]

    @property
    def room(self) -> int:
        """Tokens that may be added before the region has to be closed."""
        room = self.budget.room(self.tracker.next_position, self.rest())
        if self.context is self.tokens:
            return room
        # Spelled out, the same text has more tokens.
        return min(room, self.session.limits.max_model_len - len(self.context) - len(self.rest().ids))

    def affords(self, ids: Sequence[int], due: Sequence[Outline]) -> bool:
        """Whether ``ids``, behind which the branches ``due`` are due, could be written and closed again."""
        after = self.tracker.copy()
        for id in ids:
            after.push(id)
        rest = ending(self.session.codec, after, self.tokens, self._base, due, self.closer is not None)
        return Budget(self.budget.left - len(ids), self.budget.ceiling).room(after.next_position, rest) >= 0

    def _report(self, reason: str) -> None:
        self.fallen = True
        self.session.fallbacks.append(reason)
        self.session.emit(FellBack(self.place, reason))

    @property
    def own_open(self) -> tuple[str, ...]:
        """Open tags of this region, outermost first."""
        return tuple(self.tracker.open_tags[self._base :])

    # ---- what segments bring --------------------------------------------------------------------------------------

    async def let_go(self) -> None:
        """The sources that came from outside are not needed any more."""
        admitted, self._admitted = self._admitted, None
        if admitted is not None:
            await admitted()

    def take(self, delta: Delta) -> Step | None:
        """Append a delta's tokens up to where something happens, and say what; None while the segment goes on."""
        taken: list[int] = []
        step: Step | None = None
        for id in delta.tokens:
            if id == self.closer and self.own_open:
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
        return Step("closed", forced=forced) if id == self.closer else None

    def _fits(self, id: int) -> bool:
        """Whether what the token opens can still be closed within the budget behind it."""
        left = min(self.budget.left, self.budget.ceiling - self.tracker.next_position)
        bound = _ENDING_BOUND + _EMPTY_PATH_BOUND * (self._outlines + 1)
        if id == self.closer or left > bound:
            return True
        after = self.tracker.copy()
        due: tuple[Outline, ...] = ()
        for event in after.push(id):
            if isinstance(event, OutlinesKnown):
                due = read_outlines(self.session.codec, [*self.tokens, id], event.outlines)
        return self.affords((id,), due)

    def hold(self, lease: str, tokens: int) -> None:
        """The KV of the first ``tokens`` tokens is under ``lease``, which is this region's own."""
        self.sources, self.release = (Source(lease, 0, tokens, 0),), (lease,)
