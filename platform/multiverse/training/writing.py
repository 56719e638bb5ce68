"""A document as token ids: what the engine writes when serving is tokenized as it does, all else as the model's."""

from collections.abc import Sequence
from enum import IntEnum

from multiverse.models.tokens import Tokens
from multiverse.serving.sequencing.pieces import encode, read_outlines
from multiverse.structure.grammar import Block, Node, Text, Think
from multiverse.structure.tags import TAGS


class Part(IntEnum):
    """What a token belongs to: for the loss of each. TAG: tags, and white space between the parts of a block."""

    PROMPT = 0
    TEXT = 1
    TAG = 2
    GOAL = 3
    PATH = 4
    CONCLUSION = 5


class Writer:
    """Collects the tokens of one example. parts: the `Part` of each. written: whether the engine writes it.

    White space before ``<Path>`` and ``<Conclusion>`` and the number behind ``<Path>`` become those of the engine,
    whatever the text has: nothing else is ever there when serving.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.ids: list[int] = []
        self.parts: list[Part] = []
        self.written: list[bool] = []

    def prompt(self, question: str) -> None:
        """The user's turn by the model's chat template, up to where the assistant's begins."""
        self._add(self._tokens.chat([{"role": "user", "content": question}]), Part.PROMPT)

    def body(self, nodes: Sequence[Node], part: Part, closed: bool = True) -> None:
        """closed: False leaves a ``<Think>`` at the end open."""
        for index, node in enumerate(nodes):
            if isinstance(node, Text):
                self._text(node.text, part)
            elif isinstance(node, Block):
                self._block(node)
            else:
                self._think(node, part, closed or index + 1 < len(nodes))

    def end(self) -> None:
        """The end of the sequence, which counts as text."""
        self._add(self._tokens.eos_ids[:1], Part.TEXT)

    def _think(self, think: Think, part: Part, closed: bool) -> None:
        self._tag("<Think>")
        self.body(think.body, part)
        if closed:
            self._tag("</Think>")

    def _block(self, block: Block) -> None:
        before_goal, after_outlines, _, after_conclusion = block.spaces
        self._tag("<Parallel>")
        self._text(before_goal, Part.TAG)
        self._tag("<Goal>")
        ranges = []
        for outline in block.outlines:
            self._text(outline.before, Part.GOAL)
            self._tag("<Outline>")
            start = len(self.ids)
            self._text(outline.text, Part.GOAL)
            ranges.append((start, len(self.ids)))
            self._tag("</Outline>")
        self._text(after_outlines, Part.GOAL)
        self._tag("</Goal>")
        for begun, path in zip(read_outlines(self._tokens, self.ids, ranges), block.paths, strict=True):
            self._write(begun.beginning, Part.PATH)
            self.body(path.body, Part.PATH)
            self._tag("</Path>")
        self._write(("\n", "<Conclusion>"), Part.CONCLUSION)
        self._text(block.conclusion, Part.CONCLUSION)
        self._tag("</Conclusion>")
        self._text(after_conclusion, Part.TAG)
        self._tag("</Parallel>")

    def _tag(self, name: str) -> None:
        self._add([self._tokens.tag(name)], Part.TAG)

    def _text(self, text: str, part: Part) -> None:
        self._add(self._tokens.encode_plain(text), part)

    def _write(self, pieces: Sequence[str], part: Part) -> None:
        for piece in pieces:
            self._add(encode(self._tokens, (piece,)), Part.TAG if piece in TAGS else part, written=True)

    def _add(self, ids: Sequence[int], part: Part, written: bool = False) -> None:
        self.ids += ids
        self.parts += [part] * len(ids)
        self.written += [written] * len(ids)
