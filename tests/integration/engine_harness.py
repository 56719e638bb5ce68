"""Requests to a real engine: with dictated tokens, compared with the reference, and what is left when they are over."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from multiverse.engine.config import EngineConfig
from multiverse.engine.segment import Sampling
from multiverse.evaluation.comparison import Comparison
from multiverse.evaluation.free import compare_answer, reading_order
from multiverse.serving.events import Event, Finished, Result
from multiverse.serving.local import MultiverseEngine
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.pieces import encode
from multiverse.structure.tags import split_words

END = "<end>"
"""At the end of a scripted text: the end-of-sequence token."""


@dataclass(frozen=True)
class Run:
    """A finished request. ``text`` is the answer with its tags."""

    request: GenerationRequest
    events: tuple[Event, ...]
    text: str

    @property
    def result(self) -> Result:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1].result

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Harness:
    """``script``: the file that the engine's `tests.integration.scripted.ScriptedTokens` reads."""

    engine: MultiverseEngine
    reference: Any
    script: Path
    _requests: int = field(default=0)

    @classmethod
    async def start(cls, config: EngineConfig, reference: Any, script: Path) -> "Harness":
        return cls(await MultiverseEngine.start(config), reference, script)

    def chat(self, *contents: str) -> tuple[int, ...]:
        """The prompt of a conversation, the user's turn first."""
        turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
        return tuple(self.engine.tokens.chat(turns))

    def dictate(self, prompt: Sequence[int], texts: Mapping[str, str]) -> None:
        """Have the model write each text behind its key, the text of key "" behind ``prompt``. Replaces what was."""
        script = [(list(prompt) if key == "" else self._ids(key), self._ids(text)) for key, text in texts.items()]
        self.script.write_text(json.dumps(script), encoding="utf-8")

    def say_nothing(self) -> None:
        self.script.unlink(missing_ok=True)

    def _ids(self, text: str) -> list[int]:
        """Each tag, word and run of white space tokenized apart, so that they meet what the engine writes."""
        ids = encode(self.engine.tokens, split_words(text.removesuffix(END)))
        return [*ids, *self.engine.tokens.eos_ids[:1]] if text.endswith(END) else ids

    def request(self, prompt: Sequence[int], max_tokens: int = 300, **options: Any) -> GenerationRequest:
        """options: of `ParallelOptions`, and ``temperature``, ``seed`` and ``question``."""
        self._requests += 1
        sampling = Sampling(
            max_tokens, temperature=options.pop("temperature", 0.0), seed=options.pop("seed", None), logprobs=0
        )
        return GenerationRequest(
            id=f"test-{self._requests}",
            prompt=tuple(prompt),
            sampling=sampling,
            question=options.pop("question", ""),
            parallel=ParallelOptions(**options),
            arrival=self._requests,
            cache_salt="test",
        )

    async def run(self, prompt: Sequence[int], max_tokens: int = 300, **options: Any) -> Run:
        request = self.request(prompt, max_tokens, **options)
        events = tuple([event async for event in self.engine.generate(request)])
        assert isinstance(events[-1], Finished)
        return Run(request, events, self.engine.tokens.decode(events[-1].result.tokens))

    async def cancel(self, request: GenerationRequest, after: int) -> None:
        """Leave a request behind its event number ``after``."""
        async with aclosing(self.engine.generate(request)) as events:  # type: ignore[type-var]
            count = 0
            async for _ in events:
                count += 1
                if count == after:
                    return

    def compared(self, run: Run) -> Comparison:
        """The log-probabilities of the sampled tokens against the layout's forward."""
        comparison = Comparison()
        answer = reading_order(run.request.prompt, run.events)
        compare_answer(comparison, self.reference, self.engine, answer, run.request.id)
        return comparison

    async def holdings(self) -> tuple[int, int, int]:
        """Leases, leased blocks and free blocks; the engine reports them when it takes a step."""
        await self.run(self.chat("Hi"), max_tokens=2)
        stats = self.engine.segments.stats
        return stats.leases, stats.leased_blocks, stats.free_blocks

    async def holds(self, expected: tuple[int, int, int], seconds: float = 5.0) -> tuple[int, int, int]:
        """`holdings`, as soon as they are as ``expected``, or those after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (found := await self.holdings()) != expected and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return found


def vllm_processes() -> set[psutil.Process]:
    """vLLM's processes below this one that still run."""
    below = psutil.Process().children(recursive=True)
    return {one for one in below if one.status() != psutil.STATUS_ZOMBIE and one.name().startswith("VLLM")}


def shared_memory() -> set[str]:
    """Files under /dev/shm that this process and vLLM's have mapped."""
    return {
        mapped.path
        for process in (psutil.Process(), *vllm_processes())
        for mapped in process.memory_maps()
        if mapped.path.startswith("/dev/shm/")
    }
