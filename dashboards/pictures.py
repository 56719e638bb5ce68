"""A picture of a dashboard's queries: what its panels show of a run, without Grafana."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dashboards.panels import UNITS

COLUMNS = 3
Series = Sequence[Mapping[str, Any]]
"""As Prometheus' ``query_range`` gives them."""


def draw(board: Mapping[str, Any], results: Mapping[tuple[int, str], Series], path: Path) -> None:
    """board: a dashboard. results: by panel's id and query's letter. path: of the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    height = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(height, COLUMNS, figsize=(15, 2.6 * height), squeeze=False)
    began = min((float(one["values"][0][0]) for series in results.values() for one in series), default=0.0)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for panel, axis in zip(panels, axes.flat, strict=False):
        axis.set_title(panel["title"], fontsize=9)
        axis.set_ylabel(_unit(panel), fontsize=7)
        axis.tick_params(labelsize=7)
        for target in panel["targets"]:
            for one in results.get((panel["id"], target["refId"]), ()):
                times = [float(at) - began for at, _ in one["values"]]
                values = [float(value) for _, value in one["values"]]
                axis.plot(times, values, linewidth=1, label=_legend(target["legendFormat"], one["metric"]))
        if axis.lines:
            axis.legend(fontsize=6, loc="upper left")
        else:
            axis.text(0.5, 0.5, "nothing of it happened", ha="center", transform=axis.transAxes, fontsize=8)
    figure.suptitle(f"{board['title']} (seconds from the first sample)", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _unit(panel: Mapping[str, Any]) -> str:
    options = panel["options"]["yAxis"] if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]
    return next(name for name, unit in UNITS.items() if unit == options["unit"])


def _legend(text: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text
