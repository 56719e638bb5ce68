"""``multiverse evaluate`` and ``jobs/evaluate.py``."""

import asyncio
import json
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

ModelOrUrl = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL|URL]",
        help="A directory, hub id, s3:// prefix or builtin:..., or an OpenAI-compatible server's http://HOST:PORT/v1, "
        "with #NAME behind it if it has several models. In place of the configuration's `model`.",
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with the fields of EvaluateConfig.")]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite", metavar="NAME[=PATH]", help="generated (default), or one of docs/evaluation.md; a path or s3://."
    ),
]
Against = Annotated[str | None, typer.Option("--against", help="Another model or server that answers the same.")]
Count = Annotated[
    int | None, typer.Option("--count", min=1, help="Items of each suite; default: all, or 500 generated.")
]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Answers per item: avg@k and majority@k.")]
Budgets = Annotated[
    str | None,
    typer.Option(
        "--budgets", help="Positions after which the answer is forced: 1024,2048; or 50%: that quantile of lengths."
    ),
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Of an answer.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of the first sample and of generated tasks.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="Default: 0, with several samples 0.6.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="Questions at the same time.")]
KeyEnv = Annotated[str | None, typer.Option("--key-env", help="Environment variable with a server's API key.")]
SpeedPairs = Annotated[
    int | None,
    typer.Option("--speed-pairs", min=0, help="With --against: tasks that both engines answer one at a time."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of answers and report; a run goes on from there.")]
Report = Annotated[Path | None, typer.Option("--report", help="Another folder for the report and its rows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def load(
    path: Path | None,
    model: str | None = None,
    suites: list[str] | None = None,
    against: str | None = None,
    count: int | None = None,
    max_tokens: int | None = None,
    budgets: str | None = None,
    key_env: str | None = None,
    out: Path | None = None,
    report: Path | None = None,
    **values: Any,
) -> Any:
    """The configuration: of a file, in which what the command line says replaces fields, or of a command line alone.

    Raises ConfigError.
    """
    from multiverse.config import ConfigError
    from multiverse.evaluation.accuracy.config import EvaluateConfig

    if path is not None and (key_env or count or max_tokens):
        raise ConfigError("--config names suites and servers: leave --count, --max-tokens and --key-env out")
    if path is None and model is None:
        raise ConfigError("name a model or a server, or a configuration with --config")
    given = {name: value for name, value in values.items() if value is not None}
    given |= {name: _target(text, key_env) for name, text in (("model", model), ("against", against)) if text}
    if suites or path is None:
        given["suites"] = [_suite(text, count, max_tokens) for text in suites or ["generated"]]
    if budgets is not None:
        given["budgets"] = [int(item) if item.strip().isdecimal() else item.strip() for item in budgets.split(",")]
    if out is not None:
        given["out"] = str(out)
    if report is not None:
        given["report"] = str(report)
    if path is not None:
        return EvaluateConfig.load(path, **given)
    return EvaluateConfig.of({"out": _default_out(model or "", against)} | given, "command line")


def _suite(text: str, count: int | None, max_tokens: int | None) -> dict[str, Any]:
    name, _, source = text.partition("=")
    return {"name": name, "source": source or None, "count": count, "max_tokens": max_tokens}


def _target(text: str, key_env: str | None) -> dict[str, Any]:
    if not text.startswith(("http://", "https://")):
        return {"model": text}
    url, _, name = text.partition("#")
    return {"base_url": url, "model": name or None, "key_env": key_env}


def _default_out(model: str, against: str | None) -> str:
    """``runs/evaluate/`` and what each is called: the model's name, or the server's host and port."""
    names = []
    for text in (model, against):
        if text:
            named = text.partition("#")[2] or (urlsplit(text).netloc if text.startswith("http") else "")
            names.append(named or text.rstrip("/").rpartition("/")[2].removeprefix("builtin:"))
    return str(Path("runs/evaluate") / re.sub(r"[^\w.-]", "-", "-against-".join(names)))


def run(config: Any, as_json: bool, on_ray: bool) -> None:
    """Raises ValueError and OSError for what the user can put right."""
    from multiverse.evaluation.accuracy.asking import AnswerError
    from multiverse.evaluation.accuracy.report import MARKDOWN, side_names, write_report
    from multiverse.evaluation.accuracy.run import evaluate
    from multiverse.storage import StorageError

    opener = recorders = None
    if on_ray or config.workers.count > 1:
        from multiverse.commands.cluster import connect
        from multiverse.evaluation.accuracy.workers import on_ray as asked_on_ray
        from multiverse.telemetry.export import build_ray

        connect(config.workers.count * config.workers.cpus)
        opener = asked_on_ray(config)
        recorders = {side: build_ray(target.name) for side, target in config.sides.items()}
    try:
        evaluated = asyncio.run(
            evaluate(config, opener, recorders, _Terminal(), lambda line: typer.echo(line, err=True))
        )
    except StorageError as error:
        raise ValueError(str(error)) from error
    report, failed = write_report(evaluated, _command()), ""
    if config.speed_pairs:
        from multiverse.evaluation.accuracy.pairs import measure_pairs

        try:
            report = write_report(evaluated, _command(), asyncio.run(measure_pairs(config)))
        except (AnswerError, ValueError) as error:
            failed = str(error)
    _show(report, side_names(evaluated))
    typer.echo(f"see {Path(config.report or config.out) / MARKDOWN}")
    if as_json:
        typer.echo(json.dumps(report))
    if failed:
        raise ValueError(f"the report has no speed, as the pairs could not be measured: {failed}")


def job() -> None:
    """The command line of ``jobs/evaluate.py``: always on Ray."""

    def main(
        model: ModelOrUrl = None,
        config: ConfigFile = None,
        suite: Suites = None,
        against: Against = None,
        out: Out = None,
        as_json: AsJson = False,
    ) -> None:
        try:
            run(load(config, model, suite, against, out=out), as_json, on_ray=True)
        except (ValueError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error

    typer.run(main)


def _command() -> str:
    """What was called, as it can be called again."""
    program = Path(sys.argv[0])
    name = "multiverse" if program.stem in ("multiverse", "cli") else f"python jobs/{program.name}"
    return shlex.join([name, *(argument for argument in sys.argv[1:] if argument != "--json")])


def _show(report: dict[str, Any], names: dict[str, str]) -> None:
    """A table for people."""
    from multiverse.evaluation.commands import show_table

    rows = []
    for suite, found in report["suites"].items():
        for side, figures in found["sides"].items():
            right = figures["pass@1"]
            row = {"suite": suite, "model": names[side], "items": found["items"], "right": _percent(right["value"])}
            row |= {"95 %": f"{_percent(right['low'])} to {_percent(right['high'])}"}
            row |= (
                {f"majority@{figures['samples']}": _percent(figures["majority@k"]["value"])}
                if figures["samples"] > 1
                else {}
            )
            row |= {"parallel": _percent(figures["parallel"]), "valid": _percent(figures["valid_of_parallel"])}
            rows.append(
                row | {name: "-" if figures[name] is None else figures[name] for name in ("x", "tokens", "failed")}
            )
    show_table("Accuracy", rows)
    for suite, found in report["suites"].items():
        if (points := found.get("difference")) is not None:
            show_table(f"{suite}: first minus second", [points["points"] | {"p_value": points["p_value"]}])
        for row in (budgets := found.get("budgets", {})).get("rows", ()):
            shares = ", ".join(
                f"{names[side]} {_percent(row[side]['accuracy']['value'])}" for side in names if side in row
            )
            typer.echo(f"{suite}, {row['budget']} positions: {shares}")
        if "mean_points" in budgets:
            show_table(f"{suite}: mean difference over the budgets, points", [budgets["mean_points"]])
    if "speed" in report:
        show_table("One request at a time", [report["speed"]])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


class _Terminal:
    """A line every five seconds at most."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._begun = time.monotonic()
        self._first: tuple[str, int, int] = ("", 0, 0)

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if (progress.side, progress.wanted) != (self._first[0], self._first[2]):
            self._first, self._begun, self._shown = (progress.side, progress.done, progress.wanted), now, 0.0
        if now - self._shown < 5 and progress.done < progress.wanted:
            return
        self._shown = now
        rate = (progress.done - self._first[1]) / max(now - self._begun, 1e-9)
        ahead = f", about {(progress.wanted - progress.done) / rate / 60:.0f} min left" if rate else ""
        typer.echo(
            f"{progress.side}: {progress.done} of {progress.wanted} answers, {progress.correct} right, "
            f"{progress.failed} failed{ahead}",
            err=True,
        )
