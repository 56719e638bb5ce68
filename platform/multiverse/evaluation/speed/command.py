"""``multiverse bench speed`` and ``jobs/benchmark.py``."""

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from multiverse.evaluation.speed.config import SMALL, SpeedConfig

Trace = Annotated[list[Path] | None, typer.Option("--trace", help="A structured chain whose shape is measured too.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with the fields of SpeedConfig.")]
Out = Annotated[str | None, typer.Option("--out", help="Folder or s3:// prefix; a run goes on from there.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="What the grid may take; the rest is left out.")]
Model = Annotated[str | None, typer.Option("--model", help="In place of the configuration's `model`.")]
Repeats = Annotated[int | None, typer.Option("--repeats", min=1, help="Runs of each cell; medians count.")]
Eager = Annotated[bool, typer.Option("--eager", help="Without compilation: starts sooner, decodes slower.")]
Small = Annotated[bool, typer.Option("--small", help="A few cells, held against the history.")]
Store = Annotated[bool, typer.Option("--store", help="With --small: add the ratios to the history.")]
History = Annotated[Path, typer.Option("--history", help="With --small: the file of ratios.")]
OnlyReport = Annotated[bool, typer.Option("--only-report", help="Measure nothing: report what is in --out.")]
Notes = Annotated[Path | None, typer.Option("--notes", help="Markdown that goes into the report.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
HISTORY = Path("docs/results/bench-small.json")


def load(config: Path | None, small: bool, eager: bool, traces: list[Path] | None = None, **given: Any) -> SpeedConfig:
    """The configuration of a file, or of a command line. Raises ConfigError."""
    if traces:
        given["traces"] = tuple(map(str, traces))
    base: dict[str, Any] = dict(SMALL) | {"out": "runs/speed-small"} if small else {}
    if config is not None:
        base.pop("engine", None)  # The file's, or the default
    found = SpeedConfig.load(config, **(base | {name: value for name, value in given.items() if value is not None}))
    if not eager:
        return found
    return found.model_copy(update={"engine": found.engine.model_copy(update={"enforce_eager": True})})


def run(config: SpeedConfig, command: str = "", notes: str = "", only_report: bool = False) -> dict[str, Any]:
    """Measure what is missing, and write the report, in which ``command`` stands."""
    from multiverse.evaluation.speed.measure import measure, measured_so_far
    from multiverse.evaluation.speed.report import write_report

    if only_report:
        return write_report(measured_so_far(config), command, notes)
    measured = asyncio.run(measure(config, lambda line: print(line, file=sys.stderr, flush=True)))
    return write_report(measured, command, notes)


def small(config: SpeedConfig, history: Path, store: bool) -> tuple[dict[str, Any], list[str]]:
    """A run of the small grid, from its beginning, and what fell under the stored ratios."""
    from multiverse.evaluation.speed import history as ratios
    from multiverse.evaluation.speed.measure import check_grid
    from multiverse.storage import open_folder

    entries = ratios.load(history)
    folder = open_folder(config.out)
    check_grid(config, folder)
    # A regression is one of today's code: what an earlier run left is measured again.
    folder.delete([name for name in folder.names() if name.startswith("cells/") or name == "plan.json"])
    report = run(config, _command())
    found = ratios.of_report(report)
    lines = ratios.fallen(found, entries[-1]["ratios"]) if entries else []
    if store:
        ratios.store(history, found, (report["commits"] or [""])[0])
    return report, lines


def show(report: dict[str, Any], out: str) -> None:
    """The table of a report."""
    from multiverse.evaluation.commands import show_table

    names = ("cell", "x", "over_ar", "limit", "of_limit", "join_ms", "second_prefill_ms", "join_gain", "repeats")
    show_table("Speed", [{name: row[name] for name in names} for row in report["cells"]])
    for row in report["cells"]:
        for miss in row["misses"]:
            typer.echo(f"  {row['cell']}: {miss}")
    left_out = len(report["left_out"])
    typer.echo(f"{len(report['cells'])} cells, {left_out} left out; the report is {out}/report.md")


def command(
    config: SpeedConfig,
    use_history: bool,
    store: bool,
    history: Path,
    notes: Path | None,
    as_json: bool,
    only_report: bool = False,
) -> None:
    """Raises typer.Exit(1) where a ratio fell, and ValueError and OSError for what the user can put right."""
    if store and not use_history:
        raise ValueError("--store keeps the ratios of the small grid: give --small too")
    if use_history and (only_report or notes is not None):
        raise ValueError(
            "--small measures anew and holds against the history: --only-report and --notes are not for it"
        )
    if use_history:
        report, lines = small(config, history, store)
    else:
        told = "" if notes is None else notes.read_text(encoding="utf-8")
        report, lines = run(config, _command(), told, only_report), []
    show(report, config.out)
    for line in lines:
        typer.echo(f"  fallen: {line}")
    if as_json:
        typer.echo(json.dumps(report | {"fallen": lines}))
    if lines and not store:
        raise typer.Exit(1)


def job() -> None:
    """The command line of ``jobs/benchmark.py``: on a node of the Ray cluster that has what the engine asks for."""

    def main(config: ConfigFile = None, out: Out = None, minutes: Minutes = None, as_json: AsJson = False) -> None:
        try:
            loaded = load(config, small=False, eager=False, out=out, minutes=minutes)
            report = _on_ray(loaded)
        except (ValueError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error
        show(report, loaded.out)
        if as_json:
            typer.echo(json.dumps(report))

    typer.run(main)


def _on_ray(config: SpeedConfig) -> dict[str, Any]:
    import ray

    from multiverse.commands.cluster import connect

    connect(config.num_cpus)
    task = ray.remote(num_cpus=config.num_cpus, num_gpus=config.num_gpus, max_retries=0)(run)
    try:
        report: dict[str, Any] = ray.get(task.remote(config, _command()))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from error
        raise
    return report


def _command() -> str:
    """How this run was started; of paths the names alone."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    return shlex.join(words)
