"""Answers to generated tasks: what counts as parallel, valid and right; intervals; going on where a run stopped."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.evaluation.generated import Answered, answer_all, difference, table
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest
from multiverse.training.families import FAMILIES, Task, generate


class Characters:
    """A token is a character; 0 ends a text."""

    eos_ids = (0,)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        return [ord(letter) for letter in messages[0]["content"]]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Oracle:
    """Answers as it was told, with as many branches as the task has; counts what it is asked."""

    tokens = Characters()

    def __init__(self, answers: dict[str, str], widths: dict[str, int] | None = None, finish: str = "stop") -> None:
        self.asked: list[GenerationRequest] = []
        self._answers, self._widths, self._finish = answers, widths or {}, finish

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Any]:
        self.asked.append(request)
        assert request.question is not None
        text = self._answers[request.question]
        width = self._widths.get(request.question, 0)
        blocks: Any = (SimpleNamespace(branches=[None] * width),) if width else ()
        yield Finished(Result((*map(ord, text), 0), self._finish, 10, len(text) / 10, blocks))  # type: ignore[arg-type]


TASKS = generate(tuple(FAMILIES), "held_out", 40, 3)
RIGHT = {task.question: task.text for task in TASKS}
WIDTHS = {task.question: task.width for task in TASKS}


def engine(*arguments: Any, **options: Any) -> Any:
    return Oracle(*arguments, **options)


async def answers(oracle: Any, tasks: Sequence[Task] = TASKS, **options: Any) -> list[Answered]:
    return await answer_all(oracle, tasks, "auto", 4, 600, **options)


async def test_model_answers_are_all_right_valid_and_as_wide_as_they_should_be() -> None:
    rows = {row["family"]: row for row in table(await answers(engine(RIGHT, WIDTHS)))}
    assert rows["all"]["solved"] == 1.0
    split, other = rows["all that split"], rows["all that do not"]
    assert (split["parallel"], split["valid"], split["right_width"]) == (1.0, 1.0, 1.0)
    assert (other["parallel"], other["solved"]) == (0.0, 1.0)
    assert split["tasks"] + other["tasks"] == len(TASKS)
    assert set(rows) == {*FAMILIES, "all", "all that split", "all that do not"}


async def test_wrong_answers_are_none_right() -> None:
    wrong = {task.question: f"{task.chain}\nAnswer: nothing of that." for task in TASKS}
    rows = table(await answers(engine(wrong, WIDTHS)))
    assert {row["solved"] for row in rows} == {0.0}


@pytest.mark.parametrize(
    ("spoiled", "finish"),
    [
        (lambda text: text.replace("</Conclusion>", "", 1), "stop"),
        (lambda text: text.replace("<Path>\n2:", "<Path>\n3:", 1), "stop"),
        (lambda text: text, "length"),
    ],
)
async def test_what_the_grammar_refuses_or_the_limit_ends_is_not_valid(spoiled: Any, finish: str) -> None:
    task = next(task for task in TASKS if task.splits)
    oracle = engine({task.question: spoiled(task.text)}, WIDTHS, finish=finish)
    (item,) = await answers(oracle, [task])
    assert (item.parallel, item.valid) == (True, False)


async def test_a_run_goes_on_with_what_is_not_answered() -> None:
    first = engine(RIGHT, WIDTHS)
    whole = await answers(first)
    done = {item.number: item for item in whole if item.number % 3}
    second, told = engine(RIGHT, WIDTHS), list[int]()
    again = await answers(second, done=done, tell=lambda item: told.append(item.number))
    assert sorted(told) == [number for number in range(len(TASKS)) if number % 3 == 0]
    assert len(second.asked) == len(told)
    assert [replace(item, seconds=0) for item in again] == [replace(item, seconds=0) for item in whole]


async def test_a_difference_is_paired_and_its_interval_holds_it() -> None:
    ours = await answers(engine(RIGHT, WIDTHS))
    theirs = [replace(item, correct=item.number % 4 != 0) for item in ours]
    found = difference(ours, theirs)
    assert found["points"] == pytest.approx(25.0)
    assert 5 < found["low"] < 25 < found["high"] < 45
    assert difference(ours, ours) == {"points": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0, "tasks": 40.0}
    assert difference(theirs, ours)["points"] == pytest.approx(-25.0)
