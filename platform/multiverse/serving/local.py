"""`MultiverseEngine`: whole requests on one vLLM instance in this process, without Ray."""

from typing import Any

from multiverse.engine.config import EngineConfig
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.serving.sequencing.sequencer import EngineLimits
from multiverse.serving.whole import WholeEngine


class MultiverseEngine(WholeEngine):
    """A segment engine and the sequencer of its requests. Make it with `start`, end it with `shutdown`."""

    def __init__(self, segments: VllmEngine) -> None:
        self.segments = segments
        limits = EngineLimits(max_model_len=segments.max_model_len, trained=segments.manifest.trained)
        super().__init__(segments, segments.config.model, limits)

    @classmethod
    async def start(cls, config: EngineConfig) -> "MultiverseEngine":
        """Start vLLM, test its joins. Raises ValueError for settings the engine cannot work with, `SelfTestError`."""
        return cls(await VllmEngine.start(config))

    async def stats(self) -> dict[str, Any]:
        """The engine's figures. Raises if vLLM is dead."""
        await self.segments.check_health()
        return self.segments.figures

    async def shutdown(self) -> None:
        self.segments.shutdown()
