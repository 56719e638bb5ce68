"""The configured LLM: cache before endpoint."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.cache import Cache, Cached
from multiverse.curation.llm.calls import LLM
from multiverse.curation.llm.config import LLMConfig
from multiverse.curation.llm.endpoint import Endpoint


@asynccontextmanager
async def open_llm(config: LLMConfig, accounting: Accounting) -> AsyncIterator[LLM]:
    """The LLM, which counts into ``accounting``. Raises ConfigError if its API key is missing."""
    async with Endpoint(config, accounting) as endpoint:
        if config.cache_dir is None:
            yield endpoint
            return
        # How a schema is sent decides the answer too.
        cached = Cached(endpoint, Cache(config.cache_dir, f"{config.model} {config.structured}"), accounting)
        try:
            yield cached
        finally:
            await cached.aclose()
