"""Two engines in turn, one request at a time: how much faster is an answer that goes parallel?"""

import asyncio
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiverse.engine.config import AFTERGLOW
from multiverse.evaluation.accuracy.asking import Ask, Response
from multiverse.evaluation.accuracy.config import GENERATED, EngineTarget, EvaluateConfig
from multiverse.evaluation.accuracy.engine import EngineResponder
from multiverse.evaluation.accuracy.questions import Question, load_questions
from multiverse.evaluation.facts import run_facts


async def measure_pairs(config: EvaluateConfig) -> dict[str, Any]:
    """Seconds at batch 1 of the first ``speed_pairs`` generated tasks that split: medians of the ratios, and mean x.

    Measured once per run for the same tasks; ``facts`` are those of the measurement.
    """
    kept = Path(config.out) / f"speed-{config.speed_pairs}.json"
    suite = next(use for use in config.suites if use.name == GENERATED)
    found = load_questions(suite, config.seed)
    tasks = [item for item in found.items if item.splits][: config.speed_pairs]
    asked = {"tasks": [item.digest for item in tasks], "max_tokens": found.max_tokens}
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if before.get("asked") == asked:
            measured: dict[str, Any] = before["measured"]
            return measured
    measured = await _measure(config, tasks, found.max_tokens)
    kept.write_text(json.dumps({"asked": asked, "measured": measured}) + "\n", encoding="utf-8")
    return measured


async def _measure(config: EvaluateConfig, tasks: Sequence[Question], max_tokens: int | None) -> dict[str, Any]:
    assert isinstance(config.model, EngineTarget) and isinstance(config.against, EngineTarget)
    async with EngineResponder(config.model) as ours, EngineResponder(config.against) as theirs:
        pairs = [(await _alone(ours, item, max_tokens), await _alone(theirs, item, max_tokens)) for item in tasks]
    return {
        "pairs": len(pairs),
        "speed_up": statistics.median(second.seconds / first.seconds for first, second in pairs),
        "speed_up_per_token": statistics.median(_per_token(second) / _per_token(first) for first, second in pairs),
        "x": statistics.mean((first.tokens or 0) / (first.critical_path or 1) for first, _ in pairs),
        "facts": run_facts(),
    }


async def _alone(responder: EngineResponder, item: Question, max_tokens: int | None) -> Response:
    await asyncio.sleep(AFTERGLOW)
    return await responder.answer(Ask(GENERATED, item.id, 0, item.text, "task", 0, max_tokens=max_tokens))


def _per_token(response: Response) -> float:
    return response.seconds / (response.tokens or 1)
