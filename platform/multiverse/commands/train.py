"""``multiverse train`` and ``jobs/train.py``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML with the fields of TrainConfig.")]
Out = Annotated[str | None, typer.Option("--out", help="In place of the configuration's `out`.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; refuse what cannot fit. Loads no weights.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Stop with a checkpoint after so long.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def run(config_path: Path, out: str | None, dry_run: bool, minutes: float | None, as_json: bool, on_ray: bool) -> None:
    """Raises typer.Exit(1) where a plan does not fit, and what `TrainConfig.load` and training raise."""
    from multiverse.training.config import TrainConfig

    config = TrainConfig.load(config_path, out=out, max_minutes=minutes)
    if dry_run:
        _plan(config, as_json)
        return
    if on_ray or config.workers.count > 1:
        summary = _on_ray(config)
    else:
        from multiverse.training.job import train_here

        summary = train_here(config)
    what = f"the model is at {summary.model}" if summary.finished else "the same command goes on"
    typer.echo(f"step {summary.step} of {summary.steps}, {summary.tokens} tokens: {what}")
    if as_json:
        typer.echo(json.dumps(asdict(summary)))


def job() -> None:
    """The command line of ``jobs/train.py``: always on Ray."""

    def main(
        config: ConfigFile, out: Out = None, dry_run: DryRun = False, minutes: Minutes = None, as_json: AsJson = False
    ) -> None:
        try:
            run(config, out, dry_run, minutes, as_json, on_ray=True)
        except ValueError as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error

    typer.run(main)


def _on_ray(config: Any) -> Any:
    from multiverse.commands.cluster import connect
    from multiverse.training.job import train_on_ray

    connect(config.workers.count * config.workers.cpus)
    return train_on_ray(config)


def _plan(config: Any, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from multiverse.training.plan import make_plan

    plan = make_plan(config)
    table = Table(title=f"{plan.model}: {plan.strategy}, {plan.workers} workers", show_header=False)
    table.add_row("parameters", f"{plan.parameters / 1e6:,.1f} M, {plan.trained / 1e6:,.1f} M of them trained")
    table.add_row("tokens per step", f"up to {plan.tokens_per_step:,}")
    for name, size in plan.memory_gib.items():
        table.add_row(f"{name}, GiB per device", f"{size:.2f}")
    limit = "" if plan.limit_gib is None else f" of {plan.limit_gib:.0f}"
    table.add_row("together", f"{plan.total_gib:.2f}{limit}")
    Console().print(table)
    if as_json:
        typer.echo(json.dumps(plan.report()))
    if not plan.fits:
        typer.echo("This does not fit: more workers, activation checkpointing, or fewer data.max_tokens.", err=True)
        raise typer.Exit(1)
