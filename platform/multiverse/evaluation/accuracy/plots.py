"""The plots of a report."""

import io
from collections.abc import Mapping
from typing import Any

from multiverse.evaluation.accuracy.figures import Items


def accuracy_by_budget(
    suite: str, found: Mapping[str, Any], names: Mapping[str, str], unlimited: Mapping[str, float]
) -> bytes:
    """Accuracy of each side against budget, with intervals; dashed what it is without a budget. PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (side, name) in enumerate(names.items()):
        rows = [(row["budget"], row[side]["accuracy"]) for row in found["rows"]]
        values = [accuracy["value"] for _, accuracy in rows]
        low = [accuracy["value"] - accuracy["low"] for _, accuracy in rows]
        high = [accuracy["high"] - accuracy["value"] for _, accuracy in rows]
        colour = f"C{number}"
        axes.errorbar([at for at, _ in rows], values, yerr=[low, high], marker="o", capsize=3, label=name, color=colour)
        axes.axhline(unlimited[side], linestyle="--", linewidth=0.8, color=colour)
    axes.set_xlabel("budget, positions of the critical path")
    axes.set_ylabel(f"right answers, {suite}")
    axes.set_ylim(bottom=0)
    axes.legend()
    return _png(figure)


def lengths(suite: str, sides: Mapping[str, Items], names: Mapping[str, str]) -> bytes:
    """How long answers are, in tokens and in positions of the critical path. PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, field in ((left, "tokens"), (right, "critical_path")):
        found = {
            names[side]: [value for item in items for record in item if (value := getattr(record, field)) is not None]
            for side, items in sides.items()
        }
        found = {name: values for name, values in found.items() if values}
        if found:
            axes.hist(list(found.values()), bins=25, label=list(found), histtype="step")
        axes.set_xlabel(f"{field.replace('_', ' ')} of an answer, {suite}")
    left.set_ylabel("answers")
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize="small")
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
