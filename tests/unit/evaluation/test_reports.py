"""Reports of runs beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from multiverse.cli import app
from multiverse.evaluation.reports import Figure, compare, load

SPEED = {
    "kind": "speed",
    "figures": {"over_ar_lowest": 1.1},
    "cells": [{"cell": "b1-c512-x8", "over_ar": 5.0, "over_ar_low": 4.9, "join_ms": 80.0, "misses": []}],
    "facts": {"date": "2026-01-01", "versions": {"torch": "2.13.0"}, "machine": {"cores": 2}},
}
EVALUATION = {
    "kind": "evaluation",
    "suites": {
        "gsm8k": {
            "sha256": "ab",
            "sides": {"first": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}, "x": 1.5}},
            "budgets": {"rows": [{"budget": 1024, "first": {"accuracy": {"value": 0.3, "low": 0.2, "high": 0.4}}}]},
        }
    },
    "facts": {"date": "2026-01-01"},
}


def write(folder: Path, report: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    return str(folder)


def test_speed_runs_are_compared_by_ratios_and_told_apart_by_facts(tmp_path: Path) -> None:
    other = json.loads(json.dumps(SPEED))
    other["cells"][0]["over_ar"], other["facts"]["machine"]["cores"] = 4.0, 8
    runs = [load(write(tmp_path / "a", SPEED)), load(write(tmp_path / "b", other))]
    figures, facts = compare(runs)
    assert figures == [
        {"figure": "over_ar_lowest", "a": "1.1", "b": "1.1", "change": "+0 (+0.0%)"},
        {"figure": "b1-c512-x8, over_ar", "a": "5", "b": "4", "change": "-1 (-20.0%)"},
    ]
    assert facts == [{"fact": "machine.cores", "a": "2", "b": "8"}]


def test_evaluations_keep_their_intervals_and_lists_their_names(tmp_path: Path) -> None:
    report = load(write(tmp_path / "a", EVALUATION))
    assert report.figures == {
        "gsm8k, sides, first, pass@1": Figure(0.5, 0.4, 0.6),
        "gsm8k, sides, first, x": Figure(1.5),
        "gsm8k, budgets, rows, 1024, first, accuracy": Figure(0.3, 0.2, 0.4),
    }
    assert str(report.figures["gsm8k, sides, first, pass@1"]) == "0.5 (0.4 to 0.6)"


def test_evaluations_that_asked_otherwise_are_told_apart(tmp_path: Path) -> None:
    sampling = {"seeds": [0], "temperature": 0.0}
    first = EVALUATION | {"sampling": sampling}
    other = json.loads(json.dumps(first))
    other["sampling"]["seeds"] = [0, 1]
    other["suites"]["gsm8k"] |= {"sha256": "cd", "max_tokens": 9}
    _, facts = compare([load(write(tmp_path / "a", first)), load(write(tmp_path / "b", other))])
    assert facts == [
        {"fact": "sampling.seeds", "a": "[0]", "b": "[0, 1]"},
        {"fact": "suites.gsm8k.sha256", "a": "ab", "b": "cd"},
        {"fact": "suites.gsm8k.max_tokens", "a": "-", "b": "9"},
    ]


def test_evaluations_of_other_models_are_told_apart(tmp_path: Path) -> None:
    first = EVALUATION | {"sides": {"model": {"model": "a"}}, "commits": ["1"]}
    other = EVALUATION | {"sides": {"model": {"model": "b"}}, "commits": ["1"]}
    _, facts = compare([load(write(tmp_path / "a", first)), load(write(tmp_path / "b", other))])
    assert facts == [{"fact": "sides.model.model", "a": "a", "b": "b"}]


def test_figure_that_only_one_has_is_shown(tmp_path: Path) -> None:
    more = SPEED | {"figures": {"cells": 3.0}}
    figures, _ = compare([load(write(tmp_path / "a", SPEED)), load(write(tmp_path / "b", more))])
    assert {"figure": "cells", "a": "-", "b": "3", "change": "-"} in figures


def test_three_runs_of_one_name_have_columns_of_their_own(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    figures, _ = compare([load(write(tmp_path / name / "run", SPEED)) for name in "abc"])
    assert list(figures[0]) == ["figure", "1: run", "2: run", "3: run"]


def test_command_prints_the_table_and_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", write(tmp_path / "a", SPEED), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout.splitlines()[-1])["figures"][0] == {"figure": "over_ar_lowest", "a": "1.1"}


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "holds no report.json"),
        ([{"kind": "weather", "facts": {}}], "is not a report of a speed run or an evaluation"),
        ([SPEED, EVALUATION], "different kinds"),
    ],
)
def test_what_cannot_be_compared_is_one_line(reports: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    folders = [write(tmp_path / str(number), report) for number, report in enumerate(reports)] or [str(tmp_path)]
    done = CliRunner().invoke(app, ["report", *folders])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
