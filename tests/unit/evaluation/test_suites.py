"""Suites from files of any form."""

import csv
import hashlib
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

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
        ("a.jsonl", '{"question": "x", "answer": ""}', "a.jsonl, row 1: its answer is empty"),
        ("a.jsonl", '{"question": "x", "answer": [1]}', "row 1: its answer must be text or a number, not [1]"),
        (
            "a.jsonl",
            '{"question": "x", "solution": "so 5"}',
            "row 1: has no answer; its columns are ",
        ),
        ("a.csv", "question,answer\nx\n", "a.csv, line 2: must have 2 values"),
        ("a.csv", 'question,answer\n"x', "a.csv, line 1: no CSV: unexpected end of data"),
        ("a.parquet", "x", "a.parquet: no Parquet: "),
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
    with pytest.raises(SuiteError, match="gpqa-diamond is not downloaded: give its file, as in gpqa-diamond=PATH"):
        load_suite("gpqa-diamond")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_a_table_is_the_same_in_any_form(tmp_path: Path, suffix: str) -> None:
    rows = [{"question": "one,\n\u2028 two?", "answer": "1"}, {"question": 'what "is" it?', "answer": "2"}]
    path = tmp_path / f"rows{suffix}"
    match suffix:
        case ".json":
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        case ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
        case ".csv":
            with path.open("w", encoding="utf-8-sig", newline="") as lines:
                writer = csv.DictWriter(lines, ["question", "answer"])
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    loaded = load_suite("aime25", str(path))
    assert [(item.id, item.answer) for item in loaded.items] == [("1", "1"), ("2", "2")]
    assert loaded.items[0].question.startswith("one,\n\u2028 two?\n")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.source == str(path)


def test_no_text_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff", "answer": "1"}\n')
    with pytest.raises(SuiteError, match=r"a\.jsonl is no UTF-8 text"):
        load_suite("aime25", str(tmp_path / "a.jsonl"))


def test_the_answer_of_a_worked_solution_is_in_its_box(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"problem": "x", "solution": "It is \\boxed{3}, no, \\boxed{204}."}])
    assert load_suite("aime24", source).items[0].answer == "204"
    source = write(tmp_path / "b.jsonl", [{"problem": "x", "solution": "It is 204."}])
    with pytest.raises(SuiteError, match=r"row 1: its solution holds no \\boxed\{\} with an answer"):
        load_suite("aime24", source)


def test_the_order_of_choices_hangs_on_the_item_not_on_its_place(tmp_path: Path) -> None:
    rows = [gpqa(number) for number in range(20)]
    one = load_suite("gpqa-diamond", write(tmp_path / "a.jsonl", rows)).items
    other = load_suite("gpqa-diamond", write(tmp_path / "b.jsonl", rows[::-1])).items
    assert one == other[::-1]
    assert all(item.choices["ABCD".index(item.answer)] == "right" for item in one)
    assert len({item.choices for item in one}) > 5


def test_columns_of_a_multiple_choice(tmp_path: Path) -> None:
    row = {"q": "Which?", "key": "right", "x": "a", "y": "b", "z": "c"}
    columns = {"question": "q", "answer": "key", "wrong_1": "x", "wrong_2": "y", "wrong_3": "z"}
    (item,) = load_suite("gpqa-diamond", write(tmp_path / "a.jsonl", [row]), columns).items
    assert sorted(item.choices) == ["a", "b", "c", "right"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answers": "a"}, "columns has 'answers': must be question, answer or id"),
        ({"wrong_1": "a"}, "columns has 'wrong_1': must be question, answer or id"),
        ({"answer": "result"}, "a.jsonl, row 1: has no result; its columns are question, answer"),
        ({"id": "number"}, "a.jsonl, row 1: has no number; its columns are question, answer"),
    ],
)
def test_columns_there_are_not(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    source = write(tmp_path / "a.jsonl", [{"question": "x", "answer": "1"}])
    with pytest.raises(SuiteError) as refused:
        load_suite("aime24", source, columns)
    assert message in str(refused.value)


def test_places_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"none\.jsonl is no file"):
        load_suite("aime24", str(tmp_path / "none.jsonl"))
    with pytest.raises(SuiteError, match="hf://math-ai is not of the form hf://owner/dataset/path"):
        load_suite("aime24", "hf://math-ai")
