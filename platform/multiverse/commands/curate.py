"""``multiverse curate`` and ``jobs/curate.py``."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with the fields of CurateConfig.")]
Source = Annotated[str | None, typer.Argument(metavar="[IN]", help="Rows; in place of the configuration's `source`.")]
Out = Annotated[str | None, typer.Argument(metavar="[OUT]", help="In place of the configuration's `out`.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Without --config: an OpenAI-compatible endpoint.")]
Model = Annotated[str | None, typer.Option("--model", help="Without --config: its model, or one to run here.")]
KeyEnv = Annotated[str | None, typer.Option("--key-env", help="Environment variable with the endpoint's API key.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Take rows in, print what the run will come to, and end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def load(
    path: Path | None, source: str | None, out: str | None, base_url: str | None, model: str | None, key_env: str | None
) -> Any:
    """The configuration of a file, or of a command line without one. Raises ConfigError."""
    from multiverse.config import DEFAULT_MODEL, ConfigError
    from multiverse.curation.job.config import CurateConfig

    if path is not None:
        if base_url or model or key_env:
            raise ConfigError("--config names the LLM: leave --base-url, --model and --key-env out")
        return CurateConfig.load(path, source=source, out=out)
    if source is None or out is None:
        raise ConfigError("name a configuration with --config, or give IN and OUT")
    llm: dict[str, Any] = {"kind": "engine", "model": model or DEFAULT_MODEL}
    if base_url is not None:
        if model is None:
            raise ConfigError("--base-url needs --model, the model's name there")
        llm = {"base_url": base_url, "model": model, "key_env": key_env}
    if not out.startswith("s3://"):
        llm["cache_dir"] = str(Path(out) / "cache")
    return CurateConfig.of({"source": source, "out": out, "llm": llm}, "command line")


def run(config: Any, only_estimate: bool, as_json: bool) -> None:
    """Raises ValueError and OSError for what the user can put right, LLMError if the LLM takes no calls."""
    from multiverse.commands.cluster import connect
    from multiverse.curation.job.run import curate, plan
    from multiverse.curation.llm.calls import EndpointError

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
        source: Source = None,
        out: Out = None,
        config: ConfigFile = None,
        base_url: BaseUrl = None,
        model: Model = None,
        key_env: KeyEnv = None,
        estimate: Estimate = False,
        as_json: AsJson = False,
    ) -> None:
        try:
            run(load(config, source, out, base_url, model, key_env), estimate, as_json)
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
