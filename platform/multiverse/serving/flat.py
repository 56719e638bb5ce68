"""`multiverse.structure.flatten` for a stream: text and tags in reading order in, flattened text out.

Of a well-formed answer comes exactly what `flatten` says. Of a damaged one, tags go and text stays, but for goals and
conclusions.
"""

import re
from dataclasses import dataclass, field

from multiverse.structure.tags import LEAD_IN

_NUMBER = re.compile(r"\s*(?:\d+\.)*\d+:")
_NUMBER_SO_FAR = re.compile(r"\s*[\d.]*")
_ANNOUNCED = f"\n{LEAD_IN}\n"


@dataclass(slots=True)
class _Text:
    """A stretch of text between tags: holds back what goes if a block follows."""

    numbered: bool = False
    after_block: bool = False
    held: str = ""
    fresh: bool = True

    def push(self, text: str) -> str:
        self.held += text
        if not self.held or (self.numbered and _NUMBER_SO_FAR.fullmatch(self.held)):
            return ""
        self._begin()
        if self.fresh and (LEAD_IN + "\n").startswith(self.held):
            return ""
        keep = next((size for size in range(len(_ANNOUNCED), 0, -1) if self.held.endswith(_ANNOUNCED[:size])), 0)
        text, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        self.fresh = self.fresh and not text
        return text

    def end(self, *, before_block: bool) -> str:
        self._begin()
        if not before_block:
            return self.held
        line = self.held.removesuffix("\n")
        if self.fresh and line == LEAD_IN:
            return ""
        return line.removesuffix("\n" + LEAD_IN)

    def _begin(self) -> None:
        if self.numbered:
            self.held = _NUMBER.sub("", self.held, count=1) if _NUMBER.match(self.held) else self.held
            self.numbered = False
        if self.after_block and self.held:
            self.held = self.held.removeprefix("\n")
            self.after_block = False


@dataclass(slots=True)
class _Frame:
    """The document, or a ``<Think>`` or path, which lose ``prefix`` at their start and a line break at their end."""

    kind: str
    prefix: str = ""
    text: _Text = field(default_factory=_Text)
    held: str = ""

    def push(self, text: str) -> str:
        if not text or self.kind == "document":
            return text
        text = self.held + text.removeprefix(self.prefix)
        self.prefix = ""
        self.held = "\n" if text.endswith("\n") else ""
        return text.removesuffix("\n")


@dataclass(slots=True)
class _Block:
    """Between the parts of a block. ``inside``: the closer of the goal or conclusion that is open."""

    inside: str = ""
    space: str = ""


class FlatText:
    """Feed it with ``text`` and ``tag`` in their order; what both and ``finish`` return is the flattened text."""

    def __init__(self) -> None:
        self._frames = [_Frame("document")]
        self._blocks: list[_Block | None] = [None]
        """For each frame, the block that is open in it."""

    def text(self, text: str) -> str:
        block = self._blocks[-1]
        if block is not None:
            if block.inside:
                return ""
            block.space += text
            if not block.space.strip():
                return ""
            # No text may stand here: the block was none, or is over.
            text, self._blocks[-1] = block.space, None
            self._frames[-1].text = _Text()
        return self._up(self._frames[-1].text.push(text))

    def tag(self, tag: str) -> str:
        block = self._blocks[-1]
        if block is not None and (block.inside or tag != "</Path>"):
            self._in_block(block, tag)
            return ""
        frame = self._frames[-1]
        if tag == "<Parallel>":
            self._blocks[-1] = _Block()
            return self._up(frame.text.end(before_block=True))
        if tag == "<Think>" and frame.kind == "document":
            text = self._up(frame.text.end(before_block=False))
            frame.text = _Text()
            self._open(_Frame("think", prefix="\n"))
            return text
        if tag in ("</Think>", "</Path>") and tag == f"</{frame.kind.title()}>":
            text = "" if block is not None else self._up(frame.text.end(before_block=False))
            self._frames.pop()
            self._blocks.pop()
            return text
        return ""

    def finish(self) -> str:
        """What is still held back of an answer that is not well-formed, or ends in a line break."""
        text = "" if self._blocks[-1] is not None else self._frames[-1].text.end(before_block=False)
        while len(self._frames) > 1:
            frame = self._frames.pop()
            text = frame.push(text) + frame.held
        return text

    def _in_block(self, block: _Block, tag: str) -> None:
        if block.inside:
            if tag == block.inside:
                block.inside = ""
        elif tag in ("<Goal>", "<Conclusion>"):
            block.inside = tag.replace("<", "</")
        elif tag == "<Path>":
            self._open(_Frame("path", prefix=" ", text=_Text(numbered=True)))
        elif tag == "</Parallel>":
            self._blocks[-1] = None
            self._frames[-1].text = _Text(after_block=True)
        block.space = ""

    def _open(self, frame: _Frame) -> None:
        self._frames.append(frame)
        self._blocks.append(None)

    def _up(self, text: str) -> str:
        for frame in reversed(self._frames):
            text = frame.push(text)
        return text
