"""The plots of a speed report."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multiverse.evaluation.speed.summary import OF_LIMIT, OF_LIMIT_ALONE, Row


def speed_ups(rows: Sequence[Row]) -> bytes:
    """PNG: times as fast as in sequence against x, a panel per context, a colour per batch size; dashed: the limit."""
    contexts = sorted({row.context for row in rows})
    batches = sorted({row.batch for row in rows})
    columns = min(3, len(contexts))
    lines = -(-len(contexts) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, context in zip(panels.flat, contexts, strict=False):
        for number, batch in enumerate(batches):
            some = sorted((r for r in rows if (r.batch, r.context) == (batch, context)), key=lambda row: row.x)
            _curve(panel, some, f"C{number}", f"batch {batch}")
        panel.axhline(1.0, color="0.7", linewidth=0.8)
        panel.set_title(f"{context} tokens before", fontsize=9)
        panel.set_xlabel("x = tokens / critical path", fontsize=8)
        panel.tick_params(labelsize=7)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7)
    for panel in list(panels.flat)[len(contexts) :]:
        panel.set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel("times as fast as in sequence", fontsize=8)
    return _png(figure)


def _curve(panel: Axes, rows: Sequence[Row], colour: str, label: str) -> None:
    if not rows:
        return
    x = [row.x for row in rows]
    below = [row.over_ar.median - row.over_ar.low for row in rows]
    above = [row.over_ar.high - row.over_ar.median for row in rows]
    panel.errorbar(
        x, [row.over_ar.median for row in rows], [below, above],
        color=colour, marker="o", markersize=3, linewidth=1.2, capsize=2, label=label,
    )  # fmt: skip
    panel.plot(x, [row.limit.median for row in rows], color=colour, linestyle="--", linewidth=0.9)


def of_limit(rows: Sequence[Row]) -> bytes:
    """PNG: how much of the limit is reached, a point per cell, with the bounds."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    panel = figure.subplots()
    batches = sorted({row.batch for row in rows})
    for number, batch in enumerate(batches):
        some = [row for row in rows if row.batch == batch]
        places = [number + (place + 0.5) / len(some) * 0.8 - 0.4 for place in range(len(some))]
        middle = [row.of_limit.median for row in some]
        low = [row.of_limit.median - row.of_limit.low for row in some]
        high = [row.of_limit.high - row.of_limit.median for row in some]
        panel.errorbar(places, middle, [low, high], fmt="o", markersize=3, linewidth=0.8, color=f"C{number}")
        bound = OF_LIMIT_ALONE if batch == 1 else OF_LIMIT
        panel.hlines(bound, number - 0.45, number + 0.45, color="0.3", linestyle=":", linewidth=1)
    panel.axhline(1.0, color="0.7", linewidth=0.8)
    panel.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    panel.set_xlabel("batch (within each: cells in the order of the table; dotted: the bound)", fontsize=8)
    panel.set_ylabel("measured / limit", fontsize=8)
    return _png(figure)


def joins(rows: Sequence[Row]) -> bytes:
    """PNG: a join by KV beside a second prefill of the same branches, both in ms."""
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    panel = figure.subplots()
    for number, batch in enumerate(sorted({row.batch for row in rows})):
        some = [row for row in rows if row.batch == batch]
        places = [row.branch_tokens for row in some]
        colour = f"C{number}"
        panel.scatter(places, [r.join_ms.median for r in some], s=14, color=colour, label=f"join, batch {batch}")
        panel.scatter(places, [r.second_prefill_ms.median for r in some], s=18, color=colour, marker="x")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel("tokens of branches per request (crosses: second prefill)", fontsize=8)
    panel.set_ylabel("ms to the first token behind them", fontsize=8)
    panel.legend(fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, format="png")
    return buffer.getvalue()
