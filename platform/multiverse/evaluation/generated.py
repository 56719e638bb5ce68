"""Generated tasks, answered by a served model: is the structure right, and is the answer?"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multiverse.engine.segment import Sampling
from multiverse.evaluation.statistics import compare
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.whole import WholeEngine
from multiverse.structure.grammar import is_document
from multiverse.training.families import Task, grade


@dataclass(frozen=True, slots=True)
class Answered:
    """One task's answer. valid: passes the strict parser and ended by itself, without a fallback. seconds: wall time.

    parallelism, critical_path: of the answer, in tokens and positions.
    """

    number: int
    family: str
    splits: bool
    correct: bool
    parallel: bool
    valid: bool
    width: int
    expected_width: int
    tokens: int
    critical_path: int
    parallelism: float
    seconds: float
    text: str

    @classmethod
    def of(cls, number: int, task: Task, result: Result, text: str, seconds: float) -> "Answered":
        return cls(
            number=number,
            family=task.family,
            splits=task.splits,
            correct=grade(task.expected, text),
            parallel=bool(result.blocks),
            valid=result.finish == "stop" and not result.fallbacks and is_document(text),
            width=len(result.blocks[0].branches) if result.blocks else 0,
            expected_width=task.width,
            tokens=len(result.tokens),
            critical_path=result.critical_path,
            parallelism=result.parallelism,
            seconds=seconds,
            text=text,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


async def start_engine(model: str) -> Any:
    """An engine in this process, large enough for tasks and their answers."""
    from multiverse.config import AppConfig
    from multiverse.serving.local import MultiverseEngine

    options = {"max_model_len": 2048, "kv_cache_gib": 1.0, "self_test": False}
    config = AppConfig.of({"model": model, "engine": options})
    return await MultiverseEngine.start(await asyncio.to_thread(config.engine_config))


async def ask(engine: WholeEngine, id: str, question: str, mode: str, max_tokens: int) -> tuple[Result, str]:
    """One greedy answer, and its text without what ended it."""
    request = GenerationRequest(
        id=id,
        prompt=tuple(engine.tokens.chat([{"role": "user", "content": question}])),
        sampling=Sampling(max_tokens, temperature=0.0),
        parallel=ParallelOptions(mode=mode, max_depth=3),  # type: ignore[arg-type]
        question=question,
        cache_salt="tasks" if mode != "off" else "tasks off",
    )
    result: Result | None = None
    async for event in engine.generate(request):
        if isinstance(event, Finished):
            result = event.result
    if result is None:
        raise RuntimeError(f"{id} ended without a result")
    return result, engine.tokens.decode([id for id in result.tokens if id not in engine.tokens.eos_ids])


async def answer(engine: WholeEngine, number: int, task: Task, mode: str, max_tokens: int) -> Answered:
    """The answer to a task."""
    begun = time.perf_counter()
    result, text = await ask(engine, f"task-{number}-{begun}", task.question, mode, max_tokens)
    return Answered.of(number, task, result, text, time.perf_counter() - begun)


async def answer_all(
    engine: WholeEngine,
    tasks: Sequence[Task],
    mode: str,
    concurrency: int,
    max_tokens: int,
    done: Mapping[int, Answered] | None = None,
    tell: Callable[[Answered], None] = lambda _: None,
) -> list[Answered]:
    """Answers to all ``tasks``, in order; those in ``done`` are taken as they are."""
    gate, answered = asyncio.Semaphore(concurrency), dict(done or {})

    async def one(number: int, task: Task) -> None:
        if number not in answered:
            async with gate:
                answered[number] = await answer(engine, number, task, mode, max_tokens)
            tell(answered[number])

    await asyncio.gather(*(one(number, task) for number, task in enumerate(tasks)))
    return [answered[number] for number in range(len(tasks))]


def table(answers: Sequence[Answered]) -> list[dict[str, Any]]:
    """A row for each family, and for all that split, all that do not, and all."""
    families = sorted({item.family for item in answers}, key=lambda name: (not _splits(answers, name), name))
    rows = [_row(name, [item for item in answers if item.family == name]) for name in families]
    rows.append(_row("all that split", [item for item in answers if item.splits]))
    rows.append(_row("all that do not", [item for item in answers if not item.splits]))
    rows.append(_row("all", answers))
    return [row for row in rows if row["tasks"]]


def _splits(answers: Sequence[Answered], family: str) -> bool:
    return next(item.splits for item in answers if item.family == family)


def _row(name: str, items: Sequence[Answered]) -> dict[str, Any]:
    split = [item for item in items if item.parallel]
    return {
        "family": name,
        "tasks": len(items),
        "solved": _share(item.correct for item in items),
        "parallel": _share(item.parallel for item in items),
        "valid": _share(item.valid for item in split),
        "right_width": _share(item.width == item.expected_width for item in split),
        "x": statistics.mean(item.parallelism for item in items) if items else 0.0,
        "tokens": statistics.mean(item.tokens for item in items) if items else 0.0,
    }


def _share(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def difference(ours: Sequence[Answered], theirs: Sequence[Answered], seed: int = 0) -> dict[str, float]:
    """Solved, ours minus theirs, in points, over the same tasks; 95 % interval by paired bootstrap."""
    found = compare([item.correct for item in ours], [item.correct for item in theirs], seed)
    points = found.points
    return {
        "points": points.value,
        "low": points.low,
        "high": points.high,
        "p_value": found.p_value,
        "tasks": float(len(ours)),
    }
