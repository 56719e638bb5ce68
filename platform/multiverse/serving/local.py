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

    @classmethod
    async def start(cls, config: EngineConfig) -> "MultiverseEngine":
        """Start vLLM, test its joins. Raises ValueError for settings the engine cannot work with, `SelfTestError`."""
        return cls(await VllmEngine.start(config))

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """The request's events; closing the iterator before its end aborts the request and frees all it holds."""
        return self._sequencer.generate(request)

    async def stats(self) -> dict[str, Any]:
        """The engine's figures (`EngineStats`). Raises if vLLM is dead."""
        await self.segments.check_health()
        return asdict(self.segments.stats)

    async def shutdown(self) -> None:
        self.segments.shutdown()
