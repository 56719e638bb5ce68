"""``multiverse tasks``: generated tasks as JSON lines; and the document that shows one of each family."""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from multiverse.structure.flatten import flatten_text
from multiverse.training.families import FAMILIES, Task, generate
from multiverse.training.families.draw import Split

SPLITS: dict[str, Split] = {"train": "train", "held_out": "held_out"}
ROW = ("id", "question", "chain", "answer", "family", "splits", "expected")

_INTRODUCTION = """# Tasks

Small tasks to train and to measure with, drawn from a seed (`training/families/`):

```
multiverse tasks train.jsonl --count 7000 --split train --seed 0
multiverse tasks held_out.jsonl --count 2000 --split held_out --seed 0 --families sums,steps
```

Each row has a question, a structured chain, the final answer, and what `grade` compares an answer with. In some
families the question has two to four independent parts, each worked out in a path of its own; in the others every step
needs the one before. Both are asked about in much the same words. As many tasks come from one family as from another.

What is held out is decided problem by problem, by a hash: of all additions, subtractions, words, lists, amounts and so
on, one in five is held out, and no training task has it in its question, whatever the seed.

`--sequential` writes the chains without their structure, as input for curation. `--natural 500` adds natural questions
(`training/families/natural.py`), which a base model answers greedily, on the engine: a numbered list becomes a block, a
short answer stays as it is. They are not graded.

This file is written by `make docs`. Below, a task of each family with its worked answer, structured in the first one
and sequential in all others.
"""


CONCURRENCY = 16
LONGEST = 300
"""Tokens of a model's answer."""


def write_tasks(
    path: Path,
    families: Sequence[str] | None,
    split: str,
    count: int,
    seed: int,
    natural: int = 0,
    model: str | None = None,
    sequential: bool = False,
) -> int:
    """Tasks of some families, or of all, with up to ``natural`` questions among them that ``model`` has answered.

    sequential: write chains without their structure. Returns how many rows were written.

    Raises ValueError for a family or a split there is not.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: must be train or held_out")
    tasks = generate(families or tuple(FAMILIES), SPLITS[split], count, seed)
    if natural:
        tasks += asyncio.run(_natural(model, natural, seed, SPLITS[split]))
        random.Random(f"all {split} {seed}").shuffle(tasks)
    with path.open("w", encoding="utf-8") as lines:
        for place, task in enumerate(tasks):
            row = {"id": f"{split}-{seed}-{place}"} | asdict(task)
            if sequential:
                row["chain"] = flatten_text(task.chain)
            lines.write(json.dumps({name: row[name] for name in ROW}) + "\n")
    return len(tasks)


async def _natural(model: str | None, count: int, seed: int, split: Split) -> list[Task]:
    """What the model says to natural questions, sequentially and greedily."""
    from multiverse.config import DEFAULT_MODEL
    from multiverse.evaluation.accuracy.asking import Ask
    from multiverse.evaluation.accuracy.config import EngineTarget
    from multiverse.evaluation.accuracy.engine import EngineResponder
    from multiverse.training.families.natural import write_natural

    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(responder: EngineResponder, number: int, question: str) -> str:
        async with gate:
            ask = Ask("natural", str(number), 0, question, "exact", 0, max_tokens=LONGEST)
            response = await responder.answer(ask)
        return response.text if response.finish == "stop" else ""

    async with EngineResponder(EngineTarget(model=model or DEFAULT_MODEL, mode="off")) as responder:

        async def answers(questions: Sequence[str]) -> list[str]:
            return await asyncio.gather(*(one(responder, number, text) for number, text in enumerate(questions)))

        return await write_natural(answers, count, seed, split)


def document() -> str:
    """`docs/tasks.md`."""
    sections = [_INTRODUCTION]
    for name, family in FAMILIES.items():
        (task,) = generate([name], "train", 1, 0)
        about = f"{family.about}{'' if family.splits else ' It does not split.'}"
        answer = task.sequential if len(sections) > 1 else task.text
        sections.append(f"## {name}\n\n{about}\n\n> {task.question}\n\n```\n{answer}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    sys.stdout.write(document())
