"""Answers graded as a person would grade them."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
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


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{5}",
        "\\(",
        "$x=",
        "= \\frac",
        "The answer is ",
        "the answer is correct ",
        "(A) is ",
        "option (A) ",
        "\\boxed\\text{",
        "1,000,",
        "<Path>",
        "{",
        "\\text{",
    ],
)
def test_a_model_that_repeats_itself_is_read_in_no_time(piece: str) -> None:
    begun = time.process_time()
    extract(piece * (40_000 // len(piece)))
    extract_choice(piece * (40_000 // len(piece)))
    assert time.process_time() - begun < 5


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
    (r"(10^{9})!", "7"),
    (r"\sum_{k=1}^{10^{12}} \frac{1}{k^{k}}", "7"),
    (r"(x+1)^{100000} - (x-1)^{100000}", "x"),
    ("1e999999999", "7"),
    ("(" * 400 + "1" + ")" * 400, "7"),
    ("7" * 999, "7"),
    ("\\frac{1}{" * 90 + "2" + "}" * 90, "7"),
    ("1" * 2000, "7"),
)


async def test_answers_that_never_end_cost_their_limit_and_nothing_else() -> None:
    """Also not the time of those that wait behind them, which is many times the limit."""
    grader, begun = Grader(processes=1, seconds=4.0, memory_bytes=2**30), time.monotonic()
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
    assert "the comparison was given up after 4 s" in notes
    assert notes[-1] == "could not be compared: ValueError: the answer has 2000 characters: the most is 1000"
    assert time.monotonic() - begun > 8


async def test_a_grader_that_is_closed_leaves_nobody_waiting() -> None:
    grader = Grader(processes=1, seconds=20)
    waiting = asyncio.gather(*(grader.equal(r"\sum_{k=1}^{10^{12}} \frac{1}{k^{k}}", "7") for _ in range(3)))
    await asyncio.sleep(0.1)
    grader.close()
    assert await waiting == [(False, "the comparison was given up: the grader was closed")] * 3
    right, note = await grader.equal("1+1", "2")
    assert (right, note) == (False, "the comparison was given up: the grader was closed")


async def test_a_process_that_is_killed_while_it_waits_is_replaced() -> None:
    grader, before = Grader(processes=1), {child.pid for child in psutil.Process().children()}
    try:
        assert await grader.equal("1+1", "2") == (True, "")
        begun = [child for child in psutil.Process().children() if child.pid not in before]
        for child in begun:
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        assert await grader.equal("2+2", "4") == (True, "")
        assert not all(child.is_running() for child in begun)
    finally:
        grader.close()


def test_a_process_has_a_limit_of_memory() -> None:
    grader = Grader(processes=1, memory_bytes=2**30)
    try:
        limit = grader._pool.schedule(resource.getrlimit, args=(resource.RLIMIT_AS,))
        assert limit.result() == (2**30, 2**30)
    finally:
        grader.close()


def test_processes_that_cannot_start_are_no_verdict(root: Path) -> None:
    # Read from a pipe, a program has no file that a new process could import.
    code = """
import asyncio
from multiverse.evaluation.grading.grader import Grader
try:
    print(asyncio.run(Grader(1).equal("1+1", "2")))
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(root / "platform")}
    run = subprocess.run(
        [sys.executable, "-"], input=code, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.stdout.startswith("processes that compare answers do not start: ")


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
