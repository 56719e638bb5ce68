"""Many answers graded at the same time, in processes of their own, each within a time limit."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from multiverse.evaluation.grading.extraction import extract, extract_choice
from multiverse.evaluation.grading.judge import COMPARE_SECONDS, PARSE_SECONDS, equal
from multiverse.evaluation.suites.registry import Grading

LONGEST = 2 * (2 * PARSE_SECONDS + COMPARE_SECONDS)
"""Seconds after which a comparison that even its own limits did not end is given up, and its process with it."""


@dataclass(frozen=True, slots=True)
class Grade:
    """answer: what was extracted, by ``rule``. note: why it could not be compared, "" if it was."""

    correct: bool
    answer: str
    rule: str
    note: str = ""


class Grader:
    """Grades responses. math-verify ends what takes too long by signals, which only a process's main thread gets."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._pool = self._start()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        """Whether two answers are equal, and why that could not be said ("" if it could)."""
        pool = self._pool
        try:
            work = asyncio.get_running_loop().run_in_executor(pool, _equal, answer, reference)
            return await asyncio.wait_for(work, LONGEST)
        except (TimeoutError, BrokenProcessPool) as error:
            if pool is self._pool:  # the first to notice
                self._pool = self._start()
                for process in list((pool._processes or {}).values()):
                    process.kill()
                pool.shutdown(wait=False, cancel_futures=True)
            return False, f"the comparison was given up: {type(error).__name__}"

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, mp_context=multiprocessing.get_context("spawn"))


def _equal(answer: str, reference: str) -> tuple[bool, str]:
    try:
        return equal(answer, reference), ""
    except Exception as error:  # sympy raises anything at all for what it cannot read
        return False, f"could not be compared: {type(error).__name__}: {error}"[:200]
