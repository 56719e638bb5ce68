"""Rows that hold evaluation questions are taken out, whatever file the questions are in."""

import json
from pathlib import Path
from typing import Any

import pytest

from multiverse.config import ConfigError
from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import Intake, take_in
from multiverse.storage import Folder

QUESTIONS = (
    "How many of the first forty even numbers are the sum of two odd prime numbers?",
    "A train leaves at nine and another at ten; when does the second one reach the first?",
    "Three painters need six days for a house: how long would nine painters need for two?",
)


def take(tmp_path: Path, rows: list[dict[str, str]], evaluation: list[Path]) -> Intake:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given: dict[str, Any] = {"source": str(source), "out": str(tmp_path / "out")}
    given["llm"] = {"model": "none", "base_url": "http://127.0.0.1:9/v1"}
    given["columns"] = {"chain": "chain", "answer": None}
    given["selection"] = {"evaluation": [str(path) for path in evaluation]}
    return take_in(CurateConfig.model_validate(given), Folder(tmp_path / "out"))


def row(id: str, question: str) -> dict[str, str]:
    return {"id": id, "question": question, "chain": f"It is {id} " + "and so on " * 20}


def reasons(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "out" / "dead" / "intake.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"] for line in lines]


def test_the_real_suites(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data" / "eval"
    (seen,) = (entry["question"] for entry in json.loads((folder / "aime25.json").read_text())[:1])
    rows = [row("leaked", f"Please solve: {seen}"), row("own", "What is one and one?")]
    found = take(tmp_path, rows, [folder / "aime25.json", folder / "amc23.json", folder / "math500.jsonl"])
    assert (found.read, found.rows, found.rejected) == (2, 1, {"decontamination": 1})
    assert reasons(tmp_path) == ["shares 13 words in a row with the evaluation question aime25.json, row 1"]


def test_all_columns_of_a_row_and_files_of_the_same_name_count(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    (tmp_path / "a" / "test.csv").write_text(f'Question,prompt\n"{QUESTIONS[0]}","{QUESTIONS[1]}"\n')
    (tmp_path / "b" / "test.csv").write_text(f'problem\n"{QUESTIONS[2]}"\n')
    rows = [row(f"row {place}", question) for place, question in enumerate(QUESTIONS)]
    found = take(tmp_path, rows, [tmp_path / "a" / "test.csv", tmp_path / "b" / "test.csv"])
    assert found.rejected == {"decontamination": 3}
    first, second, third = reasons(tmp_path)
    assert first.endswith("a/test.csv, test.csv, row 1, Question")
    assert second.endswith("the evaluation question test.csv, row 1")
    assert third.endswith("b/test.csv, test.csv, row 1, problem")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "selection.evaluation: a.json: no JSON"),
        ("a.json", '[{"text": "x"}]', "a.json has no column question or problem or prompt or Question"),
        ("a.txt", "x", "selection.evaluation: a.txt must end with .json, .jsonl, .parquet or .csv"),
    ],
)
def test_files_that_hold_no_questions(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as refused:
        take(tmp_path, [row("own", "x")], [tmp_path / name])
    assert message in str(refused.value)
