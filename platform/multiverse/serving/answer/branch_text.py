"""A branch's text as people want to see it: without its ``<Path>`` tags, its number and the white space around."""

import re
from collections.abc import Mapping, Sequence

from multiverse.serving.interface import Codec

_NUMBER = r"\d+(?:\.\d+)*:"
_HEAD = re.compile(rf"\s*(?:{_NUMBER}\s*)?")
_HEAD_SO_FAR = re.compile(r"\s*(?:[\d.]+:?)?\s*")
_PATH = re.compile(r"\A\s*<Path>|</Path>\s*\Z")


class BranchText:
    """The text of one branch from its own tokens, piece by piece; blocks inside it are branches of their own."""

    def __init__(self, codec: Codec, tag_ids: Mapping[str, int]) -> None:
        self._edges = {tag_ids["<Path>"], tag_ids["</Path>"]}
        self._stream = codec.stream()
        self._begun = False
        self._held = ""

    def push(self, ids: Sequence[int]) -> str:
        """White space is held back until more follows."""
        self._held += self._stream.push([id for id in ids if id not in self._edges])
        if not self._begun:
            if _HEAD_SO_FAR.fullmatch(self._held):
                return ""
            self._held = _HEAD.sub("", self._held, count=1)
            self._begun = True
        text = self._held.rstrip()
        self._held = self._held[len(text) :]
        return text


class OuterText:
    """The text outside all branches as people want to see it: conclusions, but neither tags nor goals."""

    def __init__(self, codec: Codec, tag_ids: Mapping[str, int]) -> None:
        self._codec = codec
        self._tags = {id: tag for tag, id in tag_ids.items()}
        self._stream = codec.stream()
        self._in_goal = False

    def push(self, ids: Sequence[int]) -> str:
        text = ""
        for id in ids:
            tag = self._tags.get(id)
            if tag is not None:
                self._in_goal = tag == "<Goal>" or (self._in_goal and tag != "</Goal>")
                self._stream = self._codec.stream()
            elif not self._in_goal:
                text += self._stream.push([id])
        return text


def inner_text(text: str) -> str:
    """The same for the whole text of a branch, which has the blocks inside it."""
    return outline_text(_PATH.sub("", text))


def outline_text(text: str) -> str:
    """``text`` without its number and the white space around."""
    return _HEAD.sub("", text, count=1).rstrip()
