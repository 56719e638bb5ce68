"""What is wrong with a structured chain, as findings: none means that it passes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiverse.curation.checks.distance import normalized_distance
from multiverse.structure.flatten import flatten
from multiverse.structure.grammar import Block, Body, Document, GrammarError, Text, Think, parse

MAX_DISTANCE = 0.2
"""Normalized edit distance that a rewritten step, or chain, may have to its source (the paper's curation)."""

_NUMBER = re.compile(r"(?<![\w.^])(?<!\^\{)(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|(?<![\w.^])\.[0-9]+")
_RESULT = re.compile(r"=\s*([^=$,;\n]{1,80}?)(?=\s+[A-Za-z]{2,}|\s*(?:[=$,;\n]|\.\s|\.?$|\\\)|\\\]))")
_PATH_NUMBER = re.compile(r"\s*(?:[0-9]+\.)*[0-9]+:")


@dataclass(frozen=True, slots=True)
class Finding:
    """check: "grammar", "numbering", "content" or "outline-leak". message: what is wrong and where, for its author."""

    check: str
    message: str


def check_grammar(text: str) -> list[Finding]:
    """Whether the strict parser takes a text."""
    try:
        parse(text)
    except GrammarError as error:
        return [Finding("grammar", str(error))]
    return []


def check_numbering(document: Document) -> list[Finding]:
    """What the parser leaves open: inner blocks count below their path ("2.1:"); outlines and paths are not empty."""
    findings = []
    for block, parent in _blocks(document.body, ""):
        for place, (outline, path) in enumerate(zip(block.outlines, block.paths, strict=True), start=1):
            expected = f"{parent}{place}"
            if outline.number != expected:
                findings.append(Finding("numbering", f"outline {outline.number} must have the number {expected}"))
            if not _outline_text(outline.text).strip():
                findings.append(Finding("numbering", f"outline {expected} is empty"))
            if not flatten(Document(path.body)).strip():
                findings.append(Finding("numbering", f"path {expected} is empty"))
    return findings


def check_content(steps: Sequence[tuple[str, str]]) -> list[Finding]:
    """Whether steps, each (source, rewritten), are still what they were; runs of white space count as one space.

    Each step's normalized edit distance, and that of all together, must be at most `MAX_DISTANCE`.
    """
    total = ("\n".join(source for source, _ in steps), "\n".join(rewritten for _, rewritten in steps))
    named = [(f"step {number}", step) for number, step in enumerate(steps, start=1)] + [("the whole chain", total)]
    return [finding for name, pair in named for finding in check_step(name, *pair)]


def check_step(name: str, source: str, rewritten: str, most: float = MAX_DISTANCE) -> list[Finding]:
    """`check_content` of one step, which the message calls ``name``. most: the distance that it may have."""
    distance = content_distance(source, rewritten)
    if distance <= most:
        return []
    return [Finding("content", f"{name} differs from its source by {distance:.2f}: must be at most {most}")]


def content_distance(source: str, rewritten: str) -> float:
    """Normalized edit distance; runs of white space count as one space."""
    return normalized_distance(" ".join(source.split()), " ".join(rewritten.split()))


def check_outlines(document: Document, question: str) -> list[Finding]:
    """Outlines that give away what only their branch works out.

    That is a number, or the right-hand side of an equation, that stands in an outline and in its branch, but neither in
    the question nor in anything before the block.
    """
    findings: list[Finding] = []
    _find_leaks(document.body, question, findings)
    return findings


def _find_leaks(body: Body, before: str, findings: list[Finding]) -> None:
    """before: the question and all that the body's first token sees."""
    for node in body:
        if isinstance(node, Text):
            before += node.text
        elif isinstance(node, Think):
            _find_leaks(node.body, before, findings)
            before += flatten(Document(node.body))
        else:
            outlines = [_outline_text(outline.text) for outline in node.outlines]
            for path, outline in zip(node.paths, outlines, strict=True):
                branch = flatten(Document(path.body))
                for leak in sorted(_leaks(outline, branch, before)):
                    number = path.number.strip()[:-1]
                    findings.append(
                        Finding("outline-leak", f"outline {number} gives away {leak!r}, a result of its branch")
                    )
                _find_leaks(path.body, f"{before} {' '.join(outlines)} ", findings)
            before += " ".join(["", *(flatten(Document(path.body)) for path in node.paths), node.conclusion])


def _leaks(outline: str, branch: str, before: str) -> set[str]:
    numbers = (_numbers(outline) & _numbers(branch)) - _numbers(before)
    known = _squeezed(before)
    results = {result for result in _results(outline) & _results(branch) if result not in known}
    return numbers | {result for result in results if not _numbers(result) & numbers}


def _numbers(text: str) -> set[str]:
    """Numbers in one spelling ("1,200.50" is "1200.5"), without exponents and indices."""
    return {_plain(found) for found in _NUMBER.findall(text)}


def _plain(number: str) -> str:
    whole, _, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _results(text: str) -> set[str]:
    """Right-hand sides of equations without their white space, those of one character left out."""
    return {result for found in _RESULT.findall(text) if len(result := _squeezed(found)) > 1}


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _outline_text(text: str) -> str:
    """An outline without its number."""
    return _PATH_NUMBER.sub("", text, count=1)


def _blocks(body: Body, parent: str) -> Iterator[tuple[Block, str]]:
    for node in body:
        if isinstance(node, Think):
            yield from _blocks(node.body, parent)
        elif isinstance(node, Block):
            yield node, parent
            for place, path in enumerate(node.paths, start=1):
                yield from _blocks(path.body, f"{parent}{place}.")
