"""``multiverse curate`` and ``jobs/curate.py``."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML with the fields of CurateConfig.")]
Source = Annotated[str | None, typer.Argument(help="In place of the configuration's `source`.")]
Out = Annotated[str | None, typer.Argument(help="In place of the configuration's `out`.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Take rows in, print what the run will come to, and end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def run(config_path: Path, source: str | None, out: str | None, only_estimate: bool, as_json: bool) -> None:
    """Raises ValueError and OSError for what the user can put right, LLMError if the LLM takes no calls."""
    from multiverse.commands.cluster import connect
    from multiverse.curation.job.config import CurateConfig
    from multiverse.curation.job.run import curate, plan
    from multiverse.curation.llm.calls import EndpointError

    config = CurateConfig.load(config_path, source=source, out=out)
    intake, left = plan(config)
    rejected = sum(intake.rejected.values())
    typer.echo(
        f"{intake.read} rows read, {intake.rows} taken in, {sum(intake.left_out.values())} not selected, "
        f"{rejected} rejected\n{left}"
    )
    if only_estimate:
        if as_json:
            figures = {"calls": left.calls, "prompt_tokens": left.prompt_tokens, "cost": left.cost}
            typer.echo(json.dumps({"rows": left.rows, "completion_tokens": left.completion_tokens, **figures}))
        return
    connect(config.workers.count * config.workers.cpus)
    try:
        summary = curate(config, _Terminal())
    except EndpointError as error:
        raise ValueError(f"{error}; what is done stays, the same command goes on") from error
    total = summary.accounting.total
    typer.echo(
        f"{summary.curated} rows curated, {summary.dead} dead letters; {total.made} calls made, {total.cached} from "
        f"the cache, {total.failed} failed, cost {total.cost:.4f}; see {summary.out}/README.md"
    )
    if as_json:
        values = {"rows": summary.rows, "curated": summary.curated, "dead": summary.dead, "out": summary.out}
        typer.echo(json.dumps(values | {"llm": summary.accounting.report()}))


def job() -> None:
    """The command line of ``jobs/curate.py``."""

    def main(
        config: ConfigFile, source: Source = None, out: Out = None, estimate: Estimate = False, as_json: AsJson = False
    ) -> None:
        try:
            run(config, source, out, estimate, as_json)
        except (ValueError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error

    typer.run(main)


class _Terminal:
    """A line every two seconds at most."""

    def __init__(self) -> None:
        self._begun = self._shown = time.monotonic()
        self._first: int | None = None

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = progress.done
        if now - self._shown < 2 and progress.done < progress.rows:
            return
        self._shown = now
        rate = (progress.done - self._first) / (now - self._begun)
        ahead = f", about {(progress.rows - progress.done) / rate / 60:.0f} min left" if rate else ""
        calls = f"{progress.figures.calls} calls ({progress.figures.cached} from the cache)"
        typer.echo(
            f"{progress.done} of {progress.rows} rows, {progress.curated} curated, {calls}, "
            f"cost {progress.figures.cost:.4f}{ahead}",
            err=True,
        )
