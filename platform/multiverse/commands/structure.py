"""``multiverse layout`` and ``multiverse inspect``: what structured text is, without any model."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from multiverse.structure.figures import figures
from multiverse.structure.grammar import GrammarError, parse
from multiverse.structure.layout import layout
from multiverse.structure.tags import split_words, word_kinds


def layout_line(line: str, where: str) -> dict[str, Any]:
    """The layout of one JSON line ``{"tokens": [...]}``. Raises ValueError, beginning with ``where``."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    words = value.get("tokens") if isinstance(value, dict) else None
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError(f'{where}: must be {{"tokens": [...]}} with a list of strings')
    placed = layout(word_kinds(words))
    return {
        "positions": placed.positions.tolist(),
        "hidden": [[list(interval) for interval in placed.hidden(index)] for index in range(len(words))],
        "next_position": placed.next_position,
        "parallelism": placed.parallelism,
    }


def inspect_file(path: Path) -> dict[str, Any]:
    """What is in one structured chain; tokens are words here."""
    try:
        text = path.read_bytes().decode("utf-8")
        parse(text)
    except (GrammarError, UnicodeDecodeError) as error:
        return {"file": str(path), "valid": False, "error": str(error)}
    found = figures(word_kinds(split_words(text)))
    return {
        "file": str(path),
        "valid": True,
        "blocks": found.blocks,
        "widths": list(found.widths),
        "depth": found.depth,
        "tokens": found.tokens,
        "critical_path": found.critical_path,
        "parallelism": found.parallelism,
    }


def show(reports: list[dict[str, Any]]) -> None:
    """A table of the valid files for people, and what is wrong with the others."""
    console = Console()
    table = Table(Column("file", overflow="fold"), "blocks", "widths", "depth", "tokens", "critical path", "x")
    for report in reports:
        if report["valid"]:
            widths = " ".join(map(str, report["widths"]))
            counts = [str(report[name]) for name in ("depth", "tokens", "critical_path")]
            table.add_row(report["file"], str(report["blocks"]), widths, *counts, f"{report['parallelism']:.3f}")
    if table.rows:
        console.print(table)
    for report in reports:
        if not report["valid"]:
            console.print(f"{report['file']}: {report['error']}", markup=False, highlight=False, soft_wrap=True)
