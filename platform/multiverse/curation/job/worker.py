"""One of Ray Data's actors: parts of the input to parts of the output, many rows at a time."""

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import read_part
from multiverse.curation.job.records import Record, curated_record, dead_record, write_part
from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import LLM
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import EngineLLMConfig
from multiverse.curation.stages import anchored
from multiverse.curation.stages.anchored import Scorer, Settings
from multiverse.curation.stages.conversation import Asking
from multiverse.curation.stages.outcome import Curated, RowRejectedError, Spent
from multiverse.storage import open_folder
from multiverse.training.rows import Row

PARTS_AT_ONCE = 4
"""Per worker: while the last rows of a part are waited for, rows of the next are under way."""


async def curate_row(row: Row, llm: LLM, config: CurateConfig, spent: Spent, scorer: Scorer | None = None) -> Curated:
    """One row. Raises RowRejectedError, and EndpointError if the LLM takes no calls."""
    stages = config.stages
    asking = Asking(stages.tries, stages.max_tokens, config.llm.temperature)
    settings = Settings(asking, stages.min_saving, stages.rewrite_openings, stages.max_gap)
    curated = await anchored.curate(row.question, row.chain, llm, settings, spent, scorer)
    if not curated.figures.structure.blocks and stages.sequential == "drop":
        raise RowRejectedError("groups", "nothing in it can run in parallel")
    return curated


class Worker:
    """Ray Data calls it from `PARTS_AT_ONCE` threads; all rows are on the one event loop of a thread of its own."""

    def __init__(self, values: dict[str, Any], workers: int) -> None:
        self._config = CurateConfig.of(values)
        self._llm_config = self._config.llm.share(workers)
        self._id = uuid4().hex
        self._accounting = Accounting()
        self._folder = open_folder(self._config.out)
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._llm, self._scorer = self._run(self._start())
        self._gate = self._run(_gate(self._config.workers.rows_at_once or self._llm_config.concurrency))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """batch: numbers of parts. Gives per part what it came to, and this worker's accounting so far."""
        done = [self._run(self._part(int(part))) for part in batch["part"]]
        return {
            "part": [one.part for one in done],
            "curated": [one.curated for one in done],
            "dead": [one.dead for one in done],
            "worker": [self._id for _ in done],
            "accounting": [asdict(self._accounting) for _ in done],
        }

    async def _start(self) -> tuple[LLM, Scorer | None]:
        """LLM and independence check; on one engine where they are the same model."""
        scorer_config, engine = self._config.independence, None
        if scorer_config is not None:
            from multiverse.curation.checks.independence import IndependenceScorer
            from multiverse.curation.llm.local import LocalEngine

            engine = await self._open.enter_async_context(LocalEngine(scorer_config.engine_config()))
        shared = None
        if scorer_config is not None and isinstance(self._llm_config, EngineLLMConfig):
            shared = engine if self._llm_config.engine_config() == scorer_config.engine_config() else None
        llm = await self._open.enter_async_context(open_llm(self._llm_config, self._accounting, shared))
        return llm, None if engine is None else IndependenceScorer(engine)

    def _run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    async def _part(self, part: int) -> Any:
        rows = await asyncio.to_thread(read_part, self._folder, part)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._row(row)) for row in rows]
        except* Exception as errors:
            raise _first(errors) from None
        found = [task.result() for task in tasks]
        curated = [record for is_curated, record in found if is_curated]
        dead = [record for is_curated, record in found if not is_curated]
        return await asyncio.to_thread(write_part, self._folder, part, curated, dead)

    async def _row(self, row: Row) -> tuple[bool, Record]:
        spent, stages = Spent(), self._config.stages
        async with self._gate:
            try:
                curated = await curate_row(row, self._llm, self._config, spent, self._scorer)
            except RowRejectedError as rejected:
                return False, dead_record(row, rejected, spent)
        return True, curated_record(row, curated, spent, stages.mode, anchored.VERSION)


async def _gate(rows: int) -> asyncio.Semaphore:
    return asyncio.Semaphore(rows)


def _first(errors: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
