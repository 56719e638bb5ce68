"""The strict grammar of structured chains: text to a document and back, byte for byte.

    document = body, with at most one <Think> body </Think>
    body     = text and blocks                     (blocks at top level, inside <Think> and inside <Path> only)
    block    = <Parallel> <Goal> outline+ </Goal> path+ <Conclusion> text </Conclusion> </Parallel>
    outline  = <Outline> number text </Outline>    numbered from 1 in order; in a nested block "2.1:" or "1:"
    path     = <Path> number body </Path>          as many as outlines, each beginning with its outline's number

Blocks nest at most MAX_DEPTH deep.

Between the parts of a block there is white space only; it is kept, so that rendering gives the same text back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.structure.tags import TAG_PATTERN

MAX_DEPTH = 64
"""Blocks inside of each other that a document may have: text from outside must not exhaust the call stack."""

_NUMBER = re.compile(r"\s*((?:\d+\.)*\d+):")


class GrammarError(ValueError):
    """Text that is no structured document. ``line`` and ``column`` count from 1."""

    def __init__(self, rule: str, message: str, text: str, at: int) -> None:
        self.rule = rule
        self.line = text.count("\n", 0, at) + 1
        self.column = at - (text.rfind("\n", 0, at) + 1) + 1
        rest = text[at:]
        tag = TAG_PATTERN.match(rest)
        self.found = tag.group() if tag else rest[:20].split("\n")[0] if rest else "the end"
        super().__init__(f"line {self.line}, column {self.column}: rule {rule}: {message}; found {self.found!r}")


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Outline:
    """``text`` is all between the tags; ``number`` as it stands there, without the colon. ``before``: white space."""

    before: str
    number: str
    text: str


@dataclass(frozen=True, slots=True)
class Path:
    """``number`` is the number's text with white space before it and the colon, as it stands behind ``<Path>``."""

    before: str
    number: str
    body: "Body"


@dataclass(frozen=True, slots=True)
class Block:
    """``spaces``: the white space before ``<Goal>``, ``</Goal>``, ``<Conclusion>`` and ``</Parallel>``."""

    outlines: tuple[Outline, ...]
    paths: tuple[Path, ...]
    conclusion: str
    spaces: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Think:
    body: "Body"


Node = Text | Block | Think
Body = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Document:
    body: Body


def parse(text: str) -> Document:
    """The document of ``text``. Raises GrammarError, which names the rule that failed, where, and what stands there."""
    return _Parser(text).document()


def is_document(text: str) -> bool:
    """Whether `parse` takes ``text``."""
    try:
        parse(text)
    except GrammarError:
        return False
    return True


def render(document: Document) -> str:
    """The text of a document: ``render(parse(text)) == text``."""
    return _render(document.body)


def _render(body: Sequence[Node]) -> str:
    return "".join(map(_render_node, body))


def _render_node(node: Node) -> str:
    if isinstance(node, Text):
        return node.text
    if isinstance(node, Think):
        return f"<Think>{_render(node.body)}</Think>"
    before_goal, after_outlines, before_conclusion, after_conclusion = node.spaces
    outlines = "".join(f"{outline.before}<Outline>{outline.text}</Outline>" for outline in node.outlines)
    paths = "".join(f"{path.before}<Path>{path.number}{_render(path.body)}</Path>" for path in node.paths)
    return (
        f"<Parallel>{before_goal}<Goal>{outlines}{after_outlines}</Goal>{paths}"
        f"{before_conclusion}<Conclusion>{node.conclusion}</Conclusion>{after_conclusion}</Parallel>"
    )


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._thinks = 0
        self._depth = 0

    def document(self) -> Document:
        body = self._body(top=True, parent=None)
        if self._at < len(self._text):
            raise self._error("placement", "this tag may not stand in text")
        return Document(body)

    def _error(self, rule: str, message: str, at: int | None = None) -> GrammarError:
        return GrammarError(rule, message, self._text, self._at if at is None else at)

    def _tag(self) -> str | None:
        """The tag at the current place, which stays where it is."""
        found = TAG_PATTERN.match(self._text, self._at)
        return found.group() if found else None

    def _behind_space(self, at: int) -> int:
        rest = self._text[at:]
        return at + len(rest) - len(rest.lstrip())

    def _until_tag(self) -> str:
        found = TAG_PATTERN.search(self._text, self._at)
        end = found.start() if found else len(self._text)
        text, self._at = self._text[self._at : end], end
        return text

    def _space(self, where: str) -> str:
        begin = self._at
        text = self._until_tag()
        if text.strip():
            at = begin + len(text) - len(text.lstrip())
            raise self._error("white-space", f"only white space may stand {where}", at)
        return text

    def _expect(self, tag: str, rule: str, message: str) -> None:
        if self._tag() != tag:
            raise self._error(rule, message)
        self._at += len(tag)

    def _body(self, top: bool, parent: str | None) -> Body:
        nodes: list[Node] = []
        while True:
            if text := self._until_tag():
                nodes.append(Text(text))
            tag = self._tag()
            if tag == "<Parallel>":
                nodes.append(self._block(parent))
            elif tag == "<Think>" and top:
                nodes.append(self._think())
            else:
                return tuple(nodes)

    def _think(self) -> Think:
        self._thinks += 1
        if self._thinks > 1:
            raise self._error("one-think", "there may be one <Think> only")
        self._at += len("<Think>")
        body = self._body(top=False, parent=None)
        self._expect("</Think>", "think-closed", "<Think> must be closed by </Think> here")
        return Think(body)

    def _block(self, parent: str | None) -> Block:
        if self._depth == MAX_DEPTH:
            raise self._error("depth", f"blocks may nest {MAX_DEPTH} deep")
        self._depth += 1
        self._at += len("<Parallel>")
        before_goal = self._space("between <Parallel> and <Goal>")
        self._expect("<Goal>", "goal-first", "a block must begin with its <Goal>")
        outlines, after_outlines = self._outlines(parent)
        self._expect("</Goal>", "goal-closed", "a <Goal> may hold <Outline> only, and must be closed by </Goal>")
        if not outlines:
            raise self._error("outline-count", "a <Goal> must have at least one <Outline>", self._at - len("</Goal>"))
        paths, before_conclusion = self._paths(outlines)
        if len(paths) != len(outlines):
            raise self._error("path-count", f"{_count(len(outlines), 'outline')} but {_count(len(paths), 'path')}")
        self._expect("<Conclusion>", "conclusion", "a <Conclusion> must stand behind the last <Path>")
        conclusion = self._until_tag()
        self._expect("</Conclusion>", "conclusion-closed", "a <Conclusion> may hold text only, then </Conclusion>")
        after_conclusion = self._space("between </Conclusion> and </Parallel>")
        self._expect("</Parallel>", "block-closed", "a block must end with </Parallel> behind its <Conclusion>")
        self._depth -= 1
        return Block(outlines, paths, conclusion, (before_goal, after_outlines, before_conclusion, after_conclusion))

    def _outlines(self, parent: str | None) -> tuple[tuple[Outline, ...], str]:
        outlines: list[Outline] = []
        while True:
            before = self._space("between outlines")
            if self._tag() != "<Outline>":
                return tuple(outlines), before
            self._at += len("<Outline>")
            begin = self._at
            text = self._until_tag()
            number = self._number(text, begin, "outline-number")
            expected = [str(len(outlines) + 1)]
            if parent is not None:
                expected.insert(0, f"{parent}.{expected[0]}")
            if number not in expected:
                message = f"this outline's number must be {' or '.join(expected)}"
                raise self._error("outline-number", message, self._behind_space(begin))
            self._expect("</Outline>", "outline-closed", "an <Outline> may hold text only, then </Outline>")
            outlines.append(Outline(before, number, text))

    def _paths(self, outlines: Sequence[Outline]) -> tuple[tuple[Path, ...], str]:
        paths: list[Path] = []
        while True:
            before = self._space("between paths")
            if self._tag() != "<Path>":
                return tuple(paths), before
            if len(paths) == len(outlines):
                raise self._error("path-count", f"{_count(len(outlines), 'outline')} but one more path")
            self._at += len("<Path>")
            expected, begin = outlines[len(paths)].number, self._at
            found = _NUMBER.match(self._text, begin)
            if found is None or found.group(1) != expected:
                message = f"this path must begin with its outline's number '{expected}:'"
                raise self._error("path-number", message, self._behind_space(begin))
            self._at = found.end()
            body = self._body(top=False, parent=expected)
            self._expect("</Path>", "path-closed", "a <Path> must be closed by </Path> here")
            paths.append(Path(before, found.group(), body))

    def _number(self, text: str, begin: int, rule: str) -> str:
        found = _NUMBER.match(text)
        if found is None:
            raise self._error(rule, "an outline must begin with its number and a colon", self._behind_space(begin))
        return found.group(1)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
