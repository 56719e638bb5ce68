"""The commands that need no model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from multiverse.cli import app
from multiverse.serving.access.key_file import read_keys
from multiverse.serving.access.keys import sha256_of

VALID = (
    "Look.\n<Parallel>\n<Goal>\n<Outline>\n1: add\n</Outline>\n<Outline>\n2: take\n</Outline>\n</Goal>\n"
    "<Path>\n1: one\n</Path>\n<Path>\n2: two more\n</Path>\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>\n"
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def last_line(result: Result) -> dict[str, object]:
    value: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return value


def test_inspect_tells_the_figures_of_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "chain.xml"
    path.write_text(VALID)
    result = run("inspect", path, "--json")
    assert result.exit_code == 0
    assert last_line(result) == {
        "files": [
            {
                "file": str(path),
                "valid": True,
                "blocks": 1,
                "widths": [2],
                "depth": 1,
                "tokens": 50,
                "critical_path": 42,
                "parallelism": 50 / 42,
            }
        ]
    }


def test_inspect_tells_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "chain.xml"
    path.write_text(VALID.replace("<Path>\n2: two more\n</Path>\n", ""))
    result = run("inspect", path)
    assert result.exit_code == 1
    assert f"{path}: line 14, column 1: rule path-count: 2 outlines but 1 path; found '<Conclusion>'" in result.stdout


def test_inspect_of_a_missing_file_is_one_line(tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "none.xml")
    assert result.exit_code == 2
    assert result.stderr == f"multiverse: [Errno 2] No such file or directory: '{tmp_path / 'none.xml'}'\n"


def test_new_key_is_shown_beside_its_entry(tmp_path: Path) -> None:
    first, second = run("keys", "new", "alice"), run("keys", "new", "bob")
    path = tmp_path / "keys.yaml"
    path.write_text(first.stdout + second.stdout)
    key = first.stderr.strip()
    assert key.startswith("mv-") and key not in first.stdout
    assert [(entry.name, entry.sha256 == sha256_of(key)) for entry in read_keys(path)] == [
        ("alice", True),
        ("bob", False),
    ]


def test_name_that_cannot_be_used_makes_no_key() -> None:
    result = run("keys", "new", "a b")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "multiverse: name must be 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first\n"
    )


def test_layout_gives_a_line_per_line(tmp_path: Path) -> None:
    words = (
        "Q <Parallel> <Goal> <Outline> a </Outline> <Outline> b </Outline> </Goal> <Path> x </Path> <Path> y </Path> z"
    )
    path = tmp_path / "tokens.jsonl"
    path.write_text(json.dumps({"tokens": words.split()}) + "\n" + json.dumps({"tokens": []}) + "\n")
    result = run("layout", path)
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == {
        "positions": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 10, 11, 12, 13],
        "hidden": [[]] * 13 + [[[10, 13]]] * 3 + [[]],
        "next_position": 14,
        "parallelism": 17 / 14,
    }
    assert second == {"positions": [], "hidden": [], "next_position": 0, "parallelism": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tokens": [1]}', 'must be {"tokens": [...]} with a list of strings'),
        ("tokens", "not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_layout_names_the_line_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text(f'{{"tokens": []}}\n{line}\n')
    result = run("layout", path)
    assert result.exit_code == 2
    assert result.stderr == f"multiverse: {path}, line 2: {message}\n"


def test_chains_of_the_paper_are_valid(shared: Path) -> None:
    result = run("inspect", *sorted((shared / "data" / "chains").glob("*.xml")), "--json")
    assert result.exit_code == 0


def test_layouts_of_reference_are_reproduced(shared: Path) -> None:
    path = shared / "golden" / "layout_cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.loads(line) for line in run("layout", path).stdout.splitlines()]
    assert [line["positions"] for line in lines] == [case["positions"] for case in cases]
    assert [line["next_position"] for line in lines] == [case["next_position"] for case in cases]


def test_tasks_are_written_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    assert (
        run("tasks", path, "--count", "4", "--split", "held_out", "--seed", "3", "--families", "sums,steps").exit_code
        == 0
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(row) for row in rows] == [["id", "question", "chain", "answer", "family", "splits", "expected"]] * 4
    assert [row["id"] for row in rows] == ["held_out-3-0", "held_out-3-1", "held_out-3-2", "held_out-3-3"]
    assert sorted((row["family"], row["splits"]) for row in rows) == [("steps", False)] * 2 + [("sums", True)] * 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--split", "test", "split is 'test': must be train or held_out"),
        ("--families", "sums,sum", "no family 'sum': there are sums, differences"),
    ],
)
def test_tasks_of_what_there_is_not_are_refused(tmp_path: Path, option: str, value: str, message: str) -> None:
    result = run("tasks", tmp_path / "tasks.jsonl", "--count", "4", option, value)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"multiverse: {message}")
    assert not (tmp_path / "tasks.jsonl").exists()
