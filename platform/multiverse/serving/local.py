"""`MultiverseEngine`: whole requests on one vLLM instance in this process, without Ray."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from multiverse.engine.config import EngineConfig
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.models.tokens import Tokens
from multiverse.serving.events import Event
from multiverse.serving.request import GenerationRequest
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer


class MultiverseEngine:
    """A segment engine and the sequencer of its requests. Make it with `start`, end it with `shutdown`."""

    def __init__(self, segments: VllmEngine) -> None:
        self.segments = segments
        self.manifest = segments.manifest
        self.tokens = Tokens.load(segments.config.model)
        self.limits = EngineLimits(max_model_len=segments.max_model_len, trained=segments.manifest.trained)
        self._sequencer = Sequencer(segments, self.tokens, self.limits)
        self._most_free_blocks = 0

    @classmethod
    async def start(cls, config: EngineConfig) -> "MultiverseEngine":
        """Start vLLM, test its joins. Raises ValueError for settings the engine cannot work with, `SelfTestError`."""
        return cls(await VllmEngine.start(config))

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """The request's events; closing the iterator before its end aborts the request and frees all it holds."""
        return self._sequencer.generate(request)

    async def stats(self) -> dict[str, Any]:
        """The engine's figures (`EngineStats`), and ``kv_usage``. Raises if vLLM is dead."""
        await self.segments.check_health()
        stats = self.segments.stats
        # The size of the cache is not reported; an idle engine, as after the self-test, has all of it free.
        self._most_free_blocks = max(self._most_free_blocks, stats.free_blocks)
        kv_usage = 1 - stats.free_blocks / self._most_free_blocks if self._most_free_blocks else 0.0
        return asdict(stats) | {"kv_usage": kv_usage}

    async def shutdown(self) -> None:
        self.segments.shutdown()
