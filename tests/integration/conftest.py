"""A real vLLM with the builtin model in float32, whose tokens a test may dictate."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from multiverse.engine.config import EngineConfig
    from tests.integration.engine_harness import Harness


@pytest.fixture(scope="session")
def builtin_model() -> Path:
    """The builtin model, prepared once and for all runs."""
    from multiverse.models.prepare import prepare

    return prepare("builtin:smollm2-135m")


@pytest.fixture(scope="session")
def reference(builtin_model: Path) -> Any:
    """The same model in transformers, float32."""
    from multiverse.models.reference import load_reference

    return load_reference(builtin_model)


@pytest.fixture(scope="session")
def engine_config(builtin_model: Path) -> "EngineConfig":
    from multiverse.engine.config import EngineConfig

    return EngineConfig(
        model=builtin_model,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_model_len=2048,
        kv_cache_bytes=512 * 2**20,
        logits_processors=("tests.integration.scripted:ScriptedTokens",),
    )


@pytest.fixture(scope="module")
def script(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file with the dictated tokens, told to vLLM's processes, which find this folder's code by PYTHONPATH."""
    path = tmp_path_factory.mktemp("script") / "script.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIVERSE_SCRIPT", str(path))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root / "platform"), str(root)]))
        yield path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(engine_config: "EngineConfig", reference: Any, script: Path) -> AsyncIterator["Harness"]:
    """One engine for the module's tests, which passed its self-test."""
    from tests.integration.engine_harness import Harness

    harness = await Harness.start(engine_config, reference, script)
    yield harness
    await harness.engine.shutdown()


@pytest.fixture
def engine(started: "Harness") -> Iterator["Harness"]:
    """The module's engine, which nobody dictates anything yet."""
    started.say_nothing()
    yield started
    started.say_nothing()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium; without it the test is skipped."""
    from tests.integration.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The page's address, over an engine that is told what to say."""
    from tests.integration.page_server import serving

    with serving() as url:
        yield url


@pytest.fixture
def page(browser: "Browser", url: str) -> Iterator["Page"]:
    """The page, connected; at the end, nothing went wrong in it."""
    from tests.integration.browser import connected, watched

    with watched(browser, url) as page:
        yield connected(page)
