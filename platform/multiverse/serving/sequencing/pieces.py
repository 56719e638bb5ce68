"""What the engine writes by itself: pieces of text and tags, tokenized apart from each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from multiverse.structure.tags import TAGS, Vocabulary

_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,3}:")


class Codec(Protocol):
    """Text to token ids and back: `multiverse.models.tokens.Tokens` and the vocabulary of its manifest."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def tag(self, name: str) -> int: ...

    def encode_plain(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Outline:
    """One outline of a goal.

    text: as written, without the white space around it.
    label: how its branch begins, ``"1:"`` or ``"1.2:"``.
    opening: text behind the label that the engine writes too (``force`` mode), or "".
    """

    text: str
    label: str
    opening: str = ""

    @property
    def head(self) -> tuple[str, ...]:
        """Pieces up to the label: all that an empty path has before its ``</Path>``."""
        return ("\n", "<Path>", "\n", self.label)

    @property
    def beginning(self) -> tuple[str, ...]:
        """Pieces that a branch begins with."""
        return (*self.head, self.opening) if self.opening else self.head


def encode(codec: Codec, pieces: Sequence[str]) -> list[int]:
    """Ids of ``pieces``: a piece that is a tag becomes its token, all others are ordinary text."""
    ids: list[int] = []
    for piece in pieces:
        ids.extend([codec.tag(piece)] if piece in TAGS else codec.encode_plain(piece))
    return ids


def read_outlines(codec: Codec, tokens: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple[Outline, ...]:
    """The outlines at token index ``ranges``. One that does not begin with a number gets its place in the goal."""
    outlines = []
    for place, (start, stop) in enumerate(ranges, start=1):
        text = codec.decode(tokens[start:stop]).strip()
        number = _NUMBER.match(text)
        outlines.append(Outline(text, number.group() if number else f"{place}:"))
    return tuple(outlines)
