"""Suites from files of any form."""

import json
from pathlib import Path

import pytest

from multiverse.evaluation.suites.load import SuiteError, load_suite


@pytest.mark.parametrize(
    ("suite", "file", "items", "last"),
    [
        ("aime24", "aime24.jsonl", 30, None),
        ("aime25", "aime25.json", 30, None),
        ("amc23", "amc23.json", 40, None),
        ("math500", "math500.jsonl", 500, None),
        ("gsm8k", "gsm8k_test.jsonl", 1319, None),
    ],
)
def test_the_known_suites(shared: Path, suite: str, file: str, items: int, last: str | None) -> None:
    loaded = load_suite(suite, str(shared / "data" / "eval" / file))
    assert len(loaded.items) == items
    assert len(loaded.sha256) == 64
    assert all(item.answer and "\\boxed{}" in item.question for item in loaded.items)


def test_references_are_as_people_write_them(shared: Path) -> None:
    folder = shared / "data" / "eval"
    assert load_suite("amc23", str(folder / "amc23.json"), limit=1).items[0].answer == "27"
    assert load_suite("gsm8k", str(folder / "gsm8k_test.jsonl"), limit=1).items[0].answer == "18"
    assert len(load_suite("math500", str(folder / "math500.jsonl"), limit=7).items) == 7


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def gpqa(number: int) -> dict[str, object]:
    wrong = {f"Incorrect Answer {place}": f"wrong {place}" for place in (1, 2, 3)}
    return {"Record ID": f"r{number}", "Question": "Which?", "Correct Answer": "right", **wrong}


def test_choices_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    source = write(tmp_path / "gpqa.jsonl", [gpqa(number) for number in range(40)])
    loaded = load_suite("gpqa-diamond", source)
    assert loaded == load_suite("gpqa-diamond", source)
    assert {item.answer for item in loaded.items} == {"A", "B", "C", "D"}
    assert loaded.items != load_suite("gpqa-diamond", source, seed=1).items
    first = loaded.items[0]
    assert f"({first.answer}) right" in first.question


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [{"q": "1+1?", "a": 2.0}])
    (item,) = load_suite("aime24", source, {"question": "q", "answer": "a"}).items
    assert (item.id, item.answer) == ("1", "2")
    assert item.question.startswith("1+1?")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"question": "x"}\n', "a.jsonl, row 1: has no answer; its columns are question"),
        ("a.jsonl", "{\n", "a.jsonl, line 1: no JSON:"),
        ("a.json", "{}", "a.json must hold a list of objects"),
        ("a.json", "[1]", "a.json, row 1: must be an object, not 1"),
        ("a.txt", "", "a.txt must end with .json, .jsonl, .parquet or .csv"),
        ("a.jsonl", "", "a.jsonl holds no rows"),
        ("a.jsonl", '{"id": 1, "question": "x", "answer": "1"}\n' * 2, "a.jsonl: the id '1' occurs twice"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError) as refused:
        load_suite("aime25", str(tmp_path / name))
    assert message in str(refused.value)


def test_an_answer_without_its_mark(tmp_path: Path) -> None:
    source = write(tmp_path / "g.jsonl", [{"question": "x", "answer": "five"}])
    with pytest.raises(SuiteError, match="row 1: its answer holds no '####'"):
        load_suite("gsm8k", source)


def test_suites_there_are_not() -> None:
    with pytest.raises(SuiteError, match="there is no suite 'aime': there are aime24, "):
        load_suite("aime")
    with pytest.raises(SuiteError, match="gpqa-diamond is not downloaded: give its file with --source"):
        load_suite("gpqa-diamond")
