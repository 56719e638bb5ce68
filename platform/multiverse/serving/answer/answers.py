"""The events of one request folded into its answer: text in reading order as it comes, and the tree at the end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiverse.engine.segment import TokenLogprob
from multiverse.serving.answer.branch_text import BranchText, inner_text, outline_text
from multiverse.serving.answer.content import Content, FlatContent, StopContent
from multiverse.serving.answer.reading_order import ReadingOrder
from multiverse.serving.api.speedup import Gain
from multiverse.serving.events import (
    Block,
    BlockForked,
    BlockJoined,
    Branch,
    BranchFinished,
    BranchRetried,
    Event,
    FellBack,
    Finished,
    Place,
    Result,
    TokensAdded,
)
from multiverse.serving.interface import Codec
from multiverse.serving.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the answer. ``tokens`` and ``logprobs`` (None: written by the engine) are those it came with.

    offset: characters of the answer before it. index: its tokens before it.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob | None, ...] = ()
    offset: int = 0
    index: int = 0


class Answer:
    """Push every event; ``text`` and, after the last one, ``result`` hold what came of them."""

    def __init__(
        self, request: GenerationRequest, codec: Codec, tag_ids: Mapping[str, int], *, tags: bool = True
    ) -> None:
        self.request = request
        self.text = ""
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob | None] = []
        self.gain: Gain | None = None
        """Set it before the last event, if it is known."""
        self._began = time.monotonic()
        self._milliseconds = 0.0
        self._result: Result | None = None
        self._codec = codec
        self._tag_ids = tag_ids
        self._order = ReadingOrder(at_once=request.seen == "nothing")
        self._branches: dict[Place, BranchText] = {}
        self._content: Content
        if not tags:
            self._content = FlatContent(codec, tag_ids)
        elif request.sampling.stop:
            self._content = StopContent(codec, request.sampling.stop)
        else:
            self._content = codec.stream()

    @property
    def result(self) -> Result:
        """Raises RuntimeError before the end."""
        if self._result is None:
            raise RuntimeError("the engine ended a request without a result")
        return self._result

    @property
    def finished(self) -> bool:
        return self._result is not None

    @property
    def milliseconds(self) -> float:
        """From the begin to the last event."""
        return round(self._milliseconds, 1)

    def push(self, event: Event) -> Text | None:
        """What of the answer has come to its turn in reading order."""
        self._milliseconds = (time.monotonic() - self._began) * 1e3
        runs = self._order.push(event)
        tokens = tuple(token for run in runs for token in run.tokens)
        logprobs = tuple(entry for run in runs for entry in run.logprobs or (None,) * len(run.tokens))
        text = self._content.push(tokens)
        if isinstance(event, Finished):
            self._result = event.result
            text += self._rest(event.result)
        offset, index = len(self.text), len(self.tokens)
        self.text += text
        self.tokens += tokens
        self.logprobs += logprobs
        return Text(text, tokens, logprobs, offset, index) if text or tokens else None

    def progress(self, event: Event) -> dict[str, Any] | None:
        """What a stream with ``stream_branches`` says in its ``parallel`` field of the event that was pushed last.

        at: milliseconds since the begin.
        """
        told = self._told(event)
        return None if told is None else {**told, "at": self.milliseconds}

    def _told(self, event: Event) -> dict[str, Any] | None:
        match event:
            case TokensAdded(place=place, tokens=tokens) if place:
                branch = self._branches.setdefault(place, BranchText(self._codec, self._tag_ids))
                delta = branch.push(tokens)
                return {"event": "delta", **_tagged(place), "delta": delta} if delta else None
            case BlockForked():
                outlines = [outline_text(outline) for outline in event.outlines]
                where = {"block": event.block, "place": event.place, "outlines": outlines}
                replicas = {"replicas": list(event.replicas)} if event.replicas else {}
                return {"event": "fork", **where, **replicas}
            case BranchFinished():
                figures = {"finish_reason": event.finish, "tokens": event.tokens, "milliseconds": event.milliseconds}
                return {"event": "branch", **_tagged(event.place), **figures}
            case BranchRetried():
                return {"event": "retry", **_tagged(event.place)}
            case BlockJoined():
                where = {"block": event.block, "place": event.place, "milliseconds": event.milliseconds}
                return {"event": "join", **where}
            case FellBack():
                return {"event": "fallback", "place": event.place, "reason": event.reason}
            case _:
                return None

    def parallel(self) -> dict[str, Any]:
        """The response's ``parallel`` field: figures and the tree of blocks."""
        result = self.result
        return {
            "mode": self.request.parallel.mode,
            "reduce": self.request.parallel.reduce,
            "tokens": len(result.tokens),
            "critical_path": result.critical_path,
            "x": round(result.parallelism, 4),
            "ended": result.ended,
            "milliseconds": self.milliseconds,
            "speedup": None if self.gain is None else _speedup(self.gain),
            "fallbacks": list(result.fallbacks),
            "blocks": [self._block(block) for block in result.blocks],
        }

    def _rest(self, result: Result) -> str:
        if isinstance(self._content, StopContent) and result.stop_text is not None:
            return self._content.rest_of(result.stop_text)
        return self._content.finish()

    def _block(self, block: Block) -> dict[str, Any]:
        branches = [self._branch(branch) for branch in block.branches]
        return {"id": block.id, "width": len(branches), "milliseconds": block.milliseconds, "branches": branches}

    def _branch(self, branch: Branch) -> dict[str, Any]:
        return {
            "outline": outline_text(branch.outline),
            "text": inner_text(self._codec.decode(branch.tokens)),
            "tokens": len(branch.tokens),
            "finish_reason": branch.finish,
            "milliseconds": branch.milliseconds,
            **({"replica": branch.replica} if branch.replica else {}),
            "blocks": [self._block(block) for block in branch.blocks],
        }


def _speedup(gain: Gain) -> dict[str, float]:
    return {
        "measured": round(gain.speedup, 3),
        "milliseconds": round(gain.taken * 1e3, 1),
        "sequential_milliseconds": round(gain.sequential * 1e3, 1),
    }


def _tagged(place: Place) -> dict[str, Any]:
    block, branch = place[-1]
    return {"block": block, "branch": branch, "place": place}
