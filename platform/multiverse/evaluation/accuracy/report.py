"""The report of a run: ``report.md`` with its plots, the same as one ``report.html``, ``report.json`` for machines;
every answer in ``rows.csv``."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiverse.evaluation.accuracy.figures import described, failures, figures, without_secrets
from multiverse.evaluation.accuracy.plots import accuracy_by_budget, lengths
from multiverse.evaluation.accuracy.run import Evaluated
from multiverse.evaluation.facts import run_facts
from multiverse.evaluation.pages import page

MARKDOWN, PAGE, JSON, ROWS = "report.md", "report.html", "report.json", "rows.csv"
_LISTED = 20
_ALIKE = "(all items alike: the bootstrap cannot tell)"
_COLUMNS = (
    *("side", "suite", "item", "sample", "budget", "correct", "answer", "reference", "rule", "note", "finish"),
    *("tokens", "critical_path", "blocks", "width", "valid", "forced", "seconds", "attempts", "error"),
)


def write_report(run: Evaluated, command: str = "", speed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the files into the run's folder, or the one for its report. Returns what ``report.json`` holds."""
    config = run.config
    out = Path(config.report or config.out)
    out.mkdir(parents=True, exist_ok=True)
    names = side_names(run)
    found = figures(run)
    report: dict[str, Any] = {
        "kind": "evaluation",
        "command": command,
        "sides": {side: described(target, run.identities[side]) for side, target in config.sides.items()},
        # Without folders of this machine.
        "configuration": without_secrets(config.model_dump(mode="json", exclude={"out", "report"})),
        "sampling": {
            "samples": config.samples,
            "seeds": [config.seed + sample for sample in range(config.samples)],
            "temperature": config.sampling_temperature,
            "top_p": config.top_p if config.sampling_temperature else None,
            "answer_tokens": config.answer_tokens,
            "concurrency": config.concurrency,
        },
        "suites": found,
        "failures": failures(run),
        **({} if speed is None else {"speed": dict(speed)}),
        "commits": list(run.commits),
        "facts": run_facts(),
    }
    pictures: dict[str, bytes] = {}
    for suite in run.questions:
        sides = {side: run.items(side, suite) for side in config.sides}
        pictures[f"{suite.suite}-lengths.png"] = lengths(suite.suite, sides, names)
        if "budgets" in found[suite.suite]:
            unlimited = {side: found[suite.suite]["sides"][side]["pass@1"]["value"] for side in config.sides}
            plot = accuracy_by_budget(suite.suite, found[suite.suite]["budgets"], names, unlimited)
            pictures[f"{suite.suite}-budgets.png"] = plot
    for name, picture in pictures.items():
        (out / name).write_bytes(picture)
    (out / JSON).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = markdown(report, names)
    (out / MARKDOWN).write_text(text, encoding="utf-8")
    (out / PAGE).write_text(page(text, pictures), encoding="utf-8")
    (out / ROWS).write_text(_rows(run), encoding="utf-8")
    return report


def side_names(run: Evaluated) -> dict[str, str]:
    """What each side is called in tables: its model's name, if that tells them apart."""
    names = {side: target.name for side, target in run.config.sides.items()}
    return (
        names if len(set(names.values())) == len(names) else {side: f"{name} ({side})" for side, name in names.items()}
    )


def markdown(report: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The report for people."""
    parts = [f"# Evaluation: {' against '.join(names.values())}"]
    if report["command"]:
        parts.append(f"```\n{report['command']}\n```")
    sampling = report["sampling"]
    how = (
        "greedy" if not sampling["temperature"] else f"temperature {sampling['temperature']}, top-p {sampling['top_p']}"
    )
    seeds = sampling["seeds"]
    asked = "1 answer per item" if len(seeds) == 1 else f"{len(seeds)} answers per item"
    seeded = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    parts.append(
        f"{asked}, {how}, {seeded}. Intervals are at 95 %, by the bootstrap over items, where nothing else is said. An "
        "answer that could not be had counts as wrong. x is tokens / critical path."
    )
    for suite, found in report["suites"].items():
        parts += _suite(suite, found, names, sampling["samples"])
    if "speed" in report:
        parts += ["## One request at a time", _speed(report["speed"])]
    parts += _failures(report["failures"], names)
    facts = {key: report[key] for key in ("configuration", "sides", "sampling", "commits", "facts")}
    parts += ["## Configuration and machine", f"```json\n{json.dumps(facts, indent=1, ensure_ascii=False)}\n```"]
    return "\n\n".join(parts) + "\n"


def _suite(suite: str, found: Mapping[str, Any], names: Mapping[str, str], k: int) -> list[str]:
    parts = [f"## {suite}", f"{found['items']} items: {found['source']}, SHA-256 `{found['sha256']}`."]
    sides = found["sides"]
    lines: list[tuple[str, ...]] = [("pass@1", *(_estimate(side["pass@1"]) for side in sides.values()))]
    if k == 1:
        lines.append(("Wilson's interval", *(_interval(side["pass@1_wilson"]) for side in sides.values())))
    else:
        lines += [
            (f"avg@{k}", *(_estimate(side["avg@k"]) for side in sides.values())),
            (f"majority@{k}", *(_estimate(side["majority@k"]) for side in sides.values())),
            (f"pass@{k}", *(_percent(side["pass@k"]) for side in sides.values())),
        ]
    lines += [
        ("parallel", *(_percent(side["parallel"]) for side in sides.values())),
        ("valid structure, of those", *(_percent(side["valid_of_parallel"]) for side in sides.values())),
        ("x, mean", *(_number(side["x"], 2) for side in sides.values())),
        ("tokens, mean", *(_number(side["tokens"]) for side in sides.values())),
        ("critical path, mean", *(_number(side["critical_path"]) for side in sides.values())),
        ("finish reasons", *(_counts(side["finish"]) for side in sides.values())),
        ("fallbacks", *(_counts(side["fallbacks"]) for side in sides.values())),
        ("answers found by", *(_counts(side["rules"]) for side in sides.values())),
        ("failed", *(str(side["failed"]) for side in sides.values())),
    ]
    parts.append(_table(("", *(names[side] for side in sides)), lines))
    if (points := found.get("difference")) is not None:
        average, most = ("", "") if k == 1 else (f", of avg@{k}", f"by majority@{k}, ")
        parts.append(
            f"First minus second on the same items{average}: {_points(points['points'])}; {most}only the first is "
            f"right on {points['only_first']}, only the second on {points['only_second']} (McNemar, exact: "
            f"p = {points['p_value']:.3g})."
        )
    for side, rows in found.get("groups", {}).items():
        head = ("family", "tasks", "solved", "parallel", "valid", "right width", "x", "tokens")
        parts += [f"{names[side]}, by family:", _table(head, [_group(row) for row in rows])]
    parts.append(f"![Lengths of answers]({suite}-lengths.png)")
    if (budgets := found.get("budgets")) is not None:
        parts += _budgets(suite, budgets, names)
    return parts


def _budgets(suite: str, found: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    sides = [side for side in names if side in found["rows"][0]]
    head = ["budget", *(f"{what}{names[side]}" for what in ("", "forced, ", "failed, ") for side in sides)]
    measured = list(names.values())[-1]
    lines = []
    for row in found["rows"]:
        quantile = row["quantile"] and f": {row['quantile'].replace('%', ' %')} quantile of {measured}'s lengths"
        line = [f"{row['budget']}{quantile or ''}", *(_estimate(row[side]["accuracy"]) for side in sides)]
        line += [_percent(row[side]["forced"]) for side in sides]
        line += [str(row[side]["failed"]) for side in sides]
        lines.append((*line, _points(row["points"])) if "points" in row else tuple(line))
    if "points" in found["rows"][0]:
        head.append("difference")
    parts = [
        f"### Budget control, {suite}",
        "A budget is in positions of the critical path: where it ends, thinking is closed and the answer forced, for "
        "all models alike. Dashed in the plot: without a budget.",
        _table(head, lines),
    ]
    if "mean_points" in found:
        parts.append(f"Mean difference over the budgets: {_points(found['mean_points'])}.")
    return [*parts, f"![Accuracy against budget]({suite}-budgets.png)"]


def _failures(failed: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    if not failed:
        return []
    lines = []
    for entry in failed[:_LISTED]:
        budget = "-" if entry["budget"] is None else str(entry["budget"])
        which = (names[entry["side"]], entry["suite"], entry["item"], str(entry["sample"]), budget)
        lines.append((*which, str(entry["attempts"]), _cell(entry["reason"])))
    head = ("model", "suite", "item", "sample", "budget", "attempts", "reason")
    more = [f"... and {len(failed) - _LISTED} more, in `report.json`."] if len(failed) > _LISTED else []
    return ["## Failed items", _table(head, lines), *more]


def _speed(speed: Mapping[str, Any]) -> str:
    return (
        f"{speed['pairs']} tasks that split, answered by both in turn: the first is {speed['speed_up']:.2f} times as "
        f"fast end to end (median), {speed['speed_up_per_token']:.2f} times per token, at a mean x of {speed['x']:.2f}."
    )


def _group(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (_percent(row[name]) for name in ("solved", "parallel", "valid", "right_width"))
    return row["family"], str(row["tasks"]), *shares, _number(row["x"], 2), _number(row["tokens"])


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.1%} {_interval(found)}"


def _interval(found: Mapping[str, float]) -> str:
    return _ALIKE if _no_width(found) else f"({found['low']:.1%} to {found['high']:.1%})"


def _points(found: Mapping[str, float]) -> str:
    interval = _ALIKE if _no_width(found) else f"({found['low']:+.1f} to {found['high']:+.1f})"
    return f"{found['value']:+.1f} points {interval}"


def _no_width(found: Mapping[str, float]) -> bool:
    return found["high"] - found["low"] < 1e-9


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{_cell(name)} {count}" for name, count in found.items()) or "-"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:160]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])


def _rows(run: Evaluated) -> str:
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for side, records in run.records.items():
        for record in records.values():
            rows.writerow([side, *(getattr(record, name) for name in _COLUMNS[1:])])
    return buffer.getvalue()
