"""The data card: what a run gave, in tables and plots, from its own files."""

import io
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import Intake
from multiverse.curation.job.plots import HISTOGRAMS, plots
from multiverse.curation.job.records import DEAD, ROWS, Record, from_lines
from multiverse.curation.stages.modes import MODES
from multiverse.storage import Folder, Prefix

CARD = "README.md"
_CONTENTS = """`rows/*.parquet` and `jsonl/*.jsonl` hold the same rows: `question`, `chain` (structured), `answer`,
`sequential` (the same chain without structure), provenance and figures. `dead-letters.jsonl` holds the rows that are
not among them, each with the reason. Tokens of figures are words; prompt and answer tokens are the LLM's."""
_EXAMPLE = 1200
"""Characters of the example."""


def write_card(config: CurateConfig, folder: Folder | Prefix, intake: Intake) -> None:
    """README.md and card/*.png. The same for the same rows, whenever and in how many runs they were made."""
    rows = _rows(folder)
    letters = [
        letter
        for name in sorted(name for name in folder.names() if name.startswith(f"{DEAD}/"))
        for letter in from_lines(folder.read(name))
    ]
    folder.write(CARD, _markdown(config, intake, rows, letters).encode("utf-8"))
    for name, content in plots(stage_yield(intake, rows, letters, config.stages.mode), rows).items():
        folder.write(f"card/{name}.png", content)


def stage_yield(intake: Intake, rows: Sequence[Record], letters: Sequence[Record], mode: str) -> list[tuple[str, int]]:
    """Per stage how many rows came out of it, in order; first all that were read, last those of the output."""
    lost = Counter(letter["stage"] for letter in letters)
    left = intake.read
    found = [("read", left)]
    left -= sum(intake.left_out.values())
    if intake.left_out:
        found.append(("selection", left))
    asked = MODES[mode].STAGES
    order = ["source", "decontamination", "duplicates", "chain", *asked]
    order += sorted(stage for stage in lost if stage not in order)
    for stage in order:
        if lost[stage] or stage in asked:
            left -= lost[stage]
            found.append((stage, left))
    assert left == len(rows), (left, len(rows))
    return found


def _rows(folder: Folder | Prefix) -> list[Record]:
    """The output's columns that the card needs; one row keeps its texts, as the example."""
    from pyarrow import parquet

    rows: list[Record] = []
    shortest: Record | None = None
    for name in (name for name in folder.names() if name.startswith(f"{ROWS}/")):
        table = parquet.read_table(io.BytesIO(folder.read(name)))
        for row in table.to_pylist():
            if row["blocks"] and (shortest is None or len(row["chain"]) < len(shortest["chain"])):
                shortest = dict(row)
            rows.append({key: value for key, value in row.items() if key not in ("chain", "sequential", "question")})
    if shortest is not None:
        rows[next(at for at, row in enumerate(rows) if row["id"] == shortest["id"])] |= shortest
    return rows


def _markdown(config: CurateConfig, intake: Intake, rows: Sequence[Record], letters: Sequence[Record]) -> str:
    parallel = [row for row in rows if row["blocks"]]
    models = sorted({row["model"] for row in rows if row["model"]})
    prompts = sorted({row["prompts"] for row in rows})
    stages = stage_yield(intake, rows, letters, config.stages.mode)
    reasons = Counter((letter["stage"], _kind(letter["reason"])) for letter in letters)
    everything = [*rows, *letters]
    calls: Counter[str] = Counter()
    for record in everything:
        calls.update(json.loads(record["calls"]))
    parts = [
        "# Data card",
        f"{len(rows):,} rows from {intake.read:,} of `{config.source}`, {len(parallel):,} of them with parallel "
        f"blocks. Mode {config.stages.mode}, prompts {', '.join(prompts) or '-'}, model {', '.join(models) or '-'}.",
        _CONTENTS,
        "## Yield",
        _table(
            ("after", "rows", "share"), [(stage, f"{count:,}", _share(count, intake.read)) for stage, count in stages]
        ),
        "![Yield per stage](card/yield.png)",
    ]
    if intake.left_out:
        left_out = [(reason, f"{count:,}") for reason, count in sorted(intake.left_out.items())]
        parts += ["Left out by selection:", _table(("reason", "rows"), left_out)]
    if reasons:
        lines = [(stage, reason, f"{count:,}") for (stage, reason), count in reasons.most_common(20)]
        parts += ["Dead letters, the most frequent reasons:", _table(("stage", "reason", "rows"), lines)]
    parts += ["## Structure"]
    if parallel:
        parts += [
            _table(("per row", "least", "median", "mean", "most"), _spreads(parallel)),
            "Shortening: the chain's length over the critical path of its structured form, the limit of the speed-up.",
            *(f"![{title}](card/{name}.png)" for name, title in HISTOGRAMS.items()),
        ]
    else:
        parts.append("No row has parallel blocks.")
    rewritten = sum(bool(row["diff"]) for row in rows)
    merged = sum(row["merged"] for row in rows)
    parts += [
        "## Fidelity",
        f"{len(rows) - rewritten:,} rows flatten to their source, byte for byte. In {rewritten:,} rows something was "
        f"rewritten; their `diff` shows what. {merged:,} blocks were made sequential again by the independence check.",
        "## What the LLM was asked",
        _table(("stage", "answers"), [(stage, f"{count:,}") for stage, count in sorted(calls.items())]),
        _table(
            ("", "per row", "all"),
            [
                _sum_line("requests", [record["requests"] for record in everything]),
                _sum_line("prompt tokens", [record["prompt_tokens"] for record in everything]),
                _sum_line("answer tokens", [record["completion_tokens"] for record in everything]),
                _sum_line("cost", [record["cost"] for record in everything], digits=4),
            ],
        ),
        "Answers that came from the cache count as when they were made. Dead letters are included.",
    ]
    if (example := next((row for row in parallel if "chain" in row), None)) is not None:
        text = example["chain"]
        shown = text if len(text) <= _EXAMPLE else f"{text[:_EXAMPLE]}\n[...]"
        fence = "`" * 3
        while fence in shown:
            fence += "`"
        parts += ["## Example", f"Row `{example['id']}`, the shortest with a block:", f"{fence}\n{shown}\n{fence}"]
    settings = json.dumps(config.essence(), indent=1)
    parts += ["## Settings", f"```json\n{settings}\n```"]
    return "\n\n".join(parts) + "\n"


def _spreads(rows: Sequence[Record]) -> list[tuple[str, ...]]:
    columns: Mapping[str, list[float]] = {
        "blocks": [row["blocks"] for row in rows],
        "width of a block": [width for row in rows for width in row["widths"]],
        "depth": [row["depth"] for row in rows],
        "tokens": [row["tokens"] for row in rows],
        "critical path": [row["critical_path"] for row in rows],
        "parallelism": [row["parallelism"] for row in rows],
        "shortening": [row["shortening"] for row in rows],
    }
    return [
        (
            name,
            *(f"{value:,.2f}" for value in (min(found), statistics.median(found), statistics.fmean(found), max(found))),
        )
        for name, found in columns.items()
    ]


def _kind(reason: str) -> str:
    """A reason without what differs from row to row, to be counted."""
    text = " ".join(reason.split()).replace("|", "/")
    return text if len(text) <= 120 else f"{text[:117]}..."


def _sum_line(name: str, values: Sequence[float], digits: int = 0) -> tuple[str, str, str]:
    total = sum(values)
    return name, f"{total / max(1, len(values)):,.{max(1, digits)}f}", f"{total:,.{digits}f}"


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else "-"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
