"""An engine that is given a number of threads: one process, in which blocks are joined like in two."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.integration.engine_harness import vllm_processes

if TYPE_CHECKING:
    from multiverse.engine.config import EngineConfig
    from tests.integration.engine_harness import Harness

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(engine_config: "EngineConfig", reference: Any, script: Path) -> AsyncIterator["Harness"]:
    from tests.integration.engine_harness import Harness

    harness = await Harness.start(replace(engine_config, threads=1), reference, script)
    yield harness
    await harness.engine.shutdown()


async def test_it_is_one_process_with_intels_openmp(engine: "Harness") -> None:
    (process,) = vllm_processes()
    assert "libiomp5.so" in Path(f"/proc/{process.pid}/maps").read_text()


async def test_forced_block_is_lossless(engine: "Harness") -> None:
    run = await engine.run(engine.chat("Name a fruit and a colour."), mode="force", width=3, question="Name a fruit.")
    assert len(run.result.blocks[0].branches) == 3
    comparison = engine.compared(run)
    assert comparison.tokens_compared >= 40
    assert comparison.max_abs_dlogp <= 1e-4


async def test_nothing_is_left(engine: "Harness") -> None:
    before = await engine.holdings()
    await engine.cancel(engine.request(engine.chat("Hi"), mode="force", width=3, question="Name a fruit."), after=8)
    assert await engine.holds(before) == before
