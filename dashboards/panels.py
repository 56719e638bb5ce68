"""How our dashboards look: their frame and the few kinds of panel that they are made of."""

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.heatmap import Panel as HeatmapPanel
from grafana_foundation_sdk.builders.heatmap import YAxisConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.queries import Query, rate
from multiverse.telemetry.metric import Metric

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
HALF, THIRD, QUARTER = 12, 8, 6
"""Widths; a row has 24."""

UNITS = {
    "seconds": "s",
    "bytes": "bytes",
    "bytes/s": "Bps",
    "ratio": "suffix: x",
    "share": "percentunit",
    "tokens/s": "suffix: tok/s",
    "requests/s": "reqps",
    "per second": "ops",
    "count": "short",
    "nats": "suffix: nats",
    "number": "none",
    "scientific": "sci",
}


def frame(title: str, uid: str, description: str, models: Metric, *, deployments: bool = True) -> Dashboard:
    """An empty dashboard. models: the metric whose labels say which models and deployments there are."""
    made = (
        Dashboard(f"Multiverse / {title}")
        .uid(uid)
        .description(description)
        .tags(["multiverse"])
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_labels("model", "Model", f"label_values(ray_{models.name}, model)"))
    )
    if deployments:
        query = f'label_values(ray_{models.name}{{model=~"$model"}}, application)'
        made = made.with_variable(_labels("deployment", "Deployment", query))
    return made


def _labels(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def row(title: str) -> Row:
    return Row(title)


def lines(title: str, description: str, unit: str, *queries: Query, width: int = HALF) -> TimeseriesPanel:
    """Lines over time. unit: one of `UNITS`."""
    panel = (
        TimeseriesPanel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(UNITS[unit])
        .height(HEIGHT)
        .span(width)
        .line_width(1)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if unit != "number":
        panel = panel.min(0)
    for target in _targets(queries):
        panel = panel.with_target(target)
    return panel


def figure(title: str, description: str, unit: str, query: Query, width: int = QUARTER) -> StatPanel:
    """One number, and how it went."""
    (target,) = _targets([query])
    return (
        StatPanel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(UNITS[unit])
        .decimals(2)
        .height(4)
        .span(width)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(target)
    )


def distribution(
    title: str, description: str, unit: str, metric: Metric, width: int = HALF, **labels: str
) -> HeatmapPanel:
    """A histogram over time."""
    query = Query(rate(metric, "le", suffix="_bucket", **labels), "{{le}}")
    (target,) = _targets([query])
    return (
        HeatmapPanel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(HEIGHT)
        .span(width)
        .calculate(False)
        .y_axis(YAxisConfig().unit(UNITS[unit]))
        .cell_gap(1)
        .with_target(target.format(PromQueryFormat.HEATMAP))
    )


def _targets(queries: Sequence[Query]) -> list[Dataquery]:
    return [
        Dataquery().expr(query.expr).legend_format(query.legend).range().ref_id(name).datasource(SOURCE)
        for name, query in zip(ascii_uppercase, queries, strict=False)
    ]
