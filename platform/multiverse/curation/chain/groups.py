"""Which steps can be worked out at the same time, found by code from what they need of each other.

A run of steps in a row becomes a block if it falls into two branches or more, each one or more steps in a row, with no
step that needs one in another branch. Alternative attempts at one thing do not need each other. The parts of a step
become blocks inside of it in the same way.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import itemgetter

from multiverse.curation.chain.plan import Dependencies, Links, Step
from multiverse.curation.chain.sentences import Sentence


@dataclass(frozen=True, slots=True)
class Span:
    """``sentences[begin:end]``, sequential."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Branch:
    """``titles``: those of its steps."""

    titles: tuple[str, ...]
    body: "Body"


@dataclass(frozen=True, slots=True)
class Block:
    branches: tuple[Branch, ...]


Node = Span | Block
Body = tuple[Node, ...]


def group(
    sentences: Sequence[Sentence], steps: Sequence[Step], dependencies: Dependencies, min_saving: int = 1
) -> Body:
    """All sentences in order, as spans and blocks, so that the critical path is the shortest there is.

    Lengths are characters of the chain. min_saving: what a block must take off the critical path at least.
    """
    units = [_unit(step, links, sentences, min_saving) for step, links in zip(steps, dependencies.parts, strict=True)]
    return _joined([Span(0, steps[0].begin), *_best(units, dependencies.steps, min_saving).body])


def blocks(body: Body) -> Iterator[Block]:
    """All blocks in the order of their forks: a block before those in its branches."""
    for node in body:
        if isinstance(node, Block):
            yield node
            for branch in node.branches:
                yield from blocks(branch.body)


def first_sentence(body: Body) -> int:
    """The index of the sentence that a body begins with."""
    node = body[0]
    return node.begin if isinstance(node, Span) else first_sentence(node.branches[0].body)


def last_sentence(body: Body) -> int:
    """The number, from 1, of the sentence that a body ends with."""
    node = body[-1]
    return node.end if isinstance(node, Span) else last_sentence(node.branches[-1].body)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A step with its blocks found. ``length``: characters of its critical path."""

    title: str
    body: Body
    length: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Steps in a row: ``branches`` are the ranges of a block's, or one range of one step."""

    branches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Grouped:
    body: Body
    length: int


def _unit(step: Step, links: Links, sentences: Sequence[Sentence], min_saving: int) -> _Unit:
    def span(title: str, begin: int, end: int) -> _Unit:
        return _Unit(title, (Span(begin, end),), sum(len(sentence.text) for sentence in sentences[begin:end]))

    preface = span(step.title, step.begin, step.parts[0].begin if step.parts else step.end)
    inner = _best([span(part.title, part.begin, part.end) for part in step.parts], links, min_saving)
    return _Unit(step.title, _joined([*preface.body, *inner.body]), preface.length + inner.length)


def _best(units: Sequence[_Unit], links: Links, min_saving: int) -> _Grouped:
    """The units in order, some runs of them as blocks: the shortest critical path, of these the fewest blocks."""
    offsets = [0, *accumulate(unit.length for unit in units)]
    best: list[tuple[int, int]] = [(0, 0)]
    chosen: list[_Run] = []
    runs = _runs(_needs(links))
    for end in range(1, len(units) + 1):
        length, count = best[end - 1]
        options = [((length + units[end - 1].length, count), _Run(((end - 1, end),)))]
        for run in runs[end]:
            begin = run.branches[0][0]
            longest = max(offsets[stop] - offsets[start] for start, stop in run.branches)
            if offsets[end] - offsets[begin] - longest >= min_saving:
                options.append(((best[begin][0] + longest, best[begin][1] + 1), run))
        option = min(options, key=itemgetter(0))
        best.append(option[0])
        chosen.append(option[1])
    nodes: list[Node] = []
    end = len(units)
    while end:
        run = chosen[end - 1]
        nodes[:0] = _nodes(run, units)
        end = run.branches[0][0]
    return _Grouped(_joined(nodes), best[-1][0])


def _runs(needs: Sequence[set[int]]) -> list[list[_Run]]:
    """Per end, all runs of two branches or more that end there, in branches as small as they can be."""
    runs: list[list[_Run]] = [[] for _ in range(len(needs) + 1)]
    for begin in range(len(needs)):
        starts: list[int] = []
        for index in range(begin, len(needs)):
            starts.append(index)
            # What a step needs is in its branch, and so is all between.
            first = min((other for other in needs[index] if other >= begin), default=index)
            while starts[-1] > first:
                starts.pop()
            if len(starts) > 1:
                runs[index + 1].append(_Run(tuple(pairwise([*starts, index + 1]))))
    return runs


def _nodes(run: _Run, units: Sequence[_Unit]) -> Body:
    branches = [
        Branch(
            tuple(unit.title for unit in units[begin:end]),
            _joined([node for unit in units[begin:end] for node in unit.body]),
        )
        for begin, end in run.branches
    ]
    return (Block(tuple(branches)),) if len(branches) > 1 else branches[0].body


def _needs(links: Links) -> list[set[int]]:
    """Per step the earlier ones it needs, without those that attempt the same thing."""
    attempt = list(range(len(links.needs)))
    for step, others in enumerate(links.alternatives):
        for other in others:
            attempt = [attempt[other] if one == attempt[step] else one for one in attempt]
    return [{other for other in needs if attempt[other] != attempt[step]} for step, needs in enumerate(links.needs)]


def _joined(nodes: Sequence[Node]) -> Body:
    """Spans next to each other as one, empty ones left out."""
    body: list[Node] = []
    for node in nodes:
        if isinstance(node, Span) and body and isinstance(last := body[-1], Span):
            body[-1] = Span(last.begin, node.end)
        elif isinstance(node, Block) or node.begin < node.end:
            body.append(node)
    return tuple(body)


def merge(body: Body, dependent: Collection[Block]) -> Body:
    """The body without the blocks ``dependent``: their branches stand behind each other, blocks inside of them stay."""
    nodes: list[Node] = []
    for node in body:
        if isinstance(node, Span):
            nodes.append(node)
            continue
        branches = tuple(Branch(branch.titles, merge(branch.body, dependent)) for branch in node.branches)
        if any(node is one for one in dependent):
            nodes += [inner for branch in branches for inner in branch.body]
        else:
            nodes.append(Block(branches))
    return _joined(nodes)
