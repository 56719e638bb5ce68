"""Where tokens stand and what they see: positions and hidden keys of a structured token sequence.

The one definition for training, engine and evaluation. It is a function of the tokens so far only, and it is total: a
tag out of place is an ordinary token.

    tokens     Q ... </Goal> | \n <Path> a b </Path> | \n <Path> c </Path> | \n <Conclusion> ...
    positions  0      19       20   21  22 23   24     20   21  22   23      25      26
                     fork ^    span of branch 1        span of branch 2      ^ join: the longest branch's end + 1

A token of a span does not see the spans of its siblings before it: the keys from the fork to its own span's start.
"""

from dataclasses import dataclass, field

import numpy as np

from multiverse.structure.tags import Kind


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``[start, end)`` of one branch, which do not see the keys ``[fork, start)``; closed: has ``</Path>``."""

    start: int
    end: int
    fork: int
    depth: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One parallel block.

    fork: index of the first token after ``</Goal>``; fork_position: that token's position. width: its outlines.
    end: index of the first token after the join (or of the token that cut the block short); None while it is open.
    depth: 1 for a block outside of any other.
    """

    fork: int
    fork_position: int
    width: int
    spans: tuple[Span, ...]
    end: int | None
    depth: int


@dataclass(frozen=True)
class Layout:
    """positions: [num_tokens] int32. blocks: in the order of their forks, at all depths.

    next_position: where the next token stands if the text goes on as expected; before a branch that is due, the fork
    point.
    """

    positions: np.ndarray
    blocks: tuple[Block, ...]
    next_position: int

    @property
    def critical_path(self) -> int:
        """Number of positions from start to end, the longest branch of each block counted once."""
        return int(self.positions.max()) + 1 if len(self.positions) else 0

    @property
    def parallelism(self) -> float:
        """Tokens per position of the critical path; 1.0 is sequential."""
        return len(self.positions) / self.critical_path if len(self.positions) else 1.0

    @property
    def guarded(self) -> int:
        """Index after the last token that has any hidden key: from there on plain causal attention is right."""
        return max((span.end for span in self._hiding), default=0)

    def hidden(self, query: int) -> tuple[tuple[int, int], ...]:
        """The key intervals that the token at index ``query`` does not see, outermost first."""
        return tuple((span.fork, span.start) for span in self._hiding if span.start <= query < span.end)

    def hidden_intervals(self) -> np.ndarray:
        """[num_tokens, depth, 2] int32: per token and depth the hidden keys ``[low, high)``, (0, 0) for none."""
        depth = max((span.depth for span in self._hiding), default=0)
        intervals = np.zeros((len(self.positions), depth, 2), dtype=np.int32)
        for span in self._hiding:
            intervals[span.start : span.end, span.depth - 1] = span.fork, span.start
        return intervals

    @property
    def _hiding(self) -> list[Span]:
        spans = (span for block in self.blocks for span in block.spans if span.start > span.fork)
        return sorted(spans, key=lambda span: span.depth)


@dataclass(slots=True)
class _Open:
    """A block whose branches are not all closed. ``start`` is None where the next branch has not begun."""

    fork: int
    fork_position: int
    width: int
    last_position: int
    start: int | None = None
    inside: bool = False
    spans: list[Span] = field(default_factory=list)


def layout(kinds: np.ndarray) -> Layout:
    """The layout of tokens of these `Kind` s, [num_tokens] uint8. Python work goes by tags, numpy fills in the rest."""
    return _Walk(kinds).layout()


class _Walk:
    """One pass over the tags. Runs of other tokens between them are placed at once."""

    def __init__(self, kinds: np.ndarray) -> None:
        self._kinds = kinds
        self._positions = np.arange(len(kinds), dtype=np.int32)
        self._shift = 0
        """position - index of the tokens being placed."""
        self._stack: list[_Open] = []
        self._blocks: list[Block] = []
        self._goal: int | None = None
        """Outlines counted in the open goal; None outside of goals."""
        self._pending = False
        """A ``<Parallel>`` was seen and nothing but white space since."""
        self._done = 0
        """Tokens before this index are placed."""

    def layout(self) -> Layout:
        kinds, count = self._kinds, len(self._kinds)
        ordinary = np.append(np.flatnonzero(kinds != Kind.SPACE), count)
        tags = np.flatnonzero(kinds > Kind.SPACE)
        # Where a branch is due or a goal is expected, the next token that is no white space decides, tag or not.
        behind = ordinary[np.searchsorted(ordinary, tags, side="right")]
        for index, kind, following in zip(tags.tolist(), kinds[tags].tolist(), behind.tolist(), strict=True):
            self._tag(index, kind)
            if self._due and following < count and kinds[following] == Kind.TEXT:
                self._begin(index + 1)
                self._cut(following)
            elif self._pending and following < count and kinds[following] == Kind.TEXT:
                self._pending = False
        self._place(count)
        return self._finish(count)

    @property
    def _due(self) -> bool:
        return bool(self._stack) and not self._stack[-1].inside

    def _place(self, stop: int) -> None:
        if self._shift:
            self._positions[self._done : stop] += self._shift
        self._done = stop

    def _stand(self, index: int, position: int) -> None:
        """The token at ``index`` stands at ``position``; the ones before it are placed as they were going."""
        self._place(index)
        self._shift = position - index

    def _begin(self, index: int) -> None:
        """The due branch begins at ``index``, with the white space before its ``<Path>``."""
        block = self._stack[-1]
        if block.start is None:
            block.start = index
            self._stand(index, block.fork_position)

    def _cut(self, index: int) -> None:
        """Neither white space nor ``<Path>`` where a branch is due: the block is over."""
        block = self._stack.pop()
        if block.start is not None and block.start < index:
            block.spans.append(Span(block.start, index, block.fork, len(self._stack) + 1, False))
        self._close(block, index)

    def _close(self, block: _Open, end: int) -> None:
        self._stand(end, block.last_position + 1)
        depth = len(self._stack) + 1
        self._blocks.append(Block(block.fork, block.fork_position, block.width, tuple(block.spans), end, depth))

    def _tag(self, index: int, kind: int) -> None:
        if self._goal is not None:
            self._in_goal(index, kind)
            return
        while self._due:
            block = self._stack[-1]
            self._begin(block.spans[-1].end if block.spans else block.fork)
            if kind == Kind.PATH:
                block.inside = True
                return
            self._cut(index)
        if self._pending and kind == Kind.GOAL:
            self._goal = 0
        elif kind == Kind.PATH_END and self._stack:
            self._close_branch(index)
        self._pending = kind == Kind.PARALLEL

    def _in_goal(self, index: int, kind: int) -> None:
        assert self._goal is not None
        if kind == Kind.OUTLINE:
            self._goal += 1
        elif kind == Kind.GOAL_END:
            width, self._goal, self._pending = self._goal, None, False
            if width:
                fork = index + 1
                position = fork + self._shift
                self._stack.append(_Open(fork, position, width, position - 1))

    def _close_branch(self, index: int) -> None:
        block = self._stack[-1]
        assert block.start is not None
        block.last_position = max(block.last_position, index + self._shift)
        block.spans.append(Span(block.start, index + 1, block.fork, len(self._stack), True))
        block.start, block.inside = None, False
        if len(block.spans) == block.width:
            self._stack.pop()
            self._close(block, index + 1)

    def _finish(self, count: int) -> Layout:
        if self._due:
            block = self._stack[-1]
            self._done = begun = block.spans[-1].end if block.spans else block.fork
            # White space behind the last tag was placed as if the branch before it went on.
            if block.start is None and begun <= count:
                block.start = begun if begun < count else None
                self._positions[begun:] = np.arange(count - begun) + block.fork_position
                self._shift = block.fork_position - begun
        following = count + self._shift
        for depth, block in enumerate(self._stack, 1):
            if block.start is not None and block.start < count:
                block.spans.append(Span(block.start, count, block.fork, depth, False))
            self._blocks.append(Block(block.fork, block.fork_position, block.width, tuple(block.spans), None, depth))
        blocks = tuple(sorted(self._blocks, key=lambda block: block.fork))
        return Layout(self._positions, blocks, following)
