"""Generation with the model that is being trained, by the engine's own rules.

`TrainedSegments` takes vLLM's place under the sequencer: forks, joins and masks are those of serving. Each segment is
computed by itself from its tokens, so it is slow, needs nothing to be merged, and runs wherever training runs.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from multiverse.engine.segment import Delta, Fork, Placed, Sampling, Segment
from multiverse.models.manifest import Manifest
from multiverse.models.tokens import Tokens
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.grammar import is_document
from multiverse.structure.layout import layout
from multiverse.training.attention import Visibility
from multiverse.training.strategies import Strategy


class TrainedSegments:
    """A `SegmentEngine` over the training model; greedy. One segment runs at a time."""

    def __init__(self, strategy: Strategy, tokens: Tokens, manifest: Manifest, device: torch.device) -> None:
        self._strategy = strategy
        self._tokens = tokens
        self._padding = manifest.tokens
        self._device = device

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(0)
        if segment.prefill_only:
            yield Delta((), finish="stop")
            return
        text, ends = _Text(self._strategy, self._tokens, self._device), set(self._tokens.eos_ids)
        logits = text.read(segment.tokens)
        for number in range(1, segment.sampling.max_tokens + 1):
            last = number == segment.sampling.max_tokens
            logits[self._padding :] = -torch.inf
            logits[list(segment.masked)] = -torch.inf
            token, forced = int(logits.argmax()), last and segment.closer is not None
            if segment.closer is not None and (forced or token in ends):
                token = segment.closer
            if token in ends:
                yield Delta((), finish="stop")
                return
            if token == segment.closer or token in segment.stop_ids:
                yield Delta((token,), finish="stop", forced=forced)
                return
            yield Delta((token,), finish="length" if last else None)
            if not last:
                logits = text.go_on(token)

    async def release(self, leases: Sequence[str]) -> None:
        """There are none."""

    def place(self, fork: Fork) -> Placed:
        return Placed(("",) * fork.width)

    def elsewhere(self, replica: str) -> str:
        return replica


class _Text:
    """The text of one segment with its KV cache, which holds what its new tokens see."""

    def __init__(self, strategy: Strategy, tokens: Tokens, device: torch.device) -> None:
        from transformers import DynamicCache

        self._strategy = strategy
        self._vocabulary = tokens.vocabulary
        self._device = device
        self._cache = DynamicCache()
        self._position = 0

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Logits [vocab_size] float32 behind ``ids``."""
        placed = layout(self._vocabulary.kinds(ids))
        hidden = placed.hidden_intervals()
        starts = torch.zeros(len(ids), dtype=torch.int32, device=self._device)
        seen = torch.ones(len(ids), dtype=torch.bool)
        for low, high in placed.hidden(len(ids) - 1):
            seen[low:high] = False
        logits = self._forward(
            ids, placed.positions, visibility=Visibility(starts, torch.from_numpy(hidden).to(self._device))
        )
        keep = seen.nonzero()[:, 0].to(self._device)
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[:, :, keep], layer.values[:, :, keep]
        self._position = placed.next_position
        return logits

    def go_on(self, id: int) -> torch.Tensor:
        """Logits [vocab_size] float32 behind one more token."""
        self._position += 1
        return self._forward([id], np.array([self._position - 1]))

    @torch.no_grad()
    def _forward(self, ids: Sequence[int], positions: np.ndarray, **more: Any) -> torch.Tensor:
        with self._strategy.forward():
            output = self._strategy.model(
                input_ids=torch.tensor([list(ids)], device=self._device),
                position_ids=torch.from_numpy(positions.astype(np.int64))[None].to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
                **more,
            )
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures of generated answers. valid: passes the strict parser and ended by itself. parallel: has a block."""

    answers: int
    valid: float
    parallel: float
    parallelism: float


async def answers(segments: TrainedSegments, tokens: Tokens, questions: Sequence[str], max_tokens: int) -> list[Result]:
    """Greedy answers in ``auto``, one after the other."""
    sequencer = Sequencer(segments, tokens, EngineLimits(max_model_len=8192, trained=True))
    results = []
    for number, question in enumerate(questions):
        prompt = tuple(tokens.chat([{"role": "user", "content": question}]))
        request = GenerationRequest(
            f"held-out-{number}", prompt, Sampling(max_tokens, temperature=0.0), ParallelOptions(mode="auto"), question
        )
        async for event in sequencer.generate(request):
            if isinstance(event, Finished):
                results.append(event.result)
    return results


def figures(results: Sequence[Result], tokens: Tokens) -> HeldOut:
    """Means over ``results``, of which there must be at least one."""
    count = len(results)
    return HeldOut(
        answers=count,
        valid=sum(result.finish == "stop" and is_document(tokens.decode(result.tokens)) for result in results) / count,
        parallel=sum(bool(result.blocks) for result in results) / count,
        parallelism=sum(result.parallelism for result in results) / count,
    )
