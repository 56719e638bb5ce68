"""An engine without a model for tests of the HTTP surface: words are tokens, and events are given literally."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiverse.serving.events import (
    Block,
    BlockForked,
    BlockJoined,
    Branch,
    BranchFinished,
    Event,
    Finished,
    Result,
    TokensAdded,
)
from multiverse.serving.request import GenerationRequest, Reduce
from multiverse.structure.tags import TAGS

TAG_IDS = {tag: id for id, tag in enumerate(TAGS)}
_PIECES = re.compile("|".join(map(re.escape, TAGS)) + r"|\n|[^\n<]+|<")


class Words:
    """Tags are tokens 0 to 11; any other string becomes a token when it is first seen."""

    def __init__(self) -> None:
        self._words = list(TAGS)

    def ids(self, *words: str) -> tuple[int, ...]:
        """One token per word."""
        for word in words:
            if word not in self._words:
                self._words.append(word)
        return tuple(map(self._words.index, words))

    def structured(self, text: str) -> tuple[int, ...]:
        """Tags, line breaks, and the text between them as one token each."""
        return self.ids(*_PIECES.findall(text))

    def encode_plain(self, text: str) -> list[int]:
        return list(
            self.ids(*("<" + piece[1:] + " " if piece in TAG_IDS else piece for piece in _PIECES.findall(text)))
        )

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._words[id] for id in ids)

    def stream(self) -> "WordStream":
        return WordStream(self)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [id for turn in messages for id in self.ids(f"[{turn['role']}]", *turn["content"].split())]

    def continued(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [*self.chat(messages), *self.ids("[on]")]


class WordStream:
    def __init__(self, words: Words) -> None:
        self._words = words

    def push(self, ids: Sequence[int]) -> str:
        return self._words.decode(ids)

    def finish(self) -> str:
        return ""


@dataclass(frozen=True)
class Limits:
    max_model_len: int = 100
    trained: bool = False
    reduce: Reduce = "kv"


@dataclass(frozen=True)
class Manifest:
    tag_ids: Mapping[str, int] = field(default_factory=lambda: TAG_IDS)
    tokens: int = 1000


class FakeEngine:
    """Plays ``script(request)``; an exception in it is raised, a number is a pause in seconds."""

    def __init__(
        self, script: Callable[[GenerationRequest], Sequence[Event | Exception | float]], **limits: Any
    ) -> None:
        self.tokens = Words()
        self.limits = Limits(**limits)
        self.manifest = Manifest()
        self.requests: list[GenerationRequest] = []
        self.open = 0
        self.dead = False
        self.figures: dict[str, Any] = {
            "leases": 2,
            "leased_blocks": 7,
            "lease_spills": 1,
            "lease_drops": 0,
            "rebuilds": {"evicted": 3},
        }
        self._script = script

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        self.open += 1
        try:
            for item in self._script(request):
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    await asyncio.sleep(0)
                    yield item
        finally:
            self.open -= 1

    async def stats(self) -> dict[str, Any]:
        if self.dead:
            raise RuntimeError("the engine's process has ended")
        return self.figures


def sequential(words: Words, *text: str) -> list[Event]:
    """The events of a request without blocks."""
    tokens = words.ids(*text)
    events: list[Event] = [TokensAdded((), (token,)) for token in tokens]
    return [*events, Finished(Result(tokens, "stop", len(tokens), 1.0))]


HEAD = (
    "Look.\nLet's think in parallel.\n<Parallel>\n<Goal>\n"
    "<Outline>\n1: add\n</Outline>\n<Outline>\n2: take\n</Outline>\n</Goal>"
)
FIRST = "\n<Path>\n1: one.\n</Path>"
SECOND = "\n<Path>\n2: two.\n</Path>"
TAIL = "\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>\nDone."


def block_of_two(words: Words) -> list[Event]:
    """One block, whose second branch is done before the first has begun."""
    head, first, second, tail = map(words.structured, (HEAD, FIRST, SECOND, TAIL))
    place_1, place_2 = ((1, 1),), ((1, 2),)
    branches = (Branch("1: add", first, "stop", 20.0), Branch("2: take", second, "length", 10.0))
    tokens = head + first + second + tail
    return [
        TokensAdded((), head),
        BlockForked((), 1, ("1: add", "2: take")),
        TokensAdded(place_2, second[:4], written=True),
        TokensAdded(place_2, second[4:]),
        BranchFinished(place_2, "length", len(second), 10.0),
        TokensAdded(place_1, first[:4], written=True),
        TokensAdded(place_1, first[4:5]),
        TokensAdded(place_1, first[5:]),
        BranchFinished(place_1, "stop", len(first), 20.0),
        BlockJoined((), 1, 25.0),
        TokensAdded((), tail[:2], written=True),
        TokensAdded((), tail[2:]),
        Finished(Result(tokens, "stop", 40, 1.5, (Block(1, branches, 25.0),))),
    ]
