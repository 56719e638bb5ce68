"""Token stream to events: the streaming twin of `multiverse.structure.layout`, O(1) per token.

Beside the layout's own state it follows the strict grammar, so that it can say which token is out of place and which
tags are open when a stream ends early.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from multiverse.structure.tags import NAMES, Kind, Vocabulary


class MalformedReason(StrEnum):
    NO_GOAL = "no_goal"
    NO_OUTLINES = "no_outlines"
    MISSING_PATH = "missing_path"
    STRAY_TAG = "stray_tag"
    STRAY_TEXT = "stray_text"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class BlockOpened:
    """``<Parallel>`` and its ``<Goal>`` have come; ``index`` is the ``<Goal>``'s."""

    index: int


@dataclass(frozen=True, slots=True)
class OutlinesKnown:
    """``</Goal>``: the block forks here. ``outlines``: index ranges of the outlines' inner tokens, one per outline."""

    index: int
    width: int
    outlines: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class BranchOpened:
    """``<Path>`` of branch ``branch``, from 1."""

    index: int
    branch: int


@dataclass(frozen=True, slots=True)
class BranchClosed:
    """``</Path>`` of branch ``branch``, which stands at ``end_position``."""

    index: int
    branch: int
    end_position: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The last branch is closed: the next token stands at ``position``."""

    index: int
    position: int


@dataclass(frozen=True, slots=True)
class BlockClosed:
    """``</Parallel>`` behind the block's ``</Conclusion>``."""

    index: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """What the strict grammar does not allow there; for the layout it is an ordinary token. ``tag`` is "" for text."""

    index: int
    reason: MalformedReason
    tag: str


Event = BlockOpened | OutlinesKnown | BranchOpened | BranchClosed | Joined | BlockClosed | Malformed


@dataclass(slots=True)
class _Block:
    """A forked block; ``inside`` one of its branches or waiting for the next."""

    fork_position: int
    width: int
    last_position: int
    closed: int = 0
    inside: bool = False
    begun: bool = False


@dataclass(slots=True)
class _Goal:
    outlines: list[tuple[int, int]] = field(default_factory=list)


class Tracker:
    """Follows one token sequence. ``count`` tokens were pushed so far."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._position = 0
        self._blocks: list[_Block] = []
        self._goal: _Goal | None = None
        self._pending = False
        self._open: list[Kind] = []
        """Openers that are open in the strict sense, outermost first."""
        self._concluded: list[bool] = []
        """Per open ``<Parallel>``: whether its ``<Conclusion>`` has come."""
        self._strayed = False
        """Text out of place was reported and no tag has come since: once is enough."""
        self.count = 0

    def copy(self) -> "Tracker":
        """A tracker that goes its own way from here. Takes time by depth and outlines, not by tokens."""
        twin = Tracker(self._vocabulary)
        twin._position, twin._pending, twin.count = self._position, self._pending, self.count
        twin._blocks = [
            _Block(b.fork_position, b.width, b.last_position, b.closed, b.inside, b.begun) for b in self._blocks
        ]
        twin._goal = None if self._goal is None else _Goal(list(self._goal.outlines))
        twin._open, twin._concluded, twin._strayed = list(self._open), list(self._concluded), self._strayed
        return twin

    @property
    def next_position(self) -> int:
        """Where the next token stands if the text goes on as expected."""
        return self._blocks[-1].fork_position if self._due and not self._blocks[-1].begun else self._position

    @property
    def depth(self) -> int:
        """Blocks whose branch the next token is in."""
        return sum(block.inside for block in self._blocks)

    @property
    def open_tags(self) -> tuple[str, ...]:
        """Tags that wait for their closer, outermost first, for instance ``("<Think>", "<Parallel>", "<Goal>")``."""
        return tuple(NAMES[kind] for kind in self._open)

    @property
    def _due(self) -> bool:
        return bool(self._blocks) and not self._blocks[-1].inside

    def push(self, token_id: int) -> tuple[Event, ...]:
        """Take in the next token."""
        return self._push(self._vocabulary.kind(token_id))

    def push_all(self, token_ids: Sequence[int]) -> tuple[Event, ...]:
        return tuple(event for id in token_ids for event in self.push(id))

    def finish(self) -> tuple[Event, ...]:
        """What is still open at the end of the sequence."""
        if self._pending or self._goal is not None or self._blocks or self._open:
            return (Malformed(self.count, MalformedReason.UNCLOSED, NAMES[self._open[-1]] if self._open else ""),)
        return ()

    def _push(self, kind: Kind) -> tuple[Event, ...]:
        events = tuple(self._step(kind))
        self._position += 1
        self.count += 1
        return events

    def _step(self, kind: Kind) -> Iterator[Event]:
        if self._goal is not None:
            yield from self._in_goal(self._goal, kind)
            return
        while self._due:
            block = self._blocks[-1]
            if not block.begun:
                block.begun, self._position = True, block.fork_position
            if kind == Kind.SPACE:
                return
            if kind == Kind.PATH:
                block.inside = True
                self._open.append(kind)
                yield BranchOpened(self.count, block.closed + 1)
                return
            self._blocks.pop()
            self._position = block.last_position + 1
            self._forget(Kind.PARALLEL)
            yield Malformed(self.count, MalformedReason.MISSING_PATH, NAMES.get(kind, ""))
        if self._pending:
            if kind == Kind.SPACE:
                return
            self._pending = False
            if kind == Kind.GOAL:
                self._goal = _Goal()
                self._open.append(kind)
                yield BlockOpened(self.count)
                return
            self._forget(Kind.PARALLEL)
            yield Malformed(self.count, MalformedReason.NO_GOAL, NAMES.get(kind, ""))
        if kind.is_tag:
            self._strayed = False
            yield from self._in_text(kind)
        elif kind == Kind.TEXT and not self._strayed and self._open and self._open[-1] == Kind.PARALLEL:
            # Around the conclusion, a block holds white space only.
            self._strayed = True
            yield Malformed(self.count, MalformedReason.STRAY_TEXT, "")

    def _in_goal(self, goal: _Goal, kind: Kind) -> Iterator[Event]:
        in_outline = self._open[-1] == Kind.OUTLINE
        if kind == Kind.OUTLINE:
            goal.outlines.append((self.count + 1, self.count + 1))
            if in_outline:
                yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[kind])
            else:
                self._open.append(kind)
        elif kind == Kind.OUTLINE_END and in_outline:
            goal.outlines[-1] = (goal.outlines[-1][0], self.count)
            self._open.pop()
        elif kind == Kind.GOAL_END:
            yield from self._goal_end(goal, in_outline)
        elif kind.is_tag:
            yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[kind])

    def _goal_end(self, goal: _Goal, in_outline: bool) -> Iterator[Event]:
        self._goal = None
        if in_outline:
            goal.outlines[-1] = (goal.outlines[-1][0], self.count)
            yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[Kind.GOAL_END])
        self._forget(Kind.GOAL)
        if not goal.outlines:
            self._forget(Kind.PARALLEL)
            yield Malformed(self.count, MalformedReason.NO_OUTLINES, NAMES[Kind.GOAL_END])
            return
        width = len(goal.outlines)
        self._blocks.append(_Block(self._position + 1, width, self._position))
        yield OutlinesKnown(self.count, width, tuple(goal.outlines))

    def _in_text(self, kind: Kind) -> Iterator[Event]:
        top = self._open[-1] if self._open else None
        if kind == Kind.PARALLEL:
            self._pending = True
            self._open.append(kind)
            self._concluded.append(False)
            if top not in (None, Kind.THINK, Kind.PATH):
                yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[kind])
        elif kind == Kind.PATH_END and self._blocks:
            yield from self._close_branch(self._blocks[-1])
        elif kind == Kind.THINK and top is None:
            self._open.append(kind)
        elif kind == Kind.CONCLUSION and top == Kind.PARALLEL and not self._concluded[-1]:
            self._open.append(kind)
            self._concluded[-1] = True
        elif kind == Kind.PARALLEL_END and top == Kind.PARALLEL:
            if self._concluded[-1]:
                yield BlockClosed(self.count)
            else:
                yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[kind])
            self._forget(Kind.PARALLEL)
        elif kind.is_closer and kind != Kind.PARALLEL_END and top is not None and top == kind - 1:
            self._open.pop()
        else:
            yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[kind])

    def _close_branch(self, block: _Block) -> Iterator[Event]:
        block.closed += 1
        block.last_position = max(block.last_position, self._position)
        block.inside, block.begun = False, False
        if self._open[-1] != Kind.PATH:
            yield Malformed(self.count, MalformedReason.STRAY_TAG, NAMES[Kind.PATH_END])
        self._forget(Kind.PATH)
        yield BranchClosed(self.count, block.closed, self._position)
        if block.closed == block.width:
            self._blocks.pop()
            yield Joined(self.count, block.last_position + 1)
            self._position = block.last_position

    def _forget(self, kind: Kind) -> None:
        """Take the innermost open ``kind`` and all inside it off the open tags."""
        if kind not in self._open:
            return
        while True:
            last = self._open.pop()
            if last == Kind.PARALLEL:
                self._concluded.pop()
            if last == kind:
                return
