"""The plot of a comparison of placement policies."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multiverse.evaluation.placement.comparison import BOUND, Cell
from multiverse.evaluation.placement.workload import BRANCHES, WIDTHS

COLOURS = {"home": "tab:blue", "spread": "tab:orange", "adaptive": "tab:green"}


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Mean latency over the better of ``home`` and ``spread``: a panel per branch lengths and widths; in it, cells by
    load and then by replicas."""
    kinds = [(b, w) for w in WIDTHS for b in BRANCHES if any((c.branches, c.widths) == (b, w) for c in cells)]
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel, (branches, widths) in zip(panels.flat, kinds, strict=False):
        _panel(panel, [cell for cell in cells if (cell.branches, cell.widths) == (branches, widths)])
        low, high = WIDTHS[widths]
        panel.set_title(f"{branches} branches, {low} to {high}", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("mean latency / better of\nhome and spread", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(COLOURS) + 1, fontsize=9)
    figure.savefig(path, dpi=90)


def _panel(panel: Axes, cells: Sequence[Cell]) -> None:
    cells = sorted(cells, key=lambda cell: (cell.load, cell.replicas))
    best = [min(cell.figures["home"].mean, cell.figures["spread"].mean) for cell in cells]
    for load in sorted({cell.load for cell in cells}):
        where = [number for number, cell in enumerate(cells) if cell.load == load]
        panel.text(where[0], 1.47, f"load {load:g}", fontsize=7, va="top")
        panel.axvline(where[0] - 0.5, color="0.8", linewidth=0.6)
        for name, colour in COLOURS.items():
            ratios = [cells[number].figures[name].mean / best[number] for number in where]
            label = name if where[0] == 0 else None
            panel.plot(where, ratios, color=colour, marker="o", markersize=3, linewidth=1, label=label)
    panel.axhline(BOUND, color="0.4", linestyle=":", linewidth=1, label="bound for adaptive")
    panel.set_ylim(0.8, 1.5)
    panel.set_xticks(range(len(cells)), [str(cell.replicas) for cell in cells], fontsize=6, rotation=90)
    panel.tick_params(axis="y", labelsize=7)
    panel.set_xlabel("replicas", fontsize=8)
