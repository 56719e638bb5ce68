"""Runs beside each other: the figures of their ``report.json``, whatever was measured, and the facts that differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from multiverse.storage import open_folder

FILE = "report.json"
SECTIONS = {"speed": ("figures", "cells"), "evaluation": ("suites", "speed")}
"""Of each kind of report, where its figures are."""
OF_A_CELL = ("x", "over_ar", "of_limit", "join_gain")
"""Ratios: seconds and milliseconds are those of a machine."""
_NAMED_BY = ("cell", "budget", "family")


@dataclass(frozen=True, slots=True)
class Figure:
    """low, high: its interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        shown = f"{self.value:.4g}"
        return shown if self.low is None or self.high is None else f"{shown} ({self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True, slots=True)
class Report:
    """name: its folder's. figures: by where they stand. facts: by name, flat."""

    name: str
    kind: str
    figures: dict[str, Figure]
    facts: dict[str, str]


def load(location: str) -> Report:
    """The report in a folder or under an s3:// prefix. Raises ValueError if it is none, OSError if there is none."""
    folder = open_folder(location)
    try:
        values = json.loads(folder.read(FILE))
        kind = values["kind"]
        sections = {name: values[name] for name in SECTIONS[kind] if name in values}
        facts = dict(_facts(_conditions(values) | values["facts"]))
    except FileNotFoundError:
        raise FileNotFoundError(f"{location} holds no {FILE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{location}: {FILE} is not a report of a speed run or an evaluation: {error!r}") from error
    return Report(PurePath(location).name, kind, dict(_figures(sections)), facts)


def compare(reports: Sequence[Report]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of figures and of facts, a column per report, and of two the change from the first to the second.

    Figures: all that any of them has. Facts: those that differ. Raises ValueError for reports of different kinds.
    """
    if len({report.kind for report in reports}) > 1:
        kinds = ", ".join(f"{report.name}: {report.kind}" for report in reports)
        raise ValueError(f"reports of different kinds are not compared ({kinds})")
    columns = _columns(reports)
    figures = []
    for name in dict.fromkeys(name for report in reports for name in report.figures):
        found = [report.figures.get(name) for report in reports]
        row = {"figure": name} | {
            column: "-" if figure is None else str(figure) for column, figure in zip(columns, found, strict=True)
        }
        if len(reports) == 2:
            row["change"] = _change(*found)
        figures.append(row)
    facts = []
    for name in dict.fromkeys(name for report in reports for name in report.facts):
        values = [report.facts.get(name, "-") for report in reports]
        if len(set(values)) > 1:
            facts.append({"fact": name} | dict(zip(columns, values, strict=True)))
    return figures, facts


def _columns(reports: Sequence[Report]) -> list[str]:
    names = [report.name for report in reports]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names, 1)]


def _change(first: Figure | None, second: Figure | None) -> str:
    if first is None or second is None:
        return "-"
    relative = f" ({second.value / first.value - 1:+.1%})" if first.value else ""
    return f"{second.value - first.value:+.4g}{relative}"


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, Figure]]:
    if isinstance(value, bool) or not isinstance(value, int | float | Mapping | list):
        return
    if isinstance(value, int | float):
        yield name, Figure(float(value))
    elif isinstance(value, list):
        for item in value:
            label = next((str(item[key]) for key in _NAMED_BY if key in item), "") if isinstance(item, Mapping) else ""
            if label:
                ratios = {key: item[key] for key in OF_A_CELL if key in item} if "cell" in item else item
                yield from _figures({key: ratios[key] for key in ratios if key not in _NAMED_BY}, _join(name, label))
    elif isinstance(value.get("value"), int | float):
        yield name, Figure(float(value["value"]), value.get("low"), value.get("high"))
    else:
        for key, item in value.items():
            yield from _figures(item, _join(name, str(key)))


def _join(name: str, part: str) -> str:
    return part if name in ("", *(section for some in SECTIONS.values() for section in some)) else f"{name}, {part}"


def _conditions(values: Mapping[str, Any]) -> dict[str, Any]:
    """Who was asked or measured, what, and how: figures of different models and questions are not alike."""
    asked = {
        name: {key: suite[key] for key in ("sha256", "max_tokens") if key in suite}
        for name, suite in values.get("suites", {}).items()
    }
    names = ("sampling", "sides", "configuration", "config", "commits", "machines")
    return {name: values[name] for name in names if name in values} | {"suites": asked}


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _facts(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)
