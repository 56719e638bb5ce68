"""Tokens in reading order to the text of an answer, piece by piece."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from multiverse.serving.answer.flat import FlatText
from multiverse.serving.interface import Codec, TextStream


class Content(Protocol):
    """The pieces of ``push`` and ``finish``, put together, are the answer's text."""

    def push(self, ids: Sequence[int]) -> str: ...

    def finish(self) -> str: ...


class FlatContent:
    """Without tags, goals and conclusions (``parallel.tags: false``)."""

    def __init__(self, codec: Codec, tag_ids: Mapping[str, int]) -> None:
        self._codec = codec
        self._tags = {id: tag for tag, id in tag_ids.items()}
        self._stream: TextStream = codec.stream()
        self._flat = FlatText()

    def push(self, ids: Sequence[int]) -> str:
        text = ""
        for id in ids:
            if id in self._tags:
                text += self._flat.text(self._stream.finish()) + self._flat.tag(self._tags[id])
                self._stream = self._codec.stream()
            else:
                text += self._flat.text(self._stream.push([id]))
        return text

    def finish(self) -> str:
        return self._flat.text(self._stream.finish()) + self._flat.finish()


class StopContent:
    """Text that may turn out to be (the beginning of) a stop string is held back."""

    def __init__(self, codec: Codec, stop: Sequence[str]) -> None:
        self._stream = codec.stream()
        self._stop = stop
        self._held = ""
        self._sent = 0

    def push(self, ids: Sequence[int]) -> str:
        self._held += self._stream.push(ids)
        safe = min(_may_stop_at(self._held, stop) for stop in self._stop)
        text, self._held = self._held[:safe], self._held[safe:]
        self._sent += len(text)
        return text

    def finish(self) -> str:
        return self._held + self._stream.finish()

    def rest_of(self, text: str) -> str:
        """What is still to be sent of ``text``, the engine's own, where it stopped at a stop string."""
        return text[self._sent :]


def _may_stop_at(text: str, stop: str) -> int:
    """Index of the first place where ``stop`` stands or may still come to stand."""
    found = text.find(stop)
    if found >= 0:
        return found
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return len(text) - length
    return len(text)
