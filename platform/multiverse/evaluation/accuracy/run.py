"""The run: what is left to ask of each side, asked, graded, kept; then all of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from multiverse.evaluation.accuracy.answering import Outcome, Patience, answers, open_responder
from multiverse.evaluation.accuracy.asking import Ask, Responder
from multiverse.evaluation.accuracy.config import EndpointTarget, EvaluateConfig, Target
from multiverse.evaluation.accuracy.grading import grade_anew, graded
from multiverse.evaluation.accuracy.identity import identity
from multiverse.evaluation.accuracy.majority import majority_is_right
from multiverse.evaluation.accuracy.questions import Question, Questions, load_questions
from multiverse.evaluation.accuracy.records import Key, Record, Results, open_results
from multiverse.evaluation.accuracy.state import State
from multiverse.evaluation.grading.grader import Grader
from multiverse.telemetry.evaluation import EvaluationMeter
from multiverse.telemetry.recorders import Recorder


class Answering(Protocol):
    """Whoever gets many answers: this process or Ray."""

    def answers(self, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Outcome], None]:
        """The place in ``asks`` of each, and what came of it, as they end; one may come twice. Raises TargetError."""
        ...


Opener = Callable[[Target], AbstractAsyncContextManager[Answering]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one side's answers that are asked for now: how many are there, right and failed."""

    side: str
    done: int
    wanted: int
    correct: int
    failed: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run that is whole. records: by side and key. budgets: of each suite, in positions, with their quantiles or "".

    majorities: by side and (suite, item), whether most samples agree on the right answer. commits: of the code that
    worked on it. identities: of the sides' models.
    """

    config: EvaluateConfig
    questions: tuple[Questions, ...]
    records: Mapping[str, Mapping[Key, Record]]
    budgets: Mapping[str, Mapping[int, str]]
    majorities: Mapping[str, Mapping[tuple[str, str], bool]]
    commits: tuple[str, ...] = ()
    identities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def items(self, side: str, suite: Questions, budget: int | None = None) -> list[list[Record]]:
        """The records of each item of a suite, in their order, one per sample."""
        found = self.records[side]
        return [
            [found[suite.suite, item.id, sample, budget] for sample in range(self.config.samples)]
            for item in suite.items
        ]


async def evaluate(
    config: EvaluateConfig,
    opener: Opener | None = None,
    recorders: Mapping[str, Recorder] | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """Ask what is not answered yet, and answers that failed once more. All of it is kept under ``config.out``.

    opener: who gets the answers; default: this process. recorders: of metrics, by side. say: is told which model
    answers at an address. Raises ValueError (ConfigError, SuiteError, RecordsError, TargetError) and StorageError with
    a message for the user; what is answered by then stays.
    """
    out = Path(config.out)
    questions = tuple(load_questions(use, config.seed) for use in config.suites)
    identities = {side: await identity(target) for side, target in config.sides.items()}
    for side, target in config.sides.items():
        if isinstance(target, EndpointTarget):
            say(f"{side}: {identities[side]['model']} answers at {target.base_url}")
    state = State.open(out, config, questions, identities)
    grader = Grader()
    budgets: dict[str, dict[int, str]] = {}
    meters = {side: _Meters((recorders or {}).get(side), side, config, questions) for side in config.sides}
    for meter in meters.values():
        meter.wanted({suite.suite: _budgets(config, suite) for suite in questions})
    try:
        with ExitStack() as files:
            results = {side: files.enter_context(open_results(out / f"answers-{side}.jsonl")) for side in config.sides}
            for kept in results.values():
                await grade_anew(kept, questions, grader)
            # Budgets may be quantiles of the other model's lengths: it comes first.
            for side in reversed(list(config.sides)):
                async with AsyncExitStack() as stack:
                    asking = _Side(side, config, questions, results[side], grader, stack, opener or here(config))
                    await asking.ask({suite.suite: [None] for suite in questions}, meters[side], tell)
                    if not budgets:
                        budgets = {
                            suite.suite: state.budgets(
                                suite.suite,
                                _budgets(config, suite),
                                [results[side].records[_key(ask)] for ask in _asks(config, suite, (None,))],
                            )
                            for suite in questions
                        }
                        for meter in meters.values():
                            meter.wanted(budgets)
                    await asking.ask({suite: list(found) for suite, found in budgets.items()}, meters[side], tell)
            wanted = {_key(ask) for suite in questions for ask in _asks(config, suite, (None, *budgets[suite.suite]))}
            records = {
                side: {key: record for key, record in found.records.items() if key in wanted}
                for side, found in results.items()
            }
        majorities = {side: await _majorities(config, questions, records[side], grader) for side in config.sides}
    finally:
        grader.close()
    return Evaluated(config, questions, records, budgets, majorities, state.commits, identities)


def here(config: EvaluateConfig) -> Opener:
    """Answers that this process asks for."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncIterator[Answering]:
        async with open_responder(target) as responder:
            yield Here(responder, config)

    return opened


class Here:
    """Answers of one responder."""

    def __init__(self, responder: Responder, config: EvaluateConfig) -> None:
        self._responder = responder
        self._config = config

    def answers(self, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Outcome], None]:
        return answers(self._responder, asks, self._config.concurrency, Patience.of(self._config))


class _Side:
    """Asks one model, which is not started before there is something to ask."""

    def __init__(
        self,
        side: str,
        config: EvaluateConfig,
        questions: Sequence[Questions],
        results: Results,
        grader: Grader,
        stack: AsyncExitStack,
        opener: Opener,
    ) -> None:
        self._side, self._config, self._questions = side, config, questions
        self._results, self._grader = results, grader
        self._stack, self._opener = stack, opener
        self._answering: Answering | None = None
        self._items: dict[tuple[str, str], Question] = {
            (suite.suite, item.id): item for suite in questions for item in suite.items
        }

    async def ask(
        self, budgets: Mapping[str, Sequence[int | None]], meter: "_Meters", tell: Callable[[Progress], None]
    ) -> None:
        """Every item at these budgets of its suite."""
        wanted = [ask for suite in self._questions for ask in _asks(self._config, suite, budgets[suite.suite])]
        known = self._results.records
        for ask in wanted:
            if _key(ask) not in known and (same := _within_budget(ask, known)) is not None:
                self._results.append(same)
        there = [record for ask in wanted if (record := known.get(_key(ask))) is not None and not record.error]
        for record in there:
            meter.kept(record)
        left = [ask for ask in wanted if (record := known.get(_key(ask))) is None or record.error]
        if not left:
            return
        if self._answering is None:
            self._answering = await self._stack.enter_async_context(self._opener(self._config.sides[self._side]))
        done, correct, failed = len(there), sum(record.correct for record in there), 0
        tell(Progress(self._side, done, len(wanted), correct, failed))
        seen: set[int] = set()

        async def keep(ask: Ask, outcome: Outcome) -> None:
            nonlocal done, correct, failed
            record = await graded(ask, self._items[ask.suite, ask.item], outcome, self._grader)
            self._results.append(record)
            meter.count(record)
            done, correct, failed = done + 1, correct + record.correct, failed + bool(record.error)
            tell(Progress(self._side, done, len(wanted), correct, failed))

        try:
            async with asyncio.TaskGroup() as group, aclosing(self._answering.answers(left)) as outcomes:
                async for place, outcome in outcomes:
                    if place not in seen:
                        seen.add(place)
                        group.create_task(keep(left[place], outcome))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def _within_budget(ask: Ask, known: Mapping[Key, Record]) -> Record | None:
    """The answer without budget, if it is the answer at this budget too: it has no block and ended by itself before."""
    free = known.get((ask.suite, ask.item, ask.sample, None))
    if ask.budget is None or free is None or free.finish != "stop" or free.blocks or free.critical_path is None:
        return None
    return replace(free, budget=ask.budget) if free.critical_path <= ask.budget else None


def _budgets(config: EvaluateConfig, suite: Questions) -> Sequence[int | str]:
    return config.budgets if suite.budgets is None else suite.budgets


def _key(ask: Ask) -> Key:
    return ask.suite, ask.item, ask.sample, ask.budget


def _asks(config: EvaluateConfig, suite: Questions, budgets: Sequence[int | None]) -> list[Ask]:
    return [
        Ask(
            suite=suite.suite,
            item=item.id,
            sample=sample,
            question=item.text,
            graded_by=item.graded_by,
            seed=config.seed + sample,
            budget=budget,
            max_tokens=suite.max_tokens,
            temperature=config.sampling_temperature,
            top_p=config.top_p,
            answer_tokens=config.answer_tokens,
        )
        for budget in budgets
        for item in suite.items
        for sample in range(config.samples)
    ]


class _Meters:
    """Metrics of one side, by suite, if anybody records them."""

    def __init__(
        self, recorder: Recorder | None, side: str, config: EvaluateConfig, questions: Sequence[Questions]
    ) -> None:
        self._suites = {suite.suite: len(suite.items) * config.samples for suite in questions}
        self._meters = (
            {} if recorder is None else {suite: EvaluationMeter(recorder, side, suite) for suite in self._suites}
        )

    def wanted(self, budgets: Mapping[str, Collection[Any]]) -> None:
        """Every suite is asked without budget, and at each of its own."""
        for suite, meter in self._meters.items():
            meter.wanted(self._suites[suite] * (1 + len(budgets[suite])))

    def kept(self, record: Record) -> None:
        if (meter := self._meters.get(record.suite)) is not None:
            meter.kept(record.correct)

    def count(self, record: Record) -> None:
        if (meter := self._meters.get(record.suite)) is None:
            return
        if record.error:
            meter.failed()
        else:
            meter.answered(record.correct, record.tokens or 0, record.critical_path or 0)


async def _majorities(
    config: EvaluateConfig, questions: Sequence[Questions], records: Mapping[Key, Record], grader: Grader
) -> dict[tuple[str, str], bool]:
    found = {}
    for suite in questions:
        for item in suite.items:
            samples = [records[suite.suite, item.id, sample, None] for sample in range(config.samples)]
            found[suite.suite, item.id] = (
                samples[0].correct
                if len(samples) == 1
                else await majority_is_right(samples, grader, compare=item.graded_by == "math")
            )
    return found
