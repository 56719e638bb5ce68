"""``make demo``: the served platform on this machine. A small model is asked three questions, and decides each time
whether to go parallel; then it answers the same in sequence."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from multiverse.config import AccessOptions, AppConfig, EngineOptions
from multiverse.live import LiveBlocks

MODEL = "builtin:multiverse-smollm2-135m"
QUESTIONS = (
    "List four tips for waking up early. One sentence for each.",
    "Put each list in order, smallest first: A: 37 99 19; B: 25 54 65; C: 38 44 23.",
    "From January go 4 months back, then 3 months back, then 2 months back, then 3 months forward. What comes then?",
)
"""None of them was trained on. The last one does not split."""
MAX_TOKENS = 320


@dataclass(frozen=True, slots=True)
class Measured:
    """One answer: ``seconds`` from the request to the end of its stream, as the client saw it."""

    tokens: int
    critical_path: int
    x: float
    seconds: float


def main() -> int:
    """Serve, ask, show, stop. Exits 0 if every question was answered both ways."""
    from multiverse.application import free_port, serving

    console = Console()
    # Eager: what compiling gains would not be won back in three questions.
    config = AppConfig(
        model=MODEL,
        replicas=2,
        # On one machine adaptive placement would stay at home, where a few more rows in the batch cost next to nothing.
        placement="spread",
        engine=EngineOptions(enforce_eager=True, max_model_len=4096),
        # It asks without a key, also where the usual variable has some.
        access=AccessOptions(keys_env="MULTIVERSE_DEMO_API_KEYS"),
    )

    begun = time.monotonic()
    with console.status(f"preparing {config.model} and starting Ray, Serve and vLLM (a minute or two)"):
        application = serving(config, None, "127.0.0.1", free_port(), quiet=True)
        url = application.__enter__()
    console.print(f"{config.name} is served at {url} after {time.monotonic() - begun:.0f} s")
    try:
        rows = [_ask(console, url, config.name, question) for question in QUESTIONS]
    finally:
        with console.status("stopping everything"):
            application.__exit__(*sys.exc_info())
    for number, (question, *_) in enumerate(rows, 1):
        console.print(f"{number}: {question}")
    console.print(_table(rows))
    console.print(
        "x: tokens per position of the critical path. Speed-up: tokens per second, auto against off, with outlines, "
        "fork and join included."
    )
    return 0


def _ask(console: Console, url: str, model: str, question: str) -> tuple[str, Measured, Measured]:
    console.print(Rule(question, align="left"))
    console.print("the model decides:", style="bold")
    with LiveBlocks(console) as view:
        parallel = _measure(view, url, model, question, {"mode": "auto", "stream_branches": True})
    console.print("\nin sequence:", style="bold")
    with LiveBlocks(console) as view:
        sequential = _measure(view, url, model, question, {"mode": "off"})
    console.print()
    return question, parallel, sequential


def _measure(view: LiveBlocks, url: str, model: str, question: str, parallel: dict[str, Any]) -> Measured:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    begun, last, outside = time.monotonic(), None, _Outside()
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_completion_tokens=MAX_TOKENS,
        temperature=0,
        stream=True,
        extra_body={"parallel": parallel},
    )
    for chunk in stream:
        extra = (chunk.model_extra or {}).get("parallel")
        if extra is not None and "event" in extra:
            _show(view, extra)
        elif extra is not None:
            last = extra
        elif chunk.choices and (text := outside(chunk.choices[0].delta.content or "")):
            view.main(text)
    if last is None:
        raise RuntimeError("the stream ended without a result")
    return Measured(last["tokens"], last["critical_path"], last["x"], time.monotonic() - begun)


class _Outside:
    """Of a stream's text, what stands in no block. A tag comes in one piece."""

    def __init__(self) -> None:
        self._depth = 0

    def __call__(self, text: str) -> str:
        kept = ""
        for piece in re.split("(</?Parallel>)", text):
            if piece in ("<Parallel>", "</Parallel>"):
                self._depth += 1 if piece == "<Parallel>" else -1
            elif self._depth == 0:
                kept += piece
        return kept


def _show(view: LiveBlocks, event: dict[str, Any]) -> None:
    match event["event"]:
        case "fork":
            view.outlines(event["block"], event["outlines"], event.get("replicas", ()))
        case "delta":
            view.text(event["block"], event["branch"], event["delta"])
        case "branch":
            view.branch_done(event["block"], event["branch"], event["finish_reason"])


def _table(rows: list[tuple[str, Measured, Measured]]) -> Table:
    table = Table("", "mode", "tokens", "critical path", "x", "seconds", "tokens/s", "speed-up")
    for number, (_, parallel, sequential) in enumerate(rows, 1):
        rate = [measured.tokens / measured.seconds for measured in (parallel, sequential)]
        table.add_row(str(number), "auto", *_cells(parallel), f"{rate[0]:.1f}", f"{rate[0] / rate[1]:.2f}")
        table.add_row("", "off", *_cells(sequential), f"{rate[1]:.1f}", "1")
        table.add_section()
    return table


def _cells(measured: Measured) -> Iterator[str]:
    yield from (str(measured.tokens), str(measured.critical_path), f"{measured.x:.2f}", f"{measured.seconds:.2f}")


if __name__ == "__main__":
    sys.exit(main())
