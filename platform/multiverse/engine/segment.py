"""What the engine runs: segments, the sequential stretches a structured request is made of.

A request is a tree of segments (the text up to a fork, each branch, the text after a join).
One segment is one vLLM request. Its KV can be kept under a *lease* when it ends, and later segments
name leases as *sources* of KV they would otherwise have to compute.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from multiverse.engine.references import KVReference

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Source:
    """KV for ``tokens[start:stop]`` of the asking segment lies in ``lease`` from its token ``offset`` on."""

    lease: str
    start: int
    stop: int
    offset: int


@dataclass(frozen=True, slots=True)
class Export:
    """Make the KV of ``lease`` from its token ``start`` on readable for other engines, under ``id``."""

    id: str
    lease: str
    start: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a segment's tokens are sampled.

    logprobs: number of alternatives, 0 for the token alone. ignore_eos: the end of sequence is never sampled, so that
    the text ends by its limits, and a branch also by its own closer.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    json_schema: dict[str, object] | None = None
    json_object: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """One vLLM request.

    tokens: the whole prompt, from the first token of the conversation on.
    stop_ids: sampling one of these ends the segment; the token is delivered (it has no KV yet).
    closer: a branch's ``</Path>``. Sampling it ends the segment one step later, when its KV exists, so that the
        lease holds it. The closer is delivered at once; the token of the extra step is never delivered.
        With a closer, end-of-sequence means the closer too, and the closer is forced as the last of
        ``sampling.max_tokens`` tokens; ``Delta.forced`` tells.
    masked: token ids that are never sampled in this segment.
    sources: KV that exists elsewhere; what they do not cover is computed, or rebuilt if it may not be computed.
    lease: keep this segment's KV under this id, until it is released, if it ends by a stop id or the closer
        (ended by end-of-sequence or length, there is no lease and nothing to release).
    prefill_only: make the KV of all tokens and lease it; one delta without tokens is delivered when it is there.
    release: leases that this segment gives back once it is admitted.
    exports: of this segment's lease, or of others that are held; `VllmEngine.exported` gives their references.
    adopted: KV of other engines, by the name under which ``sources`` mean it; to be released like a lease.
    branch_start: in a branch, the index of its own first token: where its KV differs from its siblings'.
    replica: which of several engines runs it, "" where that is left to them. home: where its block will be joined.
    priority: lower runs first; all segments of one request share its arrival number.
    cache_salt: prefix-cache name space.
    trace: the span that it belongs to (`multiverse.telemetry.traces`).
    """

    id: str
    tokens: Sequence[int]
    sampling: Sampling
    stop_ids: tuple[int, ...] = ()
    closer: int | None = None
    masked: tuple[int, ...] = ()
    sources: tuple[Source, ...] = ()
    lease: str | None = None
    release: tuple[str, ...] = ()
    prefill_only: bool = False
    exports: tuple[Export, ...] = ()
    adopted: tuple[tuple[str, KVReference], ...] = ()
    branch_start: int | None = None
    replica: str = ""
    home: str = ""
    priority: int = 0
    cache_salt: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one sampled token and of the most likely alternatives, before any mask (natural log)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of a segment, in order. ``finish`` is set on the last delta; ``forced``: the closer was forced."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish: Finish | None = None
    forced: bool = False
    text: str | None = None
    """Only for segments with ``sampling.stop``: text so far with the stop string cut off, on the last delta."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches that are about to start behind ``tokens``, whose KV is under ``lease`` ("" if it is not held).

    expected: tokens that a branch may come to.
    """

    tokens: Sequence[int]
    lease: str
    width: int
    expected: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where branches run and where their join does: `Segment.replica`, "" where there is only one engine.

    keep_prefix: the fork's lease is needed until the join, because not all branches run where it is.
    """

    replicas: tuple[str, ...]
    home: str = ""
    keep_prefix: bool = False


class SegmentEngine(Protocol):
    """What the sequencer needs from an engine: run segments, give leases back, say where branches run.

    Closing the iterator of ``run`` before its end aborts the segment; its lease then never exists.
    A source may name a lease whose segment is still running: the engine waits for it.
    """

    def run(self, segment: Segment) -> AsyncGenerator[Delta, None]: ...

    async def release(self, leases: Sequence[str]) -> None: ...

    def place(self, fork: Fork) -> Placed: ...

    def elsewhere(self, replica: str) -> str:
        """Another replica than this one, if there is one."""
        ...
