"""Many answers graded at the same time, in processes of their own, each within limits of time and memory."""

import asyncio
import multiprocessing
import resource
from dataclasses import dataclass

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from multiverse.evaluation.grading.extraction import extract, extract_choice
from multiverse.evaluation.grading.judge import equal
from multiverse.evaluation.suites.registry import Grading

COMPARE_SECONDS = 10.0
"""Of one comparison, counted from when a process takes it up: waiting for a free process does not count."""
COMPARE_MEMORY = 2 * 1024**3
"""Bytes of address space that a process may take; a power like 9^(9^9) has no other end."""

STARTS = 3
"""How often processes are started again for one comparison, where they end without having begun it."""


@dataclass(frozen=True, slots=True)
class Grade:
    """answer: what was extracted, by ``rule``. note: why it could not be compared, "" if it was."""

    correct: bool
    answer: str
    rule: str
    note: str = ""


class Grader:
    """Grades responses. Processes start with the first comparison; one that dies or takes too long is replaced."""

    def __init__(
        self, processes: int = 1, seconds: float = COMPARE_SECONDS, memory_bytes: int = COMPARE_MEMORY
    ) -> None:
        """seconds, memory_bytes: limits of one comparison."""
        self._processes, self._seconds, self._memory = processes, seconds, memory_bytes
        self._closed = False
        self._pending: set[ProcessFuture[tuple[bool, str]]] = set()
        self._pool = self._start()

    def close(self) -> None:
        """Ends the processes; comparisons that wait are then "not equal", with a note."""
        self._closed = True
        for future in list(self._pending):
            future.cancel()
        self._pool.stop()
        self._pool.join()

    async def grade(self, response: str, reference: str, grading: Grading) -> Grade:
        """Whether ``response`` gives the answer ``reference``."""
        found = extract_choice(response) if grading == "choice" else extract(response)
        if grading == "choice":
            return Grade(found.answer == reference.strip().upper() != "", found.answer, found.rule)
        if grading == "exact" or not found.answer:
            return Grade(found.answer == reference.strip() != "", found.answer, found.rule)
        correct, note = await self.equal(found.answer, reference)
        return Grade(correct, found.answer, found.rule, note)

    async def equal(self, answer: str, reference: str) -> tuple[bool, str]:
        """Whether two answers are equal, and why that could not be said ("" if it could).

        Raises RuntimeError if the processes that compare cannot be started: then nothing can be graded.
        """
        broken: RuntimeError | None = None
        for _ in range(STARTS):
            if self._closed:
                return False, "the comparison was given up: the grader was closed"
            pool = self._pool
            try:
                return await self._compare(pool, answer, reference)
            except RuntimeError as error:  # the pool's: what a comparison raises is a note
                broken = error
                if pool is self._pool and not self._closed:  # the first to notice
                    self._pool = self._start()
        raise RuntimeError(f"processes that compare answers do not start: {broken}")

    async def _compare(self, pool: ProcessPool, answer: str, reference: str) -> tuple[bool, str]:
        # Its time counts from when a process has taken it.
        future = pool.schedule(_equal, args=(answer, reference), timeout=self._seconds)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        try:
            return await asyncio.wrap_future(future)
        except TimeoutError:
            return False, f"the comparison was given up after {self._seconds:g} s"
        except ProcessExpired as error:
            return False, f"the comparison ended its process (exit code {error.exitcode})"
        except asyncio.CancelledError:
            if not self._closed or (task := asyncio.current_task()) is None or task.cancelling():
                raise  # the caller is cancelled, not the comparison
            return False, "the comparison was given up: the grader was closed"

    def _start(self) -> ProcessPool:
        return ProcessPool(
            self._processes,
            initializer=_prepare,
            initargs=(self._memory,),
            context=multiprocessing.get_context("spawn"),
        )


def _prepare(memory_bytes: int) -> None:
    """In a new process: what comparisons need is imported, and sympy's tables are filled, before any time counts."""
    for answer, reference in ((r"\sqrt{8}", r"2\sqrt{2}"), ("(x+1)^2", "x^2+2x+1"), ("3.14159", r"\pi")):
        equal(answer, reference)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _equal(answer: str, reference: str) -> tuple[bool, str]:
    try:
        return equal(answer, reference), ""
    except Exception as error:  # sympy raises anything at all for what it cannot read, MemoryError included
        return False, f"could not be compared: {type(error).__name__}: {error}"[:200]
