"""``multiverse generate``: one generation with an engine in this process, without Ray."""

import asyncio
import json
import sys
import time
from contextlib import nullcontext
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from multiverse.config import AppConfig
from multiverse.live import LiveBlocks
from multiverse.serving.answer.answers import Answer
from multiverse.serving.answer.branch_text import OuterText, outline_text
from multiverse.serving.api.errors import ApiError
from multiverse.serving.api.merge import closing
from multiverse.serving.api.schema import ChatBody
from multiverse.serving.api.translate import Ticket, to_requests
from multiverse.serving.events import BlockForked, BranchFinished, Event, TokensAdded
from multiverse.serving.local import MultiverseEngine
from multiverse.validation import explain


def run(config: AppConfig, body: dict[str, Any], *, as_json: bool) -> None:
    """Generate for one chat body (without its model) and print. Raises ValueError for options out of bounds."""
    try:
        checked = ChatBody.model_validate({"model": config.name, **body})
    except ValidationError as error:
        raise ValueError(explain(error)[1]) from error
    asyncio.run(_run(config, checked, as_json))


async def _run(config: AppConfig, body: ChatBody, as_json: bool) -> None:
    # Only the JSON object may be on the last line of stdout, and people may still want to watch.
    console = Console(stderr=as_json)
    with console.status("starting the engine") if console.is_terminal else nullcontext():
        engine = await MultiverseEngine.start(config.engine_config())
    try:
        (request,) = to_requests(body, engine, lambda: Ticket("generate", 0))
        answer = Answer(request, engine.tokens, engine.manifest.tag_ids)
        start = time.monotonic()
        outer = OuterText(engine.tokens, engine.manifest.tag_ids)
        with LiveBlocks(console) as view:
            async with closing(engine.generate(request)) as events:
                async for event in events:
                    answer.push(event)
                    _show(view, event, answer, outer)
        seconds = time.monotonic() - start
    except ApiError as error:
        raise ValueError(error.message) from error
    finally:
        await engine.shutdown()
    summary = answer.parallel()
    table = Table("mode", "tokens", "critical path", "x", "seconds")
    table.add_row(
        summary["mode"], str(summary["tokens"]), str(summary["critical_path"]), f"{summary['x']:.2f}", f"{seconds:.2f}"
    )
    console.print(table)
    if as_json:
        sys.stdout.write(json.dumps({"text": answer.text, "seconds": round(seconds, 4), "parallel": summary}) + "\n")


def _show(view: LiveBlocks, event: Event, answer: Answer, outer: OuterText) -> None:
    match event:
        case BlockForked():
            view.outlines(event.block, [outline_text(outline) for outline in event.outlines])
        case TokensAdded(place=()):
            view.main(outer.push(event.tokens))
        case TokensAdded(place=place):
            progress = answer.progress(event)
            if progress is not None:
                view.text(*place[-1], progress["delta"])
        case BranchFinished():
            view.branch_done(*event.place[-1], event.finish)
