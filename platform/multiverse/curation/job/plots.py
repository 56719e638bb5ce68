"""The plots of a data card."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from multiverse.curation.job.records import Record

HISTOGRAMS = {
    "widths": "Branches of a block",
    "depth": "Depth of a row",
    "parallelism": "Parallelism of a row",
    "tokens": "Tokens of a row",
    "cost": "Cost of a row",
}


def plots(stages: Sequence[tuple[str, int]], rows: Sequence[Record]) -> dict[str, bytes]:
    """PNG by name: how many rows came out of each stage, and a histogram each of `HISTOGRAMS`, if rows have blocks."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    def saved(figure: Any) -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
        return buffer.getvalue()

    if len(stages) > 1 and stages[1][0] == "selection":
        stages = stages[1:]
    figure = Figure(figsize=(6, 0.4 * len(stages) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in stages], [count for _, count in stages])
    axes.invert_yaxis()
    axes.set_xlabel("rows after the stage")
    images = {"yield": saved(figure)}
    parallel = [row for row in rows if row["blocks"]]
    if not parallel:
        return images
    values: Mapping[str, list[float]] = {
        "widths": [width for row in parallel for width in row["widths"]],
        "depth": [row["depth"] for row in parallel],
        "parallelism": [row["parallelism"] for row in parallel],
        "tokens": [row["tokens"] for row in parallel],
        "cost": [row["cost"] for row in parallel],
    }
    for name, found in values.items():
        figure = Figure(figsize=(4.5, 2.6), layout="constrained")
        axes = figure.subplots()
        if name in ("widths", "depth"):
            counts = Counter(int(value) for value in found)
            axes.bar(list(counts), list(counts.values()))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.hist(found, bins=min(30, max(5, len(found) // 5)))
        axes.set_xlabel(HISTOGRAMS[name])
        axes.set_ylabel("blocks" if name == "widths" else "rows")
        images[name] = saved(figure)
    return images
