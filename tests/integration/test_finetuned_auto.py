"""A model trained for ten minutes, served in mode ``auto``: it goes parallel where a question splits, and only there.

Its arithmetic is often wrong after so little training: what is looked at is structure.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from multiverse.structure.grammar import is_document
from tests.integration.sums import CHAINED, SPLITTING, TRAINING, Task

if TYPE_CHECKING:
    from tests.integration.engine_harness import Harness, Run

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

TRAINING_SECONDS = 600
LOSSLESS = 1e-4
"""Largest |difference of log-probabilities| in float32."""


@dataclass(frozen=True)
class Served:
    """The running engine, and its answers to the questions held out of training."""

    engine: "Harness"
    splitting: list["Run"]
    chained: list["Run"]

    @property
    def parallel(self) -> list["Run"]:
        """Answers with a block, to questions that split."""
        return [run for run in self.splitting if run.result.blocks]


@pytest.fixture(scope="module")
def trained_model(builtin_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tests.integration.finetune import finetune

    target = tmp_path_factory.mktemp("trained") / "model"
    try:
        print(finetune(builtin_model, target, TRAINING, seconds=TRAINING_SECONDS))
        yield target
    finally:
        # pytest would keep the weights, 270 MB, of its last three runs.
        shutil.rmtree(target, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(trained_model: Path) -> AsyncIterator[Served]:
    from multiverse.engine.config import EngineConfig
    from multiverse.models.reference import load_reference
    from tests.integration.engine_harness import Harness

    config = EngineConfig(
        model=trained_model,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_model_len=2048,
        kv_cache_bytes=2**30,
    )
    harness = await Harness.start(config, load_reference(trained_model), trained_model / "no-script")
    try:
        yield Served(harness, await _answers(harness, SPLITTING), await _answers(harness, CHAINED))
    finally:
        await harness.engine.shutdown()


async def _answers(harness: "Harness", tasks: list[Task]) -> list["Run"]:
    """Greedy answers, eight at a time."""
    gate = asyncio.Semaphore(8)

    async def answer(task: Task) -> "Run":
        async with gate:
            return await harness.run(harness.chat(task.question), max_tokens=600, mode="auto")

    return list(await asyncio.gather(*map(answer, tasks)))


async def test_questions_that_split_are_answered_in_parallel(served: Served) -> None:
    valid = [run for run in served.parallel if is_document(run.text) and run.result.finish == "stop"]
    assert len(served.splitting) == 40
    assert len([run for run in valid if not run.result.fallbacks]) >= 36


async def test_questions_that_do_not_split_are_answered_in_sequence(served: Served) -> None:
    assert len(served.chained) == 20
    plain = [run for run in served.chained if not run.result.blocks and run.result.finish == "stop"]
    assert len([run for run in plain if not run.result.fallbacks and "<" not in run.text]) >= 18


async def test_parallel_answers_have_fewer_positions_than_tokens(served: Served) -> None:
    assert len(served.parallel) >= 36
    assert min(run.result.parallelism for run in served.parallel) > 1.2


async def test_blocks_that_the_model_opened_are_lossless(served: Served) -> None:
    compared = [served.engine.compared(run) for run in served.parallel[:4]]
    assert [comparison.unequal for comparison in compared] == [[], [], [], []]
    assert sum(comparison.tokens_compared for comparison in compared) >= 400
    assert max(comparison.max_abs_dlogp for comparison in compared) <= LOSSLESS
