"""The command line ``multiverse``. Heavy modules are imported by the command that needs them: help comes at once."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from multiverse.commands import curate as curation
from multiverse.commands import evaluate as evaluation
from multiverse.commands import train as training
from multiverse.evaluation.commands import app as bench

app = typer.Typer(
    name="multiverse",
    help="Parallel generation decided by the model: MapReduce inside one completion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(bench, name="bench")
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML with the fields of AppConfig, or a Serve file.")]
Model = Annotated[str | None, typer.Option("--model", help="Directory, hub id, s3:// prefix or builtin:....")]


@app.callback()
def _quiet() -> None:
    """Settings that hold for all commands."""
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TQDM_DISABLE": "1",
    }.items():
        os.environ.setdefault(name, value)
    # As an exception it unwinds what a command has started, vLLM's processes above all.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="Directory, hub id, s3:// prefix or builtin:....")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory; default: in the cache.")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    seed: Annotated[int, typer.Option(help="Seed of the tag rows' noise.")] = 0,
) -> None:
    """Make a model ready: the tags as single tokens, and multiverse.json beside it. Prints the directory."""
    from multiverse.models.prepare import prepare as prepare_model

    with _said_plainly():
        typer.echo(prepare_model(source, out, dtype=dtype, seed=seed))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The user's message.")],
    mode: Annotated[str | None, typer.Option(help="auto, force or off; default: auto if trained, else off.")] = None,
    width: Annotated[int | None, typer.Option(help="Branches, in mode force.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of all branches.")] = 512,
    temperature: Annotated[float, typer.Option(help="0: the most likely token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.")] = None,
    model: Model = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Generate in this process, and watch the branches grow. Then: tokens, critical path, x, seconds."""
    from multiverse.commands.generate import run

    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "parallel": {"mode": mode, "width": width},
    }
    with _said_plainly():
        run(_config(config, model), body, as_json=as_json)


@app.command()
def serve(
    config: Config = None,
    model: Model = None,
    port: Annotated[int | None, typer.Option(help="Default: of the Serve file, or 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Default: of the Serve file, or 127.0.0.1.")] = None,
) -> None:
    """Serve the OpenAI API on Ray Serve, which is started here unless it runs. Ctrl-C stops all."""
    from multiverse.commands.serve import run

    with _said_plainly():
        run(_config(config, model), config, host, port)


@app.command()
def metrics(
    port: Annotated[int | None, typer.Option(help="Show them at http://HOST:PORT/metrics until Ctrl-C.")] = None,
    host: Annotated[str, typer.Option(help="With --port: the address to listen on.")] = "127.0.0.1",
) -> None:
    """Print the metrics of all nodes of the Ray cluster that runs here, or show them to Prometheus as one target."""
    from multiverse.commands.metrics import run

    with _said_plainly():
        run(host, port)


@keys.command()
def new(name: Annotated[str, typer.Argument(help="Stands in metrics and messages.")]) -> None:
    """Make a key: shown once on stderr; on stdout its entry for the file of keys, to be appended with >>."""
    from multiverse.serving.access.key_file import entry
    from multiverse.serving.access.keys import new_key

    with _said_plainly():
        key = new_key()
        typer.echo(entry(name, key), nl=False)
        typer.echo(key, err=True)


@app.command()
def layout(
    file: Annotated[Path, typer.Argument(help='JSON lines {"tokens": [...]}; tags are tags, all else one word.')],
) -> None:
    """Per line: positions, hidden keys of each token, the next position, parallelism."""
    from multiverse.commands.structure import layout_line

    with _said_plainly(), file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                typer.echo(json.dumps(layout_line(line, f"{file}, line {number}"), separators=(",", ":")))


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(help="Structured chains, as text.")], as_json: AsJson = False
) -> None:
    """Per file: valid or the error, blocks, widths, depth, tokens (words), critical path, parallelism."""
    from multiverse.commands.structure import inspect_file, show

    with _said_plainly():
        reports = [inspect_file(path) for path in files]
    show(reports)
    if as_json:
        typer.echo(json.dumps({"files": reports}))
    if not all(report["valid"] for report in reports):
        raise typer.Exit(1)


@app.command()
def tasks(
    out: Annotated[Path, typer.Argument(help="The file to write, JSON lines.")],
    count: Annotated[int, typer.Option(min=1, help="How many tasks.")],
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
    seed: Annotated[int, typer.Option(help="Another seed, other tasks.")] = 0,
    families: Annotated[str | None, typer.Option(help="Some only, with commas between (docs/tasks.md).")] = None,
    natural: Annotated[int, typer.Option(min=0, help="Natural questions besides, answered by --model.")] = 0,
    sequential: Annotated[bool, typer.Option("--sequential", help="Chains without structure, for curation.")] = False,
    model: Model = None,
) -> None:
    """Generate small tasks with worked answers, as many of each family; see docs/tasks.md."""
    from multiverse.commands.tasks import write_tasks

    with _said_plainly():
        chosen = families.split(",") if families else None
        written = write_tasks(out, chosen, split, count, seed, natural, model, sequential)
    typer.echo(f"{written} rows in {out}", err=True)


@app.command()
def curate(
    source: curation.Source = None,
    out: curation.Out = None,
    config: curation.ConfigFile = None,
    base_url: curation.BaseUrl = None,
    llm: curation.Model = None,
    key_env: curation.KeyEnv = None,
    estimate: curation.Estimate = False,
    as_json: AsJson = False,
) -> None:
    """Turn sequential chains into structured training rows with an LLM, without changing a word.

    The same command goes on where a run stopped, and pays for no answer twice.
    """
    with _said_plainly():
        curation.run(curation.load(config, source, out, base_url, llm, key_env), estimate, as_json)


@app.command()
def train(
    config: training.ConfigFile,
    out: training.Out = None,
    dry_run: training.DryRun = False,
    minutes: training.Minutes = None,
    as_json: AsJson = False,
) -> None:
    """Train a model to go parallel: in this process, or on Ray where the configuration has several workers.

    The same command goes on where a run stopped. At the end the model, ready to be served, lies under `out`.
    """
    with _said_plainly():
        training.run(config, out, dry_run, minutes, as_json, on_ray=False)


@app.command()
def evaluate(
    model: evaluation.ModelOrUrl = None,
    config: evaluation.ConfigFile = None,
    suite: evaluation.Suites = None,
    against: evaluation.Against = None,
    count: evaluation.Count = None,
    samples: evaluation.Samples = None,
    budgets: evaluation.Budgets = None,
    max_tokens: evaluation.MaxTokens = None,
    temperature: evaluation.Temperature = None,
    seed: evaluation.Seed = None,
    concurrency: evaluation.Concurrency = None,
    key_env: evaluation.KeyEnv = None,
    speed_pairs: evaluation.SpeedPairs = None,
    out: evaluation.Out = None,
    report: evaluation.Report = None,
    as_json: AsJson = False,
) -> None:
    """How often is a model right, how parallel is it, and how does it compare with another on the same items?

    The same command goes on where a run stopped. Without --config models run in this process; a URL is asked over HTTP.
    """
    with _said_plainly():
        loaded = evaluation.load(
            config,
            model,
            suite,
            against,
            count,
            max_tokens,
            budgets,
            key_env,
            out,
            report,
            samples=samples,
            temperature=temperature,
            seed=seed,
            concurrency=concurrency,
            speed_pairs=speed_pairs,
        )
        evaluation.run(loaded, as_json, on_ray=False)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Folders or s3:// prefixes of runs, each with a report.json.")],
    as_json: AsJson = False,
) -> None:
    """Compare runs of `evaluate` or of `bench speed`: their figures side by side, and the facts that differ."""
    from multiverse.evaluation.commands import show_table
    from multiverse.evaluation.reports import compare, load

    with _said_plainly():
        figures, facts = compare([load(run) for run in runs])
    show_table("Figures", figures)
    if facts:
        show_table("Facts that differ", facts)
    if as_json:
        typer.echo(json.dumps({"figures": figures, "facts": facts}))


@contextmanager
def _said_plainly() -> Iterator[None]:
    """What the user can put right is one line on stderr, not a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"multiverse: {error}", err=True)
        raise typer.Exit(2) from error


def _config(path: Path | None, model: str | None) -> Any:
    from multiverse.config import AppConfig

    config = AppConfig() if path is None else AppConfig.load(path)
    return config if model is None else AppConfig.of(config.model_dump() | {"model": model})


if __name__ == "__main__":
    app()
