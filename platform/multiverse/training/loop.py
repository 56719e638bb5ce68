"""The training loop's steps: the same for every strategy and number of workers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from multiverse.training.attention import inputs
from multiverse.training.packing import NO_LABEL, Batch
from multiverse.training.steps import Steps, targets
from multiverse.training.strategies import Strategy
from multiverse.training.writing import Part

PARTS = tuple(Part)
CHUNK = 2048
"""Tokens whose logits are in float32 at the same time."""


@dataclass(slots=True)
class Losses:
    """Summed cross-entropy (nats) and number of tokens, by the part of the answer."""

    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(len(PARTS), dtype=torch.float64))
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(len(PARTS), dtype=torch.float64))

    def add(self, losses: torch.Tensor, parts: torch.Tensor) -> None:
        """losses: [num_labels] float32. parts: [num_labels] uint8."""
        index = parts.long().cpu()
        self.sums.index_add_(0, index, losses.detach().double().cpu())
        self.counts.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))

    def gathered(self) -> "Losses":
        """Those of all workers."""
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return self
        both = torch.stack([self.sums, self.counts])
        both = both.cuda() if dist.get_backend() == "nccl" else both
        dist.all_reduce(both)
        return Losses(*both.cpu())

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum().clamp(min=1))

    def by_part(self) -> dict[str, float]:
        """Mean loss of every part that had tokens."""
        return {
            part.name.lower(): float(self.sums[part] / self.counts[part]) for part in PARTS if self.counts[part] > 0
        }


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step, counted from 0. tokens: of all workers. seconds: wall time. norm: of the gradient before clipping."""

    step: int
    loss: float
    by_part: dict[str, float]
    tokens: int
    seconds: float
    rate: float
    norm: float


def run_step(strategy: Strategy, steps: Steps, step: int, rate: float, device: torch.device) -> StepReport:
    """One optimizer step. All workers call it with the same ``step``."""
    begun = time.perf_counter()
    rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    micro = steps(step, rank, workers)
    losses = Losses()
    for number, batch in enumerate(micro.batches, 1):
        values, parts = forward_losses(strategy, batch.to(device))
        strategy.backward(values.sum() / max(1, micro.asked), last=number == len(micro.batches))
        if batch.asked:
            losses.add(values, parts)
    norm = strategy.step(rate)
    total = losses.gathered()
    seconds = time.perf_counter() - begun
    return StepReport(step, total.mean, total.by_part(), micro.tokens, seconds, rate, norm)


@torch.no_grad()
def held_out_loss(strategy: Strategy, batches: Sequence[Batch], device: torch.device) -> Losses:
    """Of rows that are not trained on; every worker computes the same number of ``batches``."""
    strategy.model.eval()
    losses = Losses()
    for batch in batches:
        values, parts = forward_losses(strategy, batch.to(device))
        if batch.asked:
            losses.add(values, parts)
    strategy.model.train()
    return losses.gathered()


def forward_losses(strategy: Strategy, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy [num_labels] float32 of what ``batch`` asks for, and its parts [num_labels] uint8.

    Logits are made for tokens with labels only. A batch without any gives one value, which is 0.
    """
    where = targets(batch)
    with strategy.forward():
        logits = strategy.model(**inputs(batch), logits_to_keep=where).logits[0]
    return _in_chunks(logits, batch.labels[where]), batch.parts[where]


def _in_chunks(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if len(labels) <= CHUNK:
        return _losses(logits, labels)
    pieces = zip(logits.split(CHUNK), labels.split(CHUNK), strict=True)
    return torch.cat([checkpoint(_losses, some, asked, use_reentrant=False) for some, asked in pieces])


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.float(), labels, reduction="none", ignore_index=NO_LABEL)
