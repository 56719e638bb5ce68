"""One of Ray Data's actors: parts of the input to parts of the output, many rows at a time."""

import asyncio
import json
import threading
import weakref
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from multiverse.config import short_name
from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import read_part
from multiverse.curation.job.records import Done, Record, curated_record, dead_record, write_part
from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import LLM, EndpointError
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import EngineLLMConfig
from multiverse.curation.stages.conversation import Asking
from multiverse.curation.stages.independence import Scorer
from multiverse.curation.stages.modes import MODES
from multiverse.curation.stages.outcome import Curated, RowRejectedError, Spent
from multiverse.curation.stages.settings import Settings
from multiverse.storage import open_folder
from multiverse.telemetry.curation import CurationMeter
from multiverse.telemetry.export import build_ray
from multiverse.training.rows import Row

PARTS_AT_ONCE = 4
"""Per worker: while the last rows of a part are waited for, rows of the next are under way."""
CLOSING_SECONDS = 90.0


async def curate_row(row: Row, llm: LLM, config: CurateConfig, spent: Spent, scorer: Scorer | None = None) -> Curated:
    """One row. Raises RowRejectedError, and EndpointError if the LLM takes no calls."""
    stages = config.stages
    asking = Asking(stages.tries, stages.max_tokens, config.llm.temperature)
    settings = Settings(asking, stages.min_saving, stages.rewrite_openings, stages.max_gap)
    curated = await MODES[stages.mode].curate(row.question, row.chain, llm, settings, spent, scorer)
    if not curated.figures.structure.blocks and stages.sequential == "drop":
        raise RowRejectedError("groups", "nothing in it can run in parallel")
    return curated


@dataclass(frozen=True, slots=True)
class Report:
    """A part that is done, or that ``refused`` ("" if not) kept from it: why the LLM takes no calls.

    accounting: the worker's so far, by stage.
    """

    part: int
    curated: int
    dead: int
    refused: str
    worker: str
    accounting: dict[str, Any]


class Worker:
    """Ray Data calls it from `PARTS_AT_ONCE` threads; all rows are on the one event loop of a thread of its own."""

    def __init__(self, values: dict[str, Any], workers: int) -> None:
        self._config = CurateConfig.of(values)
        self._llm_config = self._config.llm.share(workers)
        self._id = uuid4().hex
        self._accounting = Accounting()
        self._meter = CurationMeter(build_ray(short_name(self._llm_config.model)))
        self._folder = open_folder(self._config.out)
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        # When Ray Data lets go of the worker, or else before the process ends. Not __del__: where that comes last of
        # all, the loop's thread does not run any more, and the process would wait for it without end.
        weakref.finalize(self, _close, self._loop, self._open)
        self._llm, self._scorer = self._run(self._start())
        self._gate = self._run(_gate(self._config.workers.rows_at_once or self._llm_config.concurrency))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """batch: numbers of parts. Gives per part JSON of a `Report`."""
        return {"report": [json.dumps(asdict(self._report(int(part)))) for part in batch["part"]]}

    def _report(self, part: int) -> Report:
        curated = dead = 0
        refused = ""
        try:
            done: Done = self._run(self._part(part))
            curated, dead = done.curated, done.dead
        except EndpointError as error:
            refused = str(error)
        return Report(part, curated, dead, refused, self._id, self._accounting.report()["stages"])

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

    async def _part(self, part: int) -> Done:
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
        spent, mode = Spent(), self._config.stages.mode
        async with self._gate:
            try:
                curated = await curate_row(row, self._llm, self._config, spent, self._scorer)
            except RowRejectedError as rejected:
                self._meter.row(rejected.stage, "retryable" if rejected.retryable else "rejected")
                return False, dead_record(row, rejected, spent)
            finally:
                self._meter.llm(self._accounting.stages)
        self._meter.row(MODES[mode].STAGES[-1], "curated")
        return True, curated_record(row, curated, spent, mode, MODES[mode].VERSION)


def _close(loop: asyncio.AbstractEventLoop, opened: AsyncExitStack) -> None:
    """Stop engines and clients, then the loop."""
    try:
        asyncio.run_coroutine_threadsafe(opened.aclose(), loop).result(CLOSING_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)


async def _gate(rows: int) -> asyncio.Semaphore:
    return asyncio.Semaphore(rows)


def _first(errors: BaseExceptionGroup[Exception]) -> BaseException:
    """One of them; an `EndpointError` if there is any."""
    refused, others = errors.split(EndpointError)
    group: BaseException = refused or others or errors
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
