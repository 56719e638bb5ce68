"""``multiverse bench``: the commands that measure. Each prints a table, and with ``--json`` one JSON object last."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiverse.config import DEFAULT_MODEL
from multiverse.evaluation.speed import command

if TYPE_CHECKING:
    from multiverse.config import AppConfig
    from multiverse.engine.config import EngineConfig

app = typer.Typer(help="Measure: every figure is of this run, on this machine.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Model = Annotated[str, typer.Option(help="Directory, hub id, s3:// prefix or builtin:smollm2-135m.")]
Eager = Annotated[bool, typer.Option(help="Without compilation: starts sooner, decodes slower.")]
Replicas = Annotated[int, typer.Option(min=1, help="Engine replicas; with several, the Serve application is started.")]
Nodes = Annotated[int, typer.Option(min=1, help="Ray nodes that the replicas are spread over, all on this machine.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs of each measurement; the median counts.")]


@app.command()
def lossless(
    chains: Annotated[list[Path] | None, typer.Argument(help="Structured chains to replay.")] = None,
    model: Model = DEFAULT_MODEL,
    max_tokens: Annotated[int, typer.Option(help="Of each chain, its beginning up to whole blocks.")] = 4096,
    concurrency: Annotated[list[int] | None, typer.Option(help="Probes at the same time; default: 1 and 16.")] = None,
    replicas: Replicas = 1,
    nodes: Nodes = 1,
    as_json: AsJson = False,
) -> None:
    """Is the merge lossless? Log-probabilities of the engine against the layout's forward, float32."""
    if replicas > 1:
        from multiverse.evaluation.replicas import measure_lossless

        if chains:
            raise typer.BadParameter("chains are replayed on one replica: leave out --replicas, or the chains")
        options = {"dtype": "float32", "block_size": 32, "max_model_len": 2048, "kv_cache_gib": 0.5}
        served = _served(model, replicas, options | {"enforce_eager": True, "self_test": False})
        report = measure_lossless(served, nodes, max(concurrency or [16]))
    else:
        from multiverse.evaluation.lossless import measure

        config = _config(model, dtype="float32", enforce_eager=True, block_size=32, self_test=False)
        report = asyncio.run(measure(config, chains or [], max_tokens, concurrency or [1, 16]))
    rows = [{"phase": name, **figures} for name, figures in report.pop("phases").items()]
    show_table("Lossless merge", rows)
    for line in (*report["greedy_unequal"], *report["ties"]):
        typer.echo(f"  {line}")
    _end(report | {"phases": rows}, as_json, ok=report["ok"])


@app.command()
def join(
    model: Model = DEFAULT_MODEL,
    eager: Eager = False,
    repeats: Repeats = 5,
    replicas: Replicas = 1,
    nodes: Nodes = 1,
    megabytes: Annotated[int, typer.Option(min=1, help="With several replicas: KV that is moved.")] = 64,
    as_json: AsJson = False,
) -> None:
    """What a join costs, in decode steps, beside a second prefill of the same text on the same engine.

    With several replicas: how fast KV gets from one to another, beside a plain memcpy.
    """
    if replicas > 1:
        from multiverse.evaluation.replicas import measure_join

        served = _served(model, replicas, {"enforce_eager": eager, "self_test": False, "max_model_len": 8192})
        report = measure_join(served, nodes, megabytes, repeats)
        show_table("KV between replicas", [{"figure": name, "value": value} for name, value in report.items()])
        _end(report, as_json)
        return
    from multiverse.evaluation.timing import measure_joins

    rows = asyncio.run(measure_joins(_config(model, enforce_eager=eager, self_test=False), repeats))
    show_table("Join", rows)
    _end({"joins": rows}, as_json)


@app.command()
def speed(
    model: command.Model = None,
    trace: command.Trace = None,
    small: command.Small = False,
    store: command.Store = False,
    history: command.History = command.HISTORY,
    minutes: command.Minutes = None,
    repeats: command.Repeats = None,
    eager: command.Eager = False,
    config: command.ConfigFile = None,
    out: command.Out = None,
    notes: command.Notes = None,
    only_report: command.OnlyReport = False,
    as_json: AsJson = False,
) -> None:
    """Batch sizes x parallelism x contexts against sequence, second prefill and the engine's own limit.

    The same command goes on where a run stopped. With --small: exits with 1 if a ratio is more than 15 % under the
    history's newest.
    """
    try:
        loaded = command.load(config, small, eager, trace, model=model, minutes=minutes, repeats=repeats, out=out)
        command.command(loaded, small, store, history, notes, as_json, only_report)
    except (ValueError, OSError) as error:
        typer.echo(f"multiverse: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def load(
    model: Model = DEFAULT_MODEL,
    eager: Eager = False,
    replicas: Annotated[int, typer.Option(min=1, help="Engine replicas.")] = 2,
    nodes: Nodes = 1,
    seconds: Annotated[float, typer.Option(min=1, help="How long clients go on asking.")] = 300,
    clients: Annotated[int, typer.Option(min=1, help="At the same time.")] = 64,
    chaos: Annotated[bool, typer.Option(help="Kill engine replicas, one after the other, and a reducer.")] = False,
    kills: Annotated[int, typer.Option(min=1, help="With --chaos: engine replicas that are killed.")] = 4,
    throughput: Annotated[
        bool, typer.Option(help="Instead: one mode at a time, force against off; exits with 1 where force is slower.")
    ] = False,
    slices: Annotated[int, typer.Option(min=1, help="With --throughput: turns of each mode.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Many clients at once, in modes auto, force and off; a tenth of them go before the end.

    A model that is not trained is made to open blocks in auto.
    """
    from multiverse.evaluation.load import Load, measure_load, measure_throughput

    engine = {"enforce_eager": eager, "max_model_len": 2048, "kv_cache_gib": 1.0, "self_test": False}
    config = _served(model, replicas, engine, placement="adaptive", reducers=2)
    if throughput:
        report = measure_throughput(config, Load(seconds, clients, cancelled=0.0), slices, nodes)
    else:
        report = measure_load(config, Load(seconds, clients, kills if chaos else 0), nodes)
    show_table("Load", [{"figure": name, "value": str(value)} for name, value in report.items()])
    _end(report, as_json, ok=report["ok"])


@app.command()
def overhead(
    model: Model = DEFAULT_MODEL,
    eager: Eager = False,
    pairs: Annotated[int, typer.Option(min=10, help="Requests over HTTP and directly, in turn.")] = 12,
    as_json: AsJson = False,
) -> None:
    """What routers, Serve and HTTP add to a request at batch 1. Exits with 1 above 10 %."""
    from multiverse.evaluation.overhead import measure_overhead

    engine = {"enforce_eager": eager, "max_model_len": 2048, "kv_cache_gib": 0.5, "self_test": False}
    report = measure_overhead(_served(model, 1, engine, placement="home"), pairs)
    show_table("Overhead of the HTTP path", [report])
    _end(report, as_json, ok=report["ok"])


@app.command()
def metrics(
    model: Model = DEFAULT_MODEL,
    eager: Eager = False,
    pairs: Annotated[int, typer.Option(min=2, help="Runs with metrics and without, in turn.")] = 12,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=32, help="Of an answer.")] = 160,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What metrics cost, in CPU seconds per generated token. Exits with 1 above 1 %."""
    from multiverse.evaluation.metrics_cost import measure_metrics

    engine = {"dtype": dtype, "enforce_eager": eager, "max_model_len": 2048, "kv_cache_gib": 2.0}
    report = measure_metrics(_served(model, 1, engine, placement="home"), pairs, concurrency, max_tokens, _progress)
    show_table("Cost of metrics", [report])
    _end(report, as_json, ok=report["ok"])


@app.command()
def placement(
    costs: Annotated[Path | None, typer.Option(help="JSON file of other costs; default: those of the package.")] = None,
    seed: Annotated[int, typer.Option(help="Of the requests; every policy gets the same ones.")] = 0,
    quick: Annotated[bool, typer.Option(help="A few cells and fewer requests: seconds instead of minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory for placement.csv and placement.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which replicas should branches run on? Placement policies compared in simulation, on 2 to 1,000 replicas.

    Latencies in seconds. Exits with 1 if adaptive placement is more than 5 % slower than the better of the others in
    any cell.
    """
    from multiverse.evaluation.placement.comparison import QUICK, Grid, compare, summary, write_table
    from multiverse.serving.placement.costs import Costs

    measured, cells = Costs.load(costs), []
    for cell in compare(QUICK if quick else Grid(), measured, seed):
        cells.append(cell)
        typer.echo(f"{cell.replicas} replicas, load {cell.load:g}, {cell.branches}, {cell.widths}", err=True)
    report = summary(cells, measured, seed)
    show_table("Placement", report["cells"])
    worst = ", ".join(str(value) for value in report["worst_cell"])
    typer.echo(f"adaptive / better of the others, worst cell ({worst}): {report['worst_ratio']:.3f}")
    if out is not None:
        from multiverse.evaluation.placement.plot import plot

        out.mkdir(parents=True, exist_ok=True)
        write_table(cells, out / "placement.csv")
        plot(cells, out / "placement.png")
    _end(report, as_json, ok=report["ok"])


@app.command()
def train(
    model: Model = DEFAULT_MODEL,
    repeats: Annotated[int, typer.Option(min=1, help="Steps at 1K tokens, as many tokens at others.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Training with the layout's attention against plain causal attention, on the CPU. Exits with 1 below 0.9 of it."""
    from multiverse.evaluation.train_speed import measure_training
    from multiverse.models.prepare import prepare

    report = measure_training(prepare(model), repeats)
    show_table("Training, forward and backward", report["lengths"])
    _end(report, as_json, ok=report["ok"])


def _config(model: str, **settings: Any) -> "EngineConfig":
    from multiverse.config import AppConfig

    return replace(AppConfig(model=model).engine_config(), **settings)


def _served(
    model: str, replicas: int, engine: dict[str, Any], placement: str = "spread", reducers: int = 1
) -> "AppConfig":
    """Placement spreads out unless told otherwise: what is measured is what moves."""
    from multiverse.config import AppConfig

    values = {"model": model, "replicas": replicas, "reducers": reducers, "placement": placement, "engine": engine}
    return AppConfig.of(values | {"access": {"keys_env": "MULTIVERSE_BENCH_API_KEYS"}})


def show_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows that all have the same fields."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def _progress(line: str) -> None:
    typer.echo(line, err=True)


def _end(report: dict[str, Any], as_json: bool, ok: bool = True) -> None:
    if as_json:
        typer.echo(json.dumps(report))
    if not ok:
        raise typer.Exit(1)
