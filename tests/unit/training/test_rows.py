"""Rows from files, and what is wrong with those that training cannot use."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multiverse.structure.grammar import render
from multiverse.training.rows import Row, RowError, read_records, read_rows, to_row

CHAIN = (
    "Two parts.\n<Parallel>\n<Goal>\n<Outline>\n1: one\n</Outline>\n<Outline>\n2: two\n</Outline>\n</Goal>\n"
    "<Path>\n1: One. \n</Path>\n<Path>\n2: Two.\n</Path>\n<Conclusion>\nBoth.\n</Conclusion>\n</Parallel>\nSo three."
)
RECORD = {"id": "a", "question": "1+2?", "chain": CHAIN, "answer": "3", "family": "sums"}
ROW = Row("a", "1+2?", CHAIN, "3", "sums")


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_jsonl(tmp_path: Path) -> None:
    other = {"id": 7, "question": "q", "chain": "c", "answer": "", "more": [1]}
    assert list(read_rows(write_lines(tmp_path / "a.jsonl", RECORD, other))) == [ROW, Row("7", "q", "c", "")]


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([RECORD, RECORD | {"family": None}]), tmp_path / "a.parquet")
    assert list(read_rows(str(tmp_path / "a.parquet"))) == [ROW, Row("a", "1+2?", CHAIN, "3")]


def test_a_folder_is_its_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    pq.write_table(pa.Table.from_pylist([RECORD | {"id": "third"}]), tmp_path / "b" / "0.parquet")
    write_lines(tmp_path / "a.jsonl", RECORD | {"id": "first"}, RECORD | {"id": "second"})
    (tmp_path / "README.md").write_text("no rows")
    assert [row.id for row in read_rows(tmp_path)] == ["first", "second", "third"]


def test_a_row_without_id_goes_by_file_and_number(tmp_path: Path) -> None:
    record = {"question": "q", "chain": "c", "answer": "x"}
    assert [row.id for row in read_rows(write_lines(tmp_path / "a.jsonl", record, record))] == [
        "a.jsonl:1",
        "a.jsonl:2",
    ]


def test_byte_order_mark_blank_lines_and_other_line_ends(tmp_path: Path) -> None:
    line = json.dumps(RECORD | {"chain": "a\u2028b\x85c"}, ensure_ascii=False).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    assert [row.chain for row in read_rows(tmp_path / "a.jsonl")] == ["a\u2028b\x85c"] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "\xff"}', "a.jsonl, line 2: no UTF-8 text"),
        (b"[" * 100_000, "a.jsonl, line 2: no JSON: maximum recursion depth"),
        (b'{"id": 1' + b"0" * 5000 + b"}", "a.jsonl, line 2: no JSON: Exceeds the limit"),
        (
            json.dumps(RECORD | {"answer": "x\ud800"}).encode(),
            "a.jsonl, row 2: answer holds a lone surrogate at character 1",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_that_rows_error(tmp_path: Path, line: bytes, message: str) -> None:
    good = json.dumps(RECORD).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, line, good]))
    read = [(where, to_row(where, record)) for where, record in read_records(tmp_path / "a.jsonl") if where[-1] != "2"]
    assert [row for _, row in read] == [ROW, ROW]
    with pytest.raises(RowError, match=message):
        list(read_rows(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "q", "answer": ""}, "a.jsonl, row 2: chain is missing"),
        (RECORD | {"answer": None}, "a.jsonl, row 2: answer is missing"),
        (RECORD | {"answer": 3}, "a.jsonl, row 2: answer is 3: must be a valid string"),
        ([1], r"a.jsonl, row 2: must be an object with the fields of a row, not \[1\]"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, record: object, message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", RECORD, record)
    with pytest.raises(RowError, match=message):
        list(read_rows(path))


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORD) + "\n{\n")
    with pytest.raises(RowError, match=r"a.jsonl, line 2: no JSON"):
        list(read_rows(path))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n")
    with pytest.raises(RowError, match=r"a.csv must end with .jsonl or .parquet"):
        list(read_rows(tmp_path / "a.csv"))
    with pytest.raises(RowError, match=r"holds no .jsonl or .parquet files"):
        list(read_rows(tmp_path))


def test_the_turn_is_the_chain_and_the_answer_on_a_line_of_its_own() -> None:
    assert render(ROW.document()) == f"{CHAIN}\n3"
    assert render(Row("a", "q", CHAIN, "").document()) == CHAIN


def test_the_ar_twin_is_the_flattened_chain_and_the_answer() -> None:
    assert ROW.sequential() == "Two parts.One. Two.So three.\n3"
    assert Row("a", "q", "One.\nTwo.", "2").sequential() == "One.\nTwo.\n2"


@pytest.mark.parametrize(
    ("chain", "answer", "message"),
    [
        ("x\n</Path>", "3", "row a: line 2, column 1: rule placement: this tag may not stand in text; found '</Path>'"),
        (CHAIN.replace("2: Two", "3: Two"), "", "row a: line 15, column 1: rule path-number"),
        ("x", "<Goal>", "row a: line 2, column 1: rule placement"),
    ],
)
def test_an_invalid_row_is_named_with_rule_line_and_column(chain: str, answer: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        Row("a", "q", chain, answer).document()
