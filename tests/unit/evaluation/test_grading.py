"""Answers graded as a person would grade them."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiverse.evaluation.grading.extraction import Extracted, extract, extract_choice
from multiverse.evaluation.grading.grader import Grade, Grader
from multiverse.evaluation.grading.judge import equal

CASES: dict[str, list[list[Any]]] = yaml.safe_load(
    (Path(__file__).parent / "grading_cases.yaml").read_text(encoding="utf-8")
)


def test_there_are_enough_cases() -> None:
    assert len(CASES["equal"]) >= 330
    assert len(CASES["extracted"]) >= 40
    assert {right for _, _, right in CASES["equal"]} == {True, False}


@pytest.mark.parametrize(("answer", "reference", "right"), CASES["equal"])
def test_equality(answer: str, reference: str, right: bool) -> None:
    assert equal(answer, reference) is right


@pytest.mark.parametrize(("response", "answer", "rule", "reference"), CASES["extracted"])
def test_extraction(response: str, answer: str, rule: str, reference: str | None) -> None:
    assert extract(response) == Extracted(answer, rule)
    assert reference is None or equal(answer, reference)


@pytest.mark.parametrize(("response", "letter", "rule"), CASES["choices"])
def test_choices(response: str, letter: str, rule: str) -> None:
    assert extract_choice(response) == Extracted(letter, rule)


async def test_many_are_graded_at_once_from_any_thread() -> None:
    grader = Grader(processes=1)
    try:
        grades = await asyncio.gather(
            grader.grade(r"So \boxed{\frac{2}{4}}", "0.5", "math"),
            grader.grade("The answer is (b).", "B", "choice"),
            grader.grade("#### yes", "yes", "exact"),
            grader.grade("", "5", "math"),
        )
    finally:
        grader.close()
    assert grades == [
        Grade(True, r"\frac{2}{4}", "boxed"),
        Grade(True, "B", "answer is"),
        Grade(True, "yes", "####"),
        Grade(False, "", "none"),
    ]


HOSTILE = (
    (r"9^{9^{9^{9}}} + 1", "9^{9^{9^{9}}}"),
    (r"3^{10^{12}}", "2"),
    (r"2^{2^{2^{2^{2^{2}}}}}", "7"),
    (r"(10^{9})!", "7"),
    (r"\binom{10^{9}}{5 \cdot 10^{8}}", "7"),
    (r"\sum_{k=1}^{10^{12}} \frac{1}{k^{k}}", "7"),
    (r"(x+1)^{100000} - (x-1)^{100000}", "x"),
    ("1e999999999", "7"),
    ("(" * 400 + "1" + ")" * 400, "7"),
    ("7" * 999, "7"),
    ("\\frac{1}{" * 90 + "2" + "}" * 90, "7"),
    ("1" * 2000, "7"),
)


async def test_answers_that_never_end_cost_their_limit_and_nothing_else() -> None:
    grader, begun = Grader(processes=2, seconds=2.0, memory_bytes=2**30), time.monotonic()
    try:
        hostile, harmless = await asyncio.gather(
            asyncio.gather(*(grader.equal(*pair) for pair in HOSTILE)),
            asyncio.gather(*(grader.equal(rf"\frac{{{2 * n}}}{{2}}", str(n)) for n in range(1, 41))),
        )
    finally:
        grader.close()
    assert [right for right, _ in hostile] == [False] * len(HOSTILE)
    assert harmless == [(True, "")] * 40
    notes = [note for _, note in hostile]
    assert "the comparison was given up after 2 s" in notes
    assert notes[-1] == "could not be compared: ValueError: the answer has 2000 characters: the most is 1000"
    assert time.monotonic() - begun < 60


async def test_waiting_for_a_process_does_not_count_as_time_of_a_comparison() -> None:
    grader = Grader(processes=1, seconds=2)
    try:
        begun = time.monotonic()
        grades = await asyncio.gather(*(grader.equal(rf"\sqrt{{{n * n}}} + {n}", str(2 * n)) for n in range(1, 701)))
        assert time.monotonic() - begun > 2
    finally:
        grader.close()
    assert grades == [(True, "")] * 700


async def test_a_grader_that_is_closed_leaves_nobody_waiting() -> None:
    grader = Grader(processes=1, seconds=20)
    waiting = asyncio.gather(*(grader.equal(r"\sum_{k=1}^{10^{12}} \frac{1}{k^{k}}", "7") for _ in range(3)))
    await asyncio.sleep(0.1)
    grader.close()
    assert await waiting == [(False, "the comparison was given up: the grader was closed")] * 3
    right, note = await grader.equal("1+1", "2")
    assert (right, note) == (False, "the comparison could not be begun: The Pool is not active")


def test_people_wrote_solutions_that_give_their_answers(shared: Path) -> None:
    lines = (shared / "data" / "eval" / "math500.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    assert len(rows) == 500
    found = [extract(row["solution"]) for row in rows]
    assert {each.rule for each in found} == {"boxed"}
    assert [row for row, each in zip(rows, found, strict=True) if not equal(each.answer, row["answer"])] == []


def test_answers_of_other_questions_are_wrong(shared: Path) -> None:
    lines = (shared / "data" / "eval" / "math500.jsonl").read_text(encoding="utf-8").split("\n")
    answers = [json.loads(line)["answer"] for line in lines if line]
    answers = [answer for answer in dict.fromkeys(answers) if not answer.lstrip("-").isdigit()]
    pairs = list(pairwise(answers))
    assert len(pairs) > 150
    assert [pair for pair in pairs if equal(*pair)] == []
