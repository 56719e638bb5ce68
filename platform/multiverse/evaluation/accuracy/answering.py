"""Many answers at the same time, each asked for until it is there or given up."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from multiverse.evaluation.accuracy.asking import AnswerError, Ask, Responder, Response
from multiverse.evaluation.accuracy.config import EndpointTarget, EvaluateConfig, Target

_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long an answer is asked for. Seconds."""

    attempts: int
    backoff: float
    deadline: float

    @classmethod
    def of(cls, config: EvaluateConfig) -> "Patience":
        return cls(config.attempts, config.backoff_seconds, config.deadline_seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, or why there is none. attempts: those that failed, and the one that did not."""

    response: Response | None
    attempts: int
    error: str = ""


def open_responder(target: Target) -> Responder:
    """Who answers for ``target``, not started yet. Raises ConfigError."""
    if isinstance(target, EndpointTarget):
        from multiverse.evaluation.accuracy.endpoint import EndpointResponder

        return EndpointResponder(target)
    from multiverse.evaluation.accuracy.engine import EngineResponder

    return EngineResponder(target)


async def patiently(responder: Responder, ask: Ask, patience: Patience) -> Outcome:
    """Ask until there is an answer, ``patience`` ends, or no attempt can help. Raises TargetError."""
    begun, attempts, failures = time.monotonic(), 0, 0
    while True:
        attempts += 1
        scope = asyncio.timeout(max(0.0, begun + patience.deadline - time.monotonic()))
        try:
            async with scope:
                return Outcome(await responder.answer(ask), attempts)
        except TimeoutError:
            if not scope.expired():
                raise
            return Outcome(None, attempts, f"no answer in {patience.deadline:g} s")
        except AnswerError as error:
            failures += error.counts
            backoff = min(_LONGEST_PAUSE, patience.backoff * 2 ** min(attempts - 1, 16)) * random.uniform(0.5, 1.5)
            pause = backoff if error.pause is None else max(error.pause, min(backoff, 1.0))
            late = time.monotonic() + pause - begun > patience.deadline
            if not error.retryable or failures >= patience.attempts or late:
                return Outcome(None, attempts, str(error) or type(error).__name__)
        await asyncio.sleep(pause)


async def answers(
    responder: Responder,
    asks: Sequence[Ask],
    concurrency: int,
    patience: Patience,
    gate: asyncio.Semaphore | None = None,
) -> AsyncGenerator[tuple[int, Outcome], None]:
    """The place in ``asks`` of each, and what came of it, as they end. Raises TargetError, and gives up the rest.

    gate: shared with other calls, and held while an answer is asked for.
    """
    held = gate or asyncio.Semaphore(concurrency)
    done: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
    places = iter(range(len(asks)))

    async def work() -> None:
        for place in places:
            async with held:
                outcome = await patiently(responder, asks[place], patience)
            done.put_nowait((place, outcome))

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(asks)))]
    try:
        for _ in asks:
            getting = asyncio.ensure_future(done.get())
            while not getting.done():
                running = [worker for worker in workers if not worker.done()]
                await asyncio.wait((getting, *running), return_when=asyncio.FIRST_COMPLETED)
                for worker in workers:
                    if worker.done():
                        worker.result()
            yield getting.result()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
