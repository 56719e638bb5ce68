"""The optimizer steps of a run: which packed sequences each worker computes in which step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from multiverse.training.curriculum import Curriculum
from multiverse.training.examples import Twins
from multiverse.training.packing import NO_LABEL, Batch, plan


@dataclass(frozen=True, slots=True)
class Micro:
    """What one worker computes of a step. batches: as many on every worker; those without labels are there for that
    alone. asked: labels of the whole step, over all workers; the step's loss is the mean over them."""

    batches: tuple[Batch, ...]
    asked: int
    tokens: int


class Steps:
    """Steps of ``rows_per_step`` positions of a curriculum each. What a step learns does not depend on the number of
    workers; a step can be asked for in any order."""

    def __init__(self, curriculum: Curriculum, twins: Sequence[Twins], rows_per_step: int, max_tokens: int) -> None:
        self._curriculum = curriculum
        self._twins = twins
        self._rows = rows_per_step
        self._max_tokens = max_tokens

    def __len__(self) -> int:
        return -(-len(self._curriculum) // self._rows)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Micro:
        """Of step ``step`` (from 0), what worker ``rank`` computes."""
        chosen = self._curriculum.between(step * self._rows, (step + 1) * self._rows)
        examples = [self._twins[row][form] for row, form in chosen]
        bins = plan([len(example) for example in examples], self._max_tokens)
        tokens = [sum(len(examples[index]) for index in chosen) for chosen in bins]
        shares: list[list[int]] = [[] for _ in range(world_size)]
        loads = [0] * world_size
        for number in sorted(range(len(bins)), key=lambda number: -tokens[number]):
            least = min(range(world_size), key=lambda worker: (loads[worker], worker))
            shares[least].append(number)
            loads[least] += tokens[number]
        batches = [Batch.of([examples[index] for index in chosen]) for chosen in bins]
        mine = [batches[number] for number in sorted(shares[rank])]
        idle = Batch.of([min(examples, key=len)]).without_labels()
        mine += [idle] * (max(map(len, shares)) - len(mine))
        return Micro(tuple(mine), sum(batch.asked for batch in batches), sum(tokens))


def targets(batch: Batch) -> torch.Tensor:
    """[num_labels] int64: the indices of the tokens that have labels; one token where there are none, so that a
    worker without work takes part in every collective call."""
    where = (batch.labels != NO_LABEL).nonzero()[:, 0]
    return where if len(where) else torch.zeros(1, dtype=torch.int64, device=batch.labels.device)
