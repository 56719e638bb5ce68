"""One generation request as the sequencer sees it: plain data, checked at the edge (``schema.py``)."""

from dataclasses import dataclass, field
from typing import Literal

from multiverse.engine.segment import Sampling

Mode = Literal["auto", "force", "off"]
Reduce = Literal["kv", "text"]
Seen = Literal["nothing", "answer", "all"]
"""What a client sees of an answer before its end: nothing, its text in reading order, or every branch as it grows."""


@dataclass(frozen=True, slots=True)
class ParallelOptions:
    """How a request may go parallel.

    width: number of branches in ``force`` mode; None lets the model choose up to ``max_width``.
    max_width: branches of one block that run at the same time; more run in waves.
    max_depth: how deep blocks may nest (1 = no nesting).
    max_branch_tokens: tokens of one branch, the engine-written ones included.
    max_positions: budget of the answer in critical-path positions.
    reduce: how branches are merged: ``kv`` without loss, ``text`` by a second prefill with tags spelled out.
    """

    mode: Mode = "off"
    width: int | None = None
    max_width: int = 8
    max_depth: int = 2
    max_branch_tokens: int | None = None
    max_positions: int | None = None
    reduce: Reduce = "kv"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """``sampling.max_tokens`` counts all tokens after the prompt, those of branches and the written ones included."""

    id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    parallel: ParallelOptions = field(default_factory=ParallelOptions)
    question: str = ""
    """Plain text that ``force`` mode plans the outlines from (the last user message, or the prompt)."""
    arrival: int = 0
    cache_salt: str = ""
    seen: Seen = "all"
    trace: str = ""
    """The span that it belongs to (`multiverse.telemetry.traces`)."""
