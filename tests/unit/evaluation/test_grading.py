"""Answers graded as a person would grade them."""

import asyncio
import time
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
    assert len(CASES["equal"]) >= 60
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


async def test_a_comparison_without_end_is_given_up_and_the_next_one_works() -> None:
    grader, begun = Grader(processes=1), time.monotonic()
    try:
        grade = await grader.grade(r"\boxed{9^{9^{9^{9}}} + 1}", "9^{9^{9^{9}}}", "math")
        assert not grade.correct
        assert time.monotonic() - begun < 45
        assert (await grader.grade(r"\boxed{2+2}", "4", "math")).correct
    finally:
        grader.close()
