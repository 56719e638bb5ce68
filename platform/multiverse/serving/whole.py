"""Whole requests over a segment engine: what one engine in this process and a fleet of replicas have in common."""

from collections.abc import AsyncIterator
from pathlib import Path

from multiverse.engine.segment import SegmentEngine
from multiverse.models.manifest import Manifest
from multiverse.models.tokens import Tokens
from multiverse.serving.events import Event
from multiverse.serving.joins import Reduction
from multiverse.serving.request import GenerationRequest
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer


class WholeEngine:
    """model: the prepared checkpoint's directory. The other parameters are the `Sequencer`'s."""

    def __init__(
        self,
        segments: SegmentEngine,
        model: Path,
        limits: EngineLimits,
        rows: Rows | None = None,
        reduction: Reduction | None = None,
        owner: str = "local",
    ) -> None:
        self.manifest = Manifest.load(model)
        self.tokens = Tokens.load(model)
        self.limits = limits
        self._sequencer = Sequencer(segments, self.tokens, limits, rows, reduction, owner)

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """The request's events; closing the iterator before its end aborts the request and frees all it holds."""
        return self._sequencer.generate(request)
