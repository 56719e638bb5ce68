"""``multiverse evaluate``: models on generated tasks, each beside its twin."""

import asyncio
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from multiverse.engine.config import AFTERGLOW
from multiverse.evaluation.commands import show_table
from multiverse.evaluation.generated import Answered, answer, answer_all, difference, start_engine, table
from multiverse.training.families import FAMILIES, Task, generate

SUITES = ("generated",)


def run(
    model: str,
    against: str | None,
    suite: str,
    count: int,
    seed: int,
    concurrency: int,
    max_tokens: int,
    speed_pairs: int,
    out: Path | None,
) -> dict[str, Any]:
    """The report. against: a sequential model that answers the same tasks. speed_pairs: tasks that both answer one at
    a time, in turn. out: a folder where answers are kept, and from which a run goes on.

    Raises ValueError for a suite there is not and for models that cannot be used.
    """
    if suite not in SUITES:
        raise ValueError(f"there is no suite {suite!r}: there are {', '.join(SUITES)}")
    tasks = generate(tuple(FAMILIES), "held_out", count, seed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_run(model, against, tasks, concurrency, max_tokens, speed_pairs, out))


async def _run(
    model: str,
    against: str | None,
    tasks: Sequence[Task],
    concurrency: int,
    max_tokens: int,
    speed_pairs: int,
    out: Path | None,
) -> dict[str, Any]:
    ours = await start_engine(model)
    theirs = None
    try:
        mode = "auto" if ours.manifest.trained else "off"
        answers = await _answers(ours, tasks, mode, concurrency, max_tokens, _file(out, "answers"))
        report: dict[str, Any] = {"model": model, "mode": mode, "table": table(answers)}
        show_table(f"{model}, {mode}", report["table"])
        if against is not None:
            theirs = await start_engine(against)
            other = await _answers(theirs, tasks, "off", concurrency, max_tokens, _file(out, "against"))
            report |= {"against": against, "table_against": table(other), "difference": difference(answers, other)}
            show_table(f"{against}, off", report["table_against"])
            if speed_pairs:
                splitting = [(number, task) for number, task in enumerate(tasks) if task.splits][:speed_pairs]
                report["speed"] = await _speed(ours, theirs, mode, splitting, max_tokens)
                show_table("One request at a time", [report["speed"]])
            show_table("Solved, first minus second", [report["difference"]])
        return report
    finally:
        await ours.shutdown()
        if theirs is not None:
            await theirs.shutdown()


async def _answers(
    engine: Any, tasks: Sequence[Task], mode: str, concurrency: int, max_tokens: int, path: Path | None
) -> list[Answered]:
    done = {}
    if path is not None and path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        done = {item.number: item for item in (Answered(**json.loads(line)) for line in lines)}
    if path is None:
        return await answer_all(engine, tasks, mode, concurrency, max_tokens)
    with path.open("a", encoding="utf-8") as file:

        def keep(item: Answered) -> None:
            file.write(json.dumps(item.to_dict()) + "\n")
            file.flush()

        return await answer_all(engine, tasks, mode, concurrency, max_tokens, done, keep)


def _file(out: Path | None, name: str) -> Path | None:
    return out / f"{name}.jsonl" if out is not None else None


async def _speed(
    ours: Any, theirs: Any, mode: str, tasks: Sequence[tuple[int, Task]], max_tokens: int
) -> dict[str, Any]:
    """Seconds at batch 1, in turn; the median of the ratios, and of those per token."""

    ratios, per_token, x = [], [], []
    for number, task in tasks:
        await asyncio.sleep(AFTERGLOW)
        first = await answer(ours, number, task, mode, max_tokens)
        await asyncio.sleep(AFTERGLOW)
        second = await answer(theirs, number, task, "off", max_tokens)
        ratios.append(second.seconds / first.seconds)
        per_token.append(second.seconds / second.tokens / (first.seconds / first.tokens))
        x.append(first.parallelism)
    return {
        "pairs": len(ratios),
        "speed_up": statistics.median(ratios),
        "speed_up_per_token": statistics.median(per_token),
        "x": statistics.mean(x),
    }


def end(report: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Write and print what `run` gave."""
    if out is not None:
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(report))
