"""Examples packed one behind the other into sequences without attention between them.

example    A A A A A | B B B | C C C C
start      0 0 0 0 0 | 5 5 5 | 8 8 8 8      index of the first token of the example
positions  0 1 2 3 4 | 0 1 2 | 0 1 2 3
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice

import numpy as np
import torch

from multiverse.training.examples import Example

NO_LABEL = -100
"""A label where nothing is asked; torch's cross_entropy leaves it out by default."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One packed sequence; memory goes by tokens x depth.

    ids, positions: [num_tokens] int64. starts: [num_tokens] int32, the index where the token's example begins.
    hidden: [num_tokens, depth, 2] int32, as of `Layout.hidden_intervals`, as indices of this sequence.
    labels: [num_tokens] int64, the id that each token is asked to predict, NO_LABEL for none. The target is the next
    token in the token's own visible order, never one of a sibling or of another example.
    parts: [num_tokens] uint8, the `Part` that the label belongs to.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    hidden: torch.Tensor
    labels: torch.Tensor
    parts: torch.Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Batch":
        """``examples`` one behind the other."""
        count = sum(map(len, examples))
        depth = max(example.hidden.shape[1] for example in examples)
        starts = np.zeros(count, dtype=np.int32)
        hidden = np.zeros((count, depth, 2), dtype=np.int32)
        labels = np.full(count, NO_LABEL, dtype=np.int64)
        parts = np.zeros(count, dtype=np.uint8)
        at = 0
        for example in examples:
            end = at + len(example)
            starts[at:end] = at
            own = example.hidden
            hidden[at:end, : own.shape[1]] = own + np.where(own[..., 1:] > 0, at, 0)
            # Siblings begin behind the same token: the first one's beginning is the label, so it is written last.
            before = example.predecessors()
            targets = np.flatnonzero(example.loss & (before >= 0))[::-1]
            sources = before[targets] + at
            labels[sources], parts[sources] = example.ids[targets], example.part[targets]
            at = end
        return cls(
            ids=torch.from_numpy(np.concatenate([example.ids for example in examples]).astype(np.int64)),
            positions=torch.from_numpy(np.concatenate([example.positions for example in examples]).astype(np.int64)),
            starts=torch.from_numpy(starts),
            hidden=torch.from_numpy(hidden),
            labels=torch.from_numpy(labels),
            parts=torch.from_numpy(parts),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def asked(self) -> int:
        """How many tokens have a label."""
        return int((self.labels != NO_LABEL).sum())

    def without_labels(self) -> "Batch":
        """The same tokens, of which nothing is asked: for a worker that has to take part and has nothing to do."""
        return replace(self, labels=torch.full_like(self.labels, NO_LABEL))

    def to(self, device: torch.device | str) -> "Batch":
        """This batch on ``device``."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def plan(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which of these go together into sequences of up to ``max_tokens``: first fit, the longest first.

    Sequences, and what is in them, keep the given order otherwise: a shuffle stays one. Raises ValueError for a length
    above ``max_tokens``.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        if length > max_tokens:
            raise ValueError(f"example {index} has {length} tokens, a sequence may have {max_tokens}")
        fitting = next((number for number, free in enumerate(room) if free >= length), None)
        if fitting is None:
            bins.append([])
            room.append(max_tokens)
            fitting = len(bins) - 1
        bins[fitting].append(index)
        room[fitting] -= length
    return sorted(map(sorted, bins))


def pack(examples: Iterable[Example], max_tokens: int, window: int = 256) -> Iterator[Batch]:
    """Batches of up to ``max_tokens``. Only examples of the same ``window`` that follow each other go together.

    The window is the unit to resume at: its batches depend on its examples only.
    """
    remaining = iter(examples)
    while some := list(islice(remaining, window)):
        for chosen in plan([len(example) for example in some], max_tokens):
            yield Batch.of([some[index] for index in chosen])
