"""`multiverse.structure.flatten` for a stream: text and tags in reading order in, flattened text out.

Of a well-formed answer comes exactly what `flatten` says. Of a damaged one, tags go and text stays, but for goals and
conclusions.
"""

import re
from dataclasses import dataclass

from multiverse.structure.tags import LEAD_IN

_NUMBER = re.compile(r"\s*(?:\d+\.)*\d+:")
_NUMBER_SO_FAR = re.compile(r"\s*[\d.]*")
_ANNOUNCED = f"\n{LEAD_IN}\n"


@dataclass(slots=True)
class _Text:
    """Text between two tags. It loses a path's number and ``prefix``, and holds back what may go at its end."""

    prefix: str = ""
    numbered: bool = False
    held: str = ""
    fresh: bool = True

    def push(self, text: str) -> str:
        self.held += text
        if self.numbered and _NUMBER_SO_FAR.fullmatch(self.held):
            return ""
        self._begin()
        if not self.held or (self.fresh and (LEAD_IN + "\n").startswith(self.held)):
            return ""
        keep = next((size for size in range(len(_ANNOUNCED), 0, -1) if self.held.endswith(_ANNOUNCED[:size])), 0)
        text, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        self.fresh = self.fresh and not text
        return text

    def end(self, following: str = "") -> str:
        """What is left of what was held back, before the tag ``following``."""
        self._begin()
        if following == "<Parallel>":
            line = self.held.removesuffix("\n")
            return "" if self.fresh and line == LEAD_IN else line.removesuffix("\n" + LEAD_IN)
        return self.held.removesuffix("\n") if following in ("</Think>", "</Path>") else self.held

    def _begin(self) -> None:
        if self.numbered:
            number = _NUMBER.match(self.held)
            self.held = self.held[number.end() :] if number else self.held
            self.numbered = False
        if self.held:
            self.held = self.held.removeprefix(self.prefix)
            self.prefix = ""


@dataclass(slots=True)
class _Block:
    """Between the parts of a block. ``inside``: the closer of the goal or conclusion that is open."""

    inside: str = ""
    space: str = ""


class FlatText:
    """Feed it with ``text`` and ``tag`` in their order; what both and ``finish`` return is the flattened text."""

    def __init__(self) -> None:
        self._text = _Text()
        self._open: list[str | _Block] = []
        """What is open, outermost first: blocks, and the closers of ``<Think>`` and paths."""

    def text(self, text: str) -> str:
        block = self._open[-1] if self._open else None
        if isinstance(block, _Block):
            block.space += "" if block.inside else text
            if not block.space.strip():
                return ""
            # No text may stand here: the block was none, or is over.
            self._open.pop()
            self._text, text = _Text(), block.space
        return self._text.push(text)

    def tag(self, tag: str) -> str:
        innermost = self._open[-1] if self._open else None
        if isinstance(innermost, _Block) and (innermost.inside or self._open[-2:-1] != [tag]):
            self._in_block(innermost, tag)
            return ""
        if tag == "<Parallel>":
            self._open.append(_Block())
        elif tag == "<Think>" and innermost is None:
            self._open.append("</Think>")
        elif isinstance(innermost, _Block):
            # The path ends before its block has begun.
            self._open = self._open[:-2]
            return ""
        elif tag == innermost:
            self._open.pop()
        else:
            return ""
        text = self._text.end(tag)
        self._text = _Text(prefix="\n" if tag == "<Think>" else "")
        return text

    def finish(self) -> str:
        """What is still held back."""
        return "" if self._open and isinstance(self._open[-1], _Block) else self._text.end()

    def _in_block(self, block: _Block, tag: str) -> None:
        if block.inside:
            block.inside = "" if tag == block.inside else block.inside
        elif tag in ("<Goal>", "<Conclusion>"):
            block.inside = tag.replace("<", "</")
        elif tag == "<Path>":
            self._open.append("</Path>")
            self._text = _Text(prefix=" ", numbered=True)
        elif tag == "</Parallel>":
            self._open.pop()
            self._text = _Text(prefix="\n")
        block.space = ""
