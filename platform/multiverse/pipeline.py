"""``make pipeline``: chains, curation, training, a served answer and an evaluation, small, with the built-in model."""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

RUN = Path("runs/pipeline")
CONFIGS = Path("jobs/configs/pipeline")
MODEL = RUN / "trained" / "model"
CHAINS = 24
QUESTION = "List four tips for waking up early. One sentence for each."


def main() -> int:
    """Run the steps in order; exits with the code of the first that fails."""
    console, begun = Console(), time.monotonic()
    if RUN.exists():
        console.print(f"{RUN} is there from an earlier run, which is begun anew")
        shutil.rmtree(RUN)
    RUN.mkdir(parents=True)
    steps: list[tuple[str, Callable[[], int]]] = [
        (
            "chains",
            lambda: _command(console, "tasks", str(RUN / "chains.jsonl"), "--count", str(CHAINS), "--sequential"),
        ),
        ("curate", lambda: _command(console, "curate", "--config", str(CONFIGS / "curate.yaml"))),
        ("train", lambda: _command(console, "train", "--config", str(CONFIGS / "train.yaml"))),
        ("serve", lambda: _serve(console)),
        ("evaluate", lambda: _command(console, "evaluate", "--config", str(CONFIGS / "evaluate.yaml"))),
    ]
    seconds = []
    for name, step in steps:
        console.print(Rule(name, align="left"))
        started = time.monotonic()
        if code := step():
            console.print(f"{name} failed with code {code}", style="red")
            return code
        seconds.append(f"{name} {time.monotonic() - started:.0f} s")
    console.print(Rule(align="left"))
    console.print(f"{', '.join(seconds)}; all {(time.monotonic() - begun) / 60:.1f} min")
    console.print(f"data card: {RUN}/curated/README.md, model: {MODEL}, evaluation: {RUN}/evaluation/report.md")
    return 0


def _command(console: Console, *arguments: str) -> int:
    console.print(f"$ multiverse {shlex.join(arguments)}", style="bold")
    return subprocess.run([str(Path(sys.executable).with_name("multiverse")), *arguments]).returncode


def _serve(console: Console) -> int:
    """Start the server on the new model, ask it once over HTTP in `force`, stop it."""
    from openai import OpenAI

    from multiverse.application import free_port, serving
    from multiverse.config import AccessOptions, AppConfig, EngineOptions

    config = AppConfig(
        model=str(MODEL),
        served_name="pipeline",
        engine=EngineOptions(enforce_eager=True, max_model_len=4096),
        access=AccessOptions(keys_env="MULTIVERSE_PIPELINE_API_KEYS"),
    )
    console.print(f"serving {MODEL} and asking: {QUESTION}")
    with serving(config, None, "127.0.0.1", free_port(), quiet=True) as url:
        answer = OpenAI(base_url=url, api_key="none", timeout=300).chat.completions.create(
            model="pipeline",
            messages=[{"role": "user", "content": QUESTION}],
            max_completion_tokens=240,
            temperature=0,
            extra_body={"parallel": {"mode": "force"}},
        )
    console.print(answer.choices[0].message.content, markup=False)
    extra = (answer.model_extra or {})["parallel"]
    console.print(f"{extra['tokens']} tokens, critical path {extra['critical_path']}, x {extra['x']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
