"""Answers that Ray Data's actors get, each with an engine of its own or connections to the server.

Actors hand each answer to the run as soon as it is there, through a queue: what is lost with an actor is only what it
was working on, and that is asked again.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

from multiverse.evaluation.accuracy.answering import Outcome, Patience, answers, open_responder
from multiverse.evaluation.accuracy.asking import Ask, Responder, Response, TargetError
from multiverse.evaluation.accuracy.config import EvaluateConfig, Target
from multiverse.evaluation.accuracy.run import Answering, Opener

PARTS_AT_ONCE = 3
"""Per worker: while the last answers of a part are waited for, those of the next are under way."""
_LOOK = 0.5
"""Seconds."""


def on_ray(config: EvaluateConfig) -> Opener:
    """Answers from workers on the Ray cluster that this process is connected to."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncIterator[Answering]:
        yield Workers(target, config)

    return opened


class Workers:
    """`Answering` by Ray Data. Its actors live as long as one call of `answers`."""

    def __init__(self, target: Target, config: EvaluateConfig) -> None:
        self._target = target
        self._config = config

    async def answers(self, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Outcome], None]:
        from ray.util.queue import Empty, Queue

        queue = Queue(actor_options={"num_cpus": 0})
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._work(asks, queue)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        left = set(range(len(asks)))
        try:
            while left:
                ended = not thread.is_alive()
                try:
                    place, outcome = _read(await asyncio.to_thread(queue.get, True, _LOOK))
                except Empty:
                    if ended:
                        raise (errors or [RuntimeError("the workers ended without all answers")])[0] from None
                    continue
                left.discard(place)
                yield place, outcome
            await asyncio.to_thread(thread.join)
        finally:
            queue.shutdown(force=True)

    def _work(self, asks: Sequence[Ask], queue: Any) -> None:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        size, workers = self._config.concurrency, self._config.workers
        numbered = list(enumerate(asks))
        parts = [numbered[start : start + size] for start in range(0, len(asks), size)]
        rows = [{"part": json.dumps([(place, asdict(ask)) for place, ask in part])} for part in parts]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(parts)),
                max_tasks_in_flight_per_actor=PARTS_AT_ONCE,
                max_concurrent_calls_per_actor=PARTS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(self._target, self._config, queue),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus or None,
        )
        for row in dataset.iter_rows():
            if row["refused"]:
                raise TargetError(row["refused"])


class Worker:
    """Ray Data calls it from `PARTS_AT_ONCE` threads; all answers are on the one event loop of a thread of its own."""

    def __init__(self, target: Target, config: EvaluateConfig, queue: Any) -> None:
        self._config = config
        self._queue = queue
        self._refused = ""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._responder: Responder | None = None
        try:
            responder = open_responder(target)
            self._run(responder.__aenter__())
            self._responder = responder
        except ValueError as error:  # worth no other actor: the model or the server is not to be had
            self._refused = str(error)
        self._gate = asyncio.Semaphore(config.concurrency)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """batch: JSON of asks with their places. Gives per part why the target refuses, "" if it does not."""
        return {"refused": [self._refused or self._run(self._part(str(part))) for part in batch["part"]]}

    def __del__(self) -> None:
        """Ray Data lets go of a worker before its process ends: then engines stop."""
        if self._loop.is_running():
            if self._responder is not None:
                self._run(self._responder.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _part(self, part: str) -> str:
        assert self._responder is not None
        placed = [(place, Ask(**values)) for place, values in json.loads(part)]
        found = answers(self._responder, [ask for _, ask in placed], len(placed), Patience.of(self._config), self._gate)
        try:
            async with aclosing(found):
                async for number, outcome in found:
                    line = json.dumps({"place": placed[number][0], "outcome": asdict(outcome)})
                    await self._queue.put_async(line)
        except TargetError as error:
            return str(error)
        return ""

    def _run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()


def _read(line: str) -> tuple[int, Outcome]:
    values = json.loads(line)
    outcome = values["outcome"]
    response = outcome["response"]
    if response is not None:
        response = Response(**response | {"fallbacks": tuple(response["fallbacks"])})
    return values["place"], Outcome(**outcome | {"response": response})
