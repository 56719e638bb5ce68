"""Responders that answer as they are told, without a model."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from multiverse.evaluation.accuracy.asking import AnswerError, Ask, Response
from multiverse.evaluation.accuracy.config import EvaluateConfig, Target
from multiverse.evaluation.accuracy.run import Answering, Here, Opener
from multiverse.training.families import FAMILIES, generate

Answer = Callable[[Ask], str | Response]


class Told:
    """Answers with ``answer``; words are its tokens. asked: all that it was asked. Raises what ``answer`` raises."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[Ask] = []
        self._answer = answer

    async def __aenter__(self) -> "Told":
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass

    async def answer(self, ask: Ask) -> Response:
        self.asked.append(ask)
        found = self._answer(ask)
        if isinstance(found, Response):
            return found
        return Response(found, "stop", len(found.split()), len(found.split()), 0.0)


def opener(config: EvaluateConfig, **responders: Told) -> Opener:
    """The model's name says which of ``responders`` answers."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncIterator[Answering]:
        yield Here(responders[target.name], config)

    return opened


def config(out: Path, count: int = 40, **values: Any) -> EvaluateConfig:
    given = {"model": "ours", "suites": [{"name": "generated", "count": count}], "out": str(out)}
    return EvaluateConfig.of(given | {"backoff_seconds": 0.001} | values)


def right_answers(count: int, seed: int = 0) -> dict[str, str]:
    """By question."""
    return {task.question: task.text for task in generate(tuple(FAMILIES), "held_out", count, seed)}


def right(count: int, seed: int = 0) -> Answer:
    """Answers that are all right."""
    answers = right_answers(count, seed)
    return lambda ask: answers[ask.question]


def sometimes(count: int, p: float, seed: int) -> Answer:
    """Right with probability ``p``, each item by itself."""
    answers, random = right_answers(count), Random(seed)
    return lambda ask: answers[ask.question] if random.random() < p else "Answer: nothing of that"


def failing(times: int, answer: Answer, **options: Any) -> Answer:
    """Each item fails so many times before it is answered."""
    failures: dict[str, int] = {}

    def found(ask: Ask) -> str | Response:
        failures[ask.item] = failures.get(ask.item, 0) + 1
        if failures[ask.item] <= times:
            raise AnswerError("HTTP 500: out of order", **options)
        return answer(ask)

    return found
