"""Rows of any text are laid down as they came; one that cannot be is a dead letter, and the others go on."""

import json
from pathlib import Path

from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import read_part, take_in
from multiverse.curation.job.records import from_lines, to_lines
from multiverse.storage import Folder

TEXTS = [
    "a\u2028b\u2029c",
    "next\x85line",
    "\x0b\x0c\x1c\x1d\x1e\x1f",
    "line\r\nline\rline\n",
    "\x00\ufeff",
    "\U0001f600 \u0663",
]


def test_lines_give_back_any_text() -> None:
    records = [{text: [text]} for text in TEXTS]
    assert from_lines(to_lines(records)) == records


def test_rows_are_laid_down_as_they_came(tmp_path: Path) -> None:
    rows = [{"id": f"{place} {text}", "question": "?", "chain": text, "answer": ""} for place, text in enumerate(TEXTS)]
    bad = [{"id": "\ud800", "question": "?", "chain": "a", "answer": ""}, {"id": "b", "question": "?", "answer": ""}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*bad, *rows]))
    given = {"source": str(source), "out": str(tmp_path / "out"), "selection": {"duplicates": True}}
    config = CurateConfig.of(given | {"llm": {"model": "none", "base_url": "http://127.0.0.1:9/v1"}})
    folder = Folder(tmp_path / "out")
    taken = take_in(config, folder)
    assert (taken.read, taken.rows, taken.rejected) == (8, 6, {"source": 2})
    assert [row.chain for row in read_part(folder, 0)] == TEXTS
    assert [letter["reason"] for letter in from_lines(folder.read("dead/intake.jsonl"))] == [
        "rows.jsonl, row 1: id holds a lone surrogate at character 0",
        "rows.jsonl, row 2: chain is missing",
    ]


def test_an_answer_may_be_a_number(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"question": "?", "chain": f"{answer}", "answer": answer} for answer in (7, 0.5, True, [1])]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"source": str(source), "out": str(tmp_path / "out"), "selection": {"duplicates": True}}
    folder = Folder(tmp_path / "out")
    taken = take_in(CurateConfig.of(given | {"llm": {"model": "none", "base_url": "http://127.0.0.1:9/v1"}}), folder)
    assert taken.rejected == {"source": 2}
    assert [row.answer for row in read_part(folder, 0)] == ["7", "0.5"]
