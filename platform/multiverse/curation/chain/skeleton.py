"""The skeleton of rewrite mode: a structured chain in which a placeholder, ``{2.1}``, stands for each leaf step."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from multiverse.curation.chain.groups import Body, Span
from multiverse.curation.chain.replies import PlanError, unfenced
from multiverse.curation.chain.tree import Leaf
from multiverse.curation.checks.findings import check_numbering
from multiverse.structure import grammar
from multiverse.structure.tags import LEAD_IN
from multiverse.validation import shown

_PLACEHOLDER = re.compile(r"(\{\d+(?:\.\d+)?\})")
_END = "the end"


def marks(body: Body, parts: Sequence[Leaf]) -> list[str]:
    """What a skeleton must hold, in order: the leaves' placeholders, and the tags of blocks and paths."""
    found: list[str] = []
    for node in body:
        if isinstance(node, Span):
            found += [f"{{{leaf.label}}}" for leaf in parts if node.begin <= leaf.begin < node.end]
            continue
        found.append("<Parallel>")
        for branch in node.branches:
            found += ["<Path>", *marks(branch.body, parts), "</Path>"]
        found.append("</Parallel>")
    return found


def read_skeleton(reply: str, expected: Sequence[str]) -> grammar.Document:
    """The skeleton with the marks ``expected``; it may stand in a Markdown code block.

    Raises PlanError if the strict parser does not take it, other marks or other text stand there, or numbers are wrong.
    """
    try:
        document = grammar.parse(unfenced(reply))
    except grammar.GrammarError as error:
        raise PlanError(str(error)) from error
    before = "at the beginning"
    for mark, right in zip_longest(_marks(document.body), expected, fillvalue=_END):
        if mark != right:
            raise PlanError(f"{before} must stand {right}, not {mark}")
        before = f"behind {mark}"
    if findings := check_numbering(document):
        raise PlanError("; ".join(finding.message for finding in findings))
    return document


def _marks(body: grammar.Body) -> Iterator[str]:
    for node in body:
        if isinstance(node, grammar.Text):
            yield from _placeholders(node.text)
        elif isinstance(node, grammar.Think):
            yield "<Think>"
        else:
            yield "<Parallel>"
            for path in node.paths:
                yield "<Path>"
                yield from _marks(path.body)
                yield "</Path>"
            yield "</Parallel>"


def _placeholders(text: str) -> Iterator[str]:
    for piece in _PLACEHOLDER.split(text):
        if _PLACEHOLDER.fullmatch(piece):
            yield piece
        elif (rest := piece.strip()) not in ("", LEAD_IN):
            raise PlanError(f"only placeholders may stand outside of tags, not {shown(rest)}")
