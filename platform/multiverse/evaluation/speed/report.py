"""The report of a speed run: ``report.md`` with its plots, the same as one ``report.html``, ``report.json`` for
machines, ``cells.csv`` and ``repeats.csv``."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from multiverse.evaluation.facts import run_facts
from multiverse.evaluation.pages import page
from multiverse.evaluation.speed import plots
from multiverse.evaluation.speed.measure import Measured
from multiverse.evaluation.speed.records import Record
from multiverse.evaluation.speed.summary import (
    BRANCH_TOKENS,
    DRIFT,
    OF_LIMIT,
    OF_LIMIT_ALONE,
    OVER_AR,
    Row,
    figures,
    rows,
)
from multiverse.storage import open_folder


def write_report(measured: Measured, command: str = "", notes: str = "") -> dict[str, Any]:
    """Write the files into the run's folder. notes: Markdown that goes before the tables. Returns what ``report.json``
    holds. Raises ValueError where nothing was measured."""
    found = rows(measured)
    if not found:
        raise ValueError("no cell of the grid was measured")
    report: dict[str, Any] = {
        "kind": "speed",
        "command": command,
        "figures": figures(found),
        "cells": [row.flat() | {"misses": row.misses} for row in found],
        "left_out": [{"cell": item.cell, "reason": item.reason} for item in measured.plan.left_out],
        "not_measured": [cell for cell in measured.plan.cells if cell not in {row.cell for row in found}],
        "commits": sorted({record.commit for record in measured.records} - {""}),
        "machines": sorted({record.machine for record in measured.records} - {""}),
        "config": measured.config.described(),
        "facts": run_facts(),
    }
    pictures = {
        "speed-up.png": plots.speed_ups(found),
        "of-limit.png": plots.of_limit(found),
        "joins.png": plots.joins(found),
    }
    text = markdown(report, found, notes)
    files = pictures | {
        "report.json": (json.dumps(report, indent=1) + "\n").encode(),
        "report.md": text.encode(),
        "report.html": page(text, pictures).encode(),
        "cells.csv": _csv([row.flat() for row in found]).encode(),
        "repeats.csv": _csv([_flat(record) for record in measured.records]).encode(),
    }
    folder = open_folder(measured.config.out)
    for name, content in files.items():
        folder.write(name, content)
    return report


def markdown(report: dict[str, Any], found: Sequence[Row], notes: str = "") -> str:
    """The report for people."""
    config, numbers = report["config"], report["figures"]
    parts = ["# Speed", *([f"```\n{report['command']}\n```"] if report["command"] else [])]
    parts.append(
        f"`{config['model']}`, {config['engine']['dtype']}, each cell repeated as often as *runs* says, in turn; "
        f"medians, and lowest to highest in brackets. Branches have {config['branch_tokens']} tokens or, of chains, "
        "their own lengths. x is tokens / critical path of the answer. *over AR*: as many tokens in sequence on the "
        "same engine take so many times as long. *limit*: k·t(b) / t(k·b), by the engine's own times of a step at this "
        "context. *decoding*: what these steps take, one for each position, of the time of the answers; the rest is "
        "forks, joins and gaps, but for the few positions that the engine writes itself in less than a step each. "
        "*step*: in sequence, in ms. *branch step*: a step of the branches, beside one of as many plain requests. "
        "*join gain*: a second prefill of the branches takes so many times as long as their join. "
        "docs/benchmark.md says how each is measured."
    )
    parts.append(
        f"While cells were measured, other processes took up to {numbers['others_highest']:.0%} of the cores "
        "(*others*: the most of a cell's repeats)."
    )
    if drifted := [f"`{row.cell}`" for row in found if row.drifted]:
        parts.append(
            f"Steps in sequence differ by more than {DRIFT - 1:.0%} between the repeats of {', '.join(drifted)}: "
            "the machine was not in the same state for all of them."
        )
    parts += [_summary(numbers, found), *([notes.strip()] if notes.strip() else [])]
    parts += ["![Speed-up against x](speed-up.png)", "![Share of the limit](of-limit.png)", "## Cells", _table(found)]
    parts += ["![Joins and second prefills](joins.png)"]
    if report["not_measured"]:
        parts += ["## Not measured yet", ", ".join(f"`{cell}`" for cell in report["not_measured"])]
    if report["left_out"]:
        lines = [(f"`{item['cell']}`", item["reason"]) for item in report["left_out"]]
        parts += ["## Left out", _lines(("cell", "reason"), lines)]
    parts += ["## Configuration and machine"]
    values = {"commits of the measurements": report["commits"], "machines of the measurements": report["machines"]}
    values |= {"configuration": config, "report": report["facts"]}
    parts += [f"```json\n{json.dumps(values, indent=1)}\n```"]
    return "\n\n".join(parts) + "\n"


def _summary(numbers: dict[str, float], found: Sequence[Row]) -> str:
    lines = [
        ("of the limit, lowest at batch 1", numbers.get("of_limit_lowest_batch_1"), OF_LIMIT_ALONE),
        ("of the limit, lowest", numbers["of_limit_lowest"], OF_LIMIT),
        ("decoding, lowest at batch 1", numbers.get("decoding_lowest_batch_1"), OF_LIMIT_ALONE),
        ("decoding, lowest", numbers["decoding_lowest"], OF_LIMIT),
        ("over AR, lowest", numbers["over_ar_lowest"], OVER_AR),
        (f"join gain, lowest from {BRANCH_TOKENS} branch tokens on", numbers.get("join_gain_lowest"), 1),
    ]
    table = _lines(
        ("", "measured", "bound"),
        [(name, "-" if value is None else f"{value:.3f}", f"{bound:g}") for name, value, bound in lines],
    )
    missing = [f"- `{row.cell}`: {'; '.join(row.misses)}" for row in found if row.misses]
    within = f"{len(found) - len(missing)} of {len(found)} cells are within all bounds."
    return "\n\n".join([table, within, *(["Those that are not:", "\n".join(missing)] if missing else [])])


def _table(found: Sequence[Row]) -> str:
    head = (
        "batch",
        "before",
        "cell",
        "branches",
        "x",
        "over AR",
        "limit",
        "of it",
        "decoding",
        "step",
        "branch step",
        "fork, ms",
        "join, ms",
        "join gain",
        "others",
        "runs",
    )
    lines = [
        (
            str(row.batch),
            str(row.context),
            row.cell.split("-", 2)[2],
            str(row.branches),
            f"{row.x:.2f}",
            f"{row.over_ar.median:.2f} ({row.over_ar.low:.2f} to {row.over_ar.high:.2f})",
            f"{row.limit.median:.2f}",
            f"{row.of_limit.median:.3f} ({row.of_limit.low:.3f} to {row.of_limit.high:.3f})",
            f"{row.decoding.median:.3f} ({row.decoding.low:.3f} to {row.decoding.high:.3f})",
            f"{row.step_ms.median:.0f} ({row.step_ms.low:.0f} to {row.step_ms.high:.0f})",
            f"{row.branch_step.median:.2f}" if row.branch_step.median else "-",
            f"{row.fork_ms.median:.0f}",
            f"{row.join_ms.median:.0f}",
            f"{row.join_gain.median:.1f}",
            f"{row.others.high:.0%}",
            str(row.repeats),
        )
        for row in found
    ]
    return _lines(head, lines)


def _lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if any(len(row) != len(head) for row in lines):
        raise ValueError(f"a row of a table has not its {len(head)} cells: {head}")
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])


def _flat(record: Record) -> dict[str, Any]:
    """A repeat as one row; the curve in words."""
    return asdict(record) | {"curve": " ".join(f"{rows}:{seconds:.5f}" for rows, seconds in record.curve.items())}


def _csv(found: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    flat = [
        {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()} for row in found
    ]
    table = csv.DictWriter(buffer, list(flat[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(flat)
    return buffer.getvalue()
