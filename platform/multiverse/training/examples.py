"""Rows as training examples: token ids as they come about when serving, with layout and loss."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from multiverse.models.tokens import Tokens
from multiverse.structure.flatten import flatten
from multiverse.structure.grammar import Block, Body, Document, Text, Think
from multiverse.structure.layout import layout
from multiverse.training.curriculum import Form
from multiverse.training.rows import Row, RowError
from multiverse.training.writing import Part, Writer

PARALLEL_SUFFIX = " Think step by step and in parallel before answering."
SEQUENTIAL_SUFFIX = " Think step by step before answering."
"""What the paper puts behind the questions of its structured and of its sequential examples."""


@dataclass(frozen=True, slots=True)
class Example:
    """One token sequence. hidden: as of `Layout.hidden_intervals`. loss: tokens that the model is asked for.

    ids, positions: [num_tokens] int32. hidden: [num_tokens, depth, 2] int32. loss: [num_tokens] bool.
    part: [num_tokens] uint8 of `Part`.
    """

    ids: np.ndarray
    positions: np.ndarray
    hidden: np.ndarray
    loss: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[int], kinds: np.ndarray, loss: Sequence[bool], part: Sequence[int]) -> "Example":
        """The example of tokens whose `Kind` s are ``kinds``."""
        placed = layout(kinds)
        return cls(
            ids=np.asarray(ids, dtype=np.int32),
            positions=placed.positions,
            hidden=placed.hidden_intervals(),
            loss=np.asarray(loss, dtype=bool),
            part=np.asarray(part, dtype=np.uint8),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def predecessors(self) -> np.ndarray:
        """[num_tokens] int64: by token, the one it is predicted from, -1 for the first.

        That is the last one before it that it sees. For the first token of a later sibling, it is not the sibling's
        ``</Path>`` that stands before it, but the ``</Goal>`` where both begin.
        """
        before = np.arange(-1, len(self.ids) - 1)
        low, high = self.hidden[..., 0], self.hidden[..., 1]
        token, depth = np.nonzero((high == np.arange(len(self.ids))[:, None]) & (high > low))
        before[token] = low[token, depth] - 1
        return before


@dataclass(frozen=True, slots=True)
class Twins:
    """A row in both forms."""

    row: str
    family: str
    multiverse: Example
    ar: Example

    def __getitem__(self, form: Form) -> Example:
        return self.multiverse if form == "multiverse" else self.ar


@dataclass(frozen=True, slots=True)
class ExampleSettings:
    """max_tokens: of an example in either form; what is longer is cut at the border of a block of the top level (and
    then has no end of sequence), or dropped. invalid: what to do with rows that the grammar refuses.

    loss_on_written: also ask for what the engine writes when serving, ``\\n<Path>\\n1:`` and ``\\n<Conclusion>``. The
    engine never asks the model for it, so nothing is gained by default. It would even teach what does not happen: what
    stands before a later branch in the sequence is its sibling's ``</Path>``, from which no branch goes on.
    """

    max_tokens: int
    too_long: Literal["cut", "drop"] = "cut"
    invalid: Literal["skip", "fail"] = "skip"
    loss_on_written: bool = False
    parallel_suffix: str = ""
    sequential_suffix: str = ""


@dataclass(slots=True)
class Report:
    """What became of the rows. kept: those with examples, ``cut`` among them. invalid and dropped: those without.

    tokens: of the examples kept, by form. messages: one for each invalid row: its id, the rule, line and column.
    """

    rows: int = 0
    kept: int = 0
    invalid: int = 0
    cut: int = 0
    dropped: int = 0
    tokens: dict[Form, int] = field(default_factory=lambda: {"ar": 0, "multiverse": 0})
    messages: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        of_forms = " and ".join(f"{count} tokens as {form}" for form, count in self.tokens.items())
        return (
            f"{self.rows} rows: {self.kept} kept ({self.cut} of them cut), {self.invalid} invalid, "
            f"{self.dropped} dropped as too long; {of_forms}"
        )


def build_examples(rows: Iterable[Row], tokens: Tokens, settings: ExampleSettings) -> tuple[list[Twins], Report]:
    """Both forms of every usable row, in order, and what became of the others.

    A row that is too long is cut at the same place in both forms. Raises RowError for an invalid row where that is set.
    """
    twins: list[Twins] = []
    report = Report()
    for row in rows:
        report.rows += 1
        try:
            document = row.document()
        except RowError as error:
            if settings.invalid == "fail":
                raise
            report.invalid += 1
            report.messages.append(str(error))
            continue
        pair = _pair(row, document, tokens, settings, report)
        if pair is None:
            report.dropped += 1
            continue
        report.kept += 1
        twins.append(pair)
        for form in report.tokens:
            report.tokens[form] += len(pair[form])
    return twins, report


def _pair(row: Row, document: Document, tokens: Tokens, settings: ExampleSettings, report: Report) -> Twins | None:
    def twins(body: Body, ended: bool) -> Twins:
        sequential = row.sequential() if ended else flatten(Document(body))
        return Twins(
            row.id,
            row.family,
            _example(tokens, row.question + settings.parallel_suffix, body, ended, settings),
            _example(tokens, row.question + settings.sequential_suffix, (Text(sequential),), ended, settings),
        )

    def too_long(pair: Twins) -> bool:
        return max(len(pair.multiverse), len(pair.ar)) > settings.max_tokens

    whole = twins(document.body, ended=True)
    if not too_long(whole):
        return whole
    if settings.too_long == "drop":
        return None
    bodies = [body for body in _beginnings(document.body) if flatten(Document(body))]
    at = bisect_left(bodies, True, key=lambda body: not too_long(twins(body, ended=False)))
    if at == len(bodies):
        return None
    report.cut += 1
    return twins(bodies[at], ended=False)


def _beginnings(body: Body) -> Iterator[Body]:
    """What a body is up to a border of a block of the top level or of ``<Think>``, the longest first."""
    for index in reversed(range(len(body))):
        node = body[index]
        if isinstance(node, Think):
            yield from ((*body[:index], Think(inner)) for inner in _beginnings(node.body))
        elif isinstance(node, Block):
            if index + 1 < len(body):
                yield body[: index + 1]
            yield body[:index]


def _example(tokens: Tokens, question: str, body: Body, ended: bool, settings: ExampleSettings) -> Example:
    writer = Writer(tokens)
    writer.prompt(question)
    writer.body(body, Part.TEXT, closed=ended)
    if ended:
        writer.end()
    loss = [
        part != Part.PROMPT and (settings.loss_on_written or not written)
        for part, written in zip(writer.parts, writer.written, strict=True)
    ]
    return Example.of(writer.ids, tokens.vocabulary.kinds(writer.ids), loss, writer.parts)
