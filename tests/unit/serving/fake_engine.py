"""A word tokenizer and a segment engine that keeps the engine's promises, and checks that the caller keeps its own."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from multiverse.engine.segment import Delta, Fork, Placed, Segment, TokenLogprob
from multiverse.structure.layout import layout
from multiverse.structure.tags import TAGS, Vocabulary

EOS = 0
_WORD = re.compile("(" + "|".join(map(re.escape, TAGS)) + r")|(\n| ?[^\s<]+|.)")


class WordCodec:
    """Words, with the space before them, as tokens; ids are given out as words come up."""

    def __init__(self) -> None:
        self._ids = {"<eos>": EOS} | {tag: number for number, tag in enumerate(TAGS, start=1)} | {"\n": 13, " ": 14}
        self._words = {id: word for word, id in self._ids.items()}
        self.vocabulary = Vocabulary({tag: self._ids[tag] for tag in TAGS}, frozenset({13, 14}), 5000)

    def tag(self, name: str) -> int:
        return self.vocabulary.id(name)

    def word(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = 100 + len(self._ids)
            self._words[self._ids[text]] = text
        return self._ids[text]

    def encode(self, text: str) -> list[int]:
        """Ids of text in which tags are tags."""
        return [self.word(match.group()) for match in _WORD.finditer(text)]

    def encode_plain(self, text: str) -> list[int]:
        assert not any(tag in text for tag in TAGS), f"tags in plain text: {text!r}"
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._words[id] for id in ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.encode_plain("[" + messages[-1]["content"].replace("<", "") + "]")

    def continued(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.chat(messages)[:-1]


Model = Callable[[Segment], Iterator[int]]
"""What a model would write behind a segment's tokens. A masked token is passed over. Its end is end-of-sequence."""


def script(codec: WordCodec, continuations: Mapping[str, str]) -> Model:
    """A model that goes on with the text whose key is the longest one that ends the segment's text."""

    def model(segment: Segment) -> Iterator[int]:
        text = codec.decode(segment.tokens)
        keys = [key for key in continuations if text.endswith(key)]
        assert keys, f"no continuation for {text[-60:]!r}"
        return iter(codec.encode(continuations[max(keys, key=len)]))

    return model


class EngineDied(RuntimeError):
    pass


@dataclass
class FakeEngine:
    """jitter: seed of the scheduling noise, and of how many tokens come in one delta; None is one token a step.
    dies_at: the number of the delta, over all segments, in whose place the engine raises."""

    codec: WordCodec
    model: Model
    jitter: int | None = None
    dies_at: int | None = None
    segments: list[Segment] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    running: dict[str, asyncio.Event] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Leases whose segment failed: what would be read from them is rebuilt."""
    deltas: int = 0

    def __post_init__(self) -> None:
        self._noise = random.Random(self.jitter)

    async def _step(self) -> None:
        for _ in range(1 if self.jitter is None else self._noise.choice((0, 1, 1, 2, 7))):
            await asyncio.sleep(0)
        self.deltas += 1
        if self.deltas == self.dies_at:
            raise EngineDied

    async def run(self, segment: Segment) -> AsyncIterator[Delta]:
        self.segments.append(segment)
        self._check(segment)
        self.open.add(segment.id)
        left = asyncio.Event()
        if segment.lease is not None:
            self.running[segment.lease] = left
        try:
            await self._admit(segment)
            written: list[int] = []
            async for delta in self._deltas(segment):
                written += delta.tokens
                yield delta
            if segment.lease is not None and segment.lease in self.running:
                self._leave(segment, written)
        except EngineDied:
            self.lost |= {segment.lease} if segment.lease is not None else set()
            raise
        finally:
            self.open.discard(segment.id)
            if segment.lease is not None:
                self.running.pop(segment.lease, None)
            left.set()

    def _leave(self, segment: Segment, written: list[int]) -> None:
        assert segment.lease is not None
        tokens = (*segment.tokens, *written)
        if segment.prefill_only or (written and written[-1] == segment.closer):
            self.held[segment.lease] = tokens
        elif written and written[-1] in segment.stop_ids:
            self.held[segment.lease] = tokens[:-1]

    async def _deltas(self, segment: Segment) -> AsyncIterator[Delta]:
        await self._step()
        if segment.prefill_only:
            yield Delta((), finish="stop")
            return
        chunk: list[int] = []
        forced = False
        finish = None
        count, text = 0, ""
        tokens = self.model(segment)
        while finish is None:
            id = next((id for id in tokens if id not in segment.masked), EOS)
            count += 1
            if segment.closer is not None and (id == EOS or count == segment.sampling.max_tokens):
                id = segment.closer
                forced = count == segment.sampling.max_tokens
            if id == EOS:
                finish = "stop"
            else:
                chunk.append(id)
                if id in segment.stop_ids or id == segment.closer:
                    finish = "stop"
                elif count == segment.sampling.max_tokens:
                    finish = "length"
            if finish is not None or self.jitter is None or self._noise.random() < 0.6:
                logprobs = tuple(TokenLogprob(id, -0.5) for id in chunk)
                given = logprobs if segment.sampling.logprobs is not None else None
                text += self.codec.decode(chunk)
                whole = text if segment.sampling.stop and finish else None
                yield Delta(tuple(chunk), given, finish, forced, whole)
                chunk = []
                await self._step()

    async def _admit(self, segment: Segment) -> None:
        kinds = self.codec.vocabulary.kinds
        positions = layout(kinds(segment.tokens)).positions
        for source in segment.sources:
            if source.lease in self.running:
                await self.running[source.lease].wait()
            if source.lease in self.lost:
                continue
            assert source.lease in self.held, f"{segment.id}: source {source.lease} does not exist"
            lease = self.held[source.lease]
            end = source.offset + source.stop - source.start
            assert lease[source.offset : end] == segment.tokens[source.start : source.stop], "KV of other tokens"
            there = layout(kinds(lease)).positions[source.offset : end]
            assert np.array_equal(there, positions[source.start : source.stop]), "KV of other positions"
        for lease in segment.release:
            assert lease in self.held or lease in self.lost, f"{segment.id} gives {lease} back, which is not held"
            self.held.pop(lease, None)

    def _check(self, segment: Segment) -> None:
        assert segment.sampling.max_tokens >= 1
        assert not set(segment.masked) & {*segment.stop_ids, segment.closer}
        assert segment.lease not in self.held, "a lease is named twice"
        placed = layout(self.codec.vocabulary.kinds(segment.tokens))
        assert placed.guarded < len(segment.tokens), "ends with a branch that has siblings"

    def place(self, fork: Fork) -> Placed:
        return Placed(("",) * fork.width)

    def elsewhere(self, replica: str) -> str:
        return replica

    async def release(self, leases: Sequence[str]) -> None:
        await asyncio.sleep(0)
        for lease in leases:
            self.held.pop(lease, None)
            self.running.pop(lease, None)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing is held."""
        return not (self.open or self.held or self.running)
