"""The configured LLM, with the cache before it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.cache import Cache, Cached
from multiverse.curation.llm.calls import LLM
from multiverse.curation.llm.config import EngineLLMConfig, LLMConfig
from multiverse.curation.llm.endpoint import Endpoint

if TYPE_CHECKING:
    from multiverse.curation.llm.engine import EngineLLM
    from multiverse.curation.llm.local import LocalEngine


@asynccontextmanager
async def open_llm(
    config: LLMConfig | EngineLLMConfig, accounting: Accounting, engine: "LocalEngine | None" = None
) -> AsyncIterator[LLM]:
    """The LLM, which counts into ``accounting``.

    engine: one of ``config.engine_config()`` that runs already, and is left running; default: the LLM has its own.
    Raises ConfigError if an endpoint's API key is missing, and as `LocalEngine` and its configuration do.
    """
    async with AsyncExitStack() as stack:
        llm: Endpoint | EngineLLM
        if isinstance(config, LLMConfig):
            llm = await stack.enter_async_context(Endpoint(config, accounting))
        else:
            llm = await stack.enter_async_context(_engine_llm(config, accounting, engine))
        if config.cache_dir is None:
            yield llm
            return
        cached = Cached(llm, Cache(config.cache_dir, llm.identity), accounting)
        stack.push_async_callback(cached.aclose)
        yield cached


@asynccontextmanager
async def _engine_llm(
    config: EngineLLMConfig, accounting: Accounting, engine: "LocalEngine | None"
) -> AsyncIterator["EngineLLM"]:
    from multiverse.curation.llm.engine import EngineLLM
    from multiverse.curation.llm.local import LocalEngine

    if engine is not None:
        yield EngineLLM(engine, config, accounting)
        return
    async with LocalEngine(config.engine_config()) as own:
        yield EngineLLM(own, config, accounting)
