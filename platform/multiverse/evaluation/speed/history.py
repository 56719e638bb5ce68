"""The history of a small grid: ratios only, so that machines of different speed can be held against each other."""

import json
from datetime import date
from pathlib import Path
from typing import Any

TOLERANCE = 0.15
"""How far a ratio may fall below the stored one."""
GAIN_TOKENS = 256
"""From so many tokens of branches on the gain of a join counts: below, it and a second prefill take a few steps."""
KEPT = 20


def of_report(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By cell. Decoding stands for the share of the limit, which swings more."""
    found = {}
    for row in report["cells"]:
        names = ("over_ar", "decoding", *(("join_gain",) if row["branch_tokens"] >= GAIN_TOKENS else ()))
        found[row["cell"]] = {name: round(row[name], 3) for name in names}
    return found


def load(path: Path) -> list[dict[str, Any]]:
    """Entries, the newest last; none where there is no file. Raises ValueError for a damaged one."""
    if not path.exists():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries:
            _ = {name: float(value) for values in entry["ratios"].values() for name, value in values.items()}
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a history of ratios: {error!r}") from error
    return entries


def store(path: Path, found: dict[str, dict[str, float]], commit: str) -> None:
    """Append an entry; the oldest go."""
    entries = [*load(path), {"date": date.today().isoformat(), "commit": commit, "ratios": found}]
    lines = ",\n".join(json.dumps(entry) for entry in entries[-KEPT:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def fallen(found: dict[str, dict[str, float]], stored: dict[str, dict[str, float]]) -> list[str]:
    """What is more than `TOLERANCE` under the stored ratios, or is missing, in words."""
    lines = []
    for cell, values in stored.items():
        for name, before in values.items():
            now = found.get(cell, {}).get(name)
            if now is None:
                lines.append(f"{cell}, {name}: was {before:.3f}, was not measured")
            elif now < before * (1 - TOLERANCE):
                lines.append(f"{cell}, {name}: {now:.3f}, {1 - now / before:.0%} under the stored {before:.3f}")
    return lines
