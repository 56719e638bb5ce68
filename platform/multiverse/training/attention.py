"""Attention of the layout for training, as transformers' attention implementation "multiverse".

    from multiverse.training.attention import NAME, inputs       (importing it registers the name)
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation=NAME)
    logits = model(**inputs(batch)).logits

What a token sees travels as the keyword argument ``visibility`` of the model's forward, which transformers hands
through every layer to the attention function. So it needs no state beside the model: wrappers that move, shard or
recompute (FSDP2, DeepSpeed, activation checkpointing, peft) pass it on as it is.

Two ways to compute it, chosen by the device of the batch:

- elsewhere than CUDA: SDPA over runs of rows, each with the keys of its example up to its own last row, but for those
  hidden from all of the run. Nothing is computed for what is blank here, nor between packed examples.

               keys
      rows     c               prompt, goal      c  rows before the first hidden key: SDPA's own causal kernel, no mask
               c c             branch 1          m  other rows, in runs: with masks, made once for a forward and shared
               m   m           branch 2             by all layers
               m     m         branch 3
               m m m m m       join

- CUDA: FlexAttention with a block-sparse mask, in which no n x n tensor ever exists. Its mask and its forward were
  compared on CPU, where it has no backward; the compiled kernels and their backward were not run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from multiverse.training.packing import Batch

NAME = "multiverse"
_RUN = 256
"""Most rows of a masked run, unless there would be too many runs."""
_RUNS = 8
"""Most masked runs that rows with the same hidden keys are split into: with more, less is computed in vain, but
gradients are summed more often."""
_BRANCH = 64
"""Least rows of a branch for which it pays to leave its siblings' keys out; those of smaller ones are masked."""

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """Rows ``[start, end)`` that are computed at once, with the keys in the ranges ``keys``.

    mask: [rows, keys] of the queries' dtype, what is added to their scores: 0 or -inf. None: causal, and the keys are
    the rows themselves.
    """

    start: int
    end: int
    keys: tuple[tuple[int, int], ...]
    mask: torch.Tensor | None


class Visibility:
    """Which keys each token of one packed sequence sees: those of its own example up to itself, without the hidden.

    What attention needs of it is made when it is first asked for and kept: make one for each forward. It is no
    dataclass, for FSDP would take that apart to cast its tensors, once in every layer.
    """

    def __init__(self, starts: torch.Tensor, hidden: torch.Tensor) -> None:
        """starts: [num_tokens] int32. hidden: [num_tokens, depth, 2] int32. Both as in `Batch`."""
        self.starts = starts
        self.hidden = hidden
        self._runs: dict[torch.dtype, list[Run]] = {}
        self._block_mask: BlockMask | None = None

    def runs(self, dtype: torch.dtype) -> list[Run]:
        """All rows as runs, in order, with masks of ``dtype``."""
        if dtype not in self._runs:
            self._runs[dtype] = [
                Run(start, end, keys, self._mask(start, end, keys, dtype) if masked else None)
                for start, end, keys, masked in self._split()
            ]
        return self._runs[dtype]

    def block_mask(self) -> BlockMask:
        """FlexAttention's mask, for any batch size and number of heads."""
        if self._block_mask is None:
            # Compiled, it finds the blocks without the dense mask that it otherwise makes of them.
            make = _compiled(create_block_mask) if self.starts.is_cuda else create_block_mask
            count = len(self.starts)
            self._block_mask = make(self.mask_mod(), None, None, count, count, device=self.starts.device)
        return self._block_mask

    def mask_mod(self) -> MaskMod:
        """Whether ``query`` sees ``key``, in the form that FlexAttention takes."""
        starts, hidden = self.starts, self.hidden

        def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            seen = (key <= query) & (key >= starts[query])
            for depth in range(hidden.shape[1]):
                seen = seen & ((key < hidden[query, depth, 0]) | (key >= hidden[query, depth, 1]))
            return seen

        return sees

    def mask_bytes(self) -> int:
        """Memory of the masks made so far for SDPA."""
        return sum(run.mask.nbytes for runs in self._runs.values() for run in runs if run.mask is not None)

    def _split(self) -> Iterator[tuple[int, int, tuple[tuple[int, int], ...], bool]]:
        """(start, end, ranges of keys, masked) of every run."""
        starts, outermost = self.starts.cpu().numpy(), self._outermost()
        firsts = np.flatnonzero(np.diff(starts, prepend=-1)).tolist()
        for first, end in zip(firsts, [*firsts[1:], len(starts)], strict=True):
            hiding = np.flatnonzero(outermost[first:end, 1])
            front = first + int(hiding[0]) if len(hiding) else end
            if front > first:
                yield first, front, ((first, front),), False
            for begin, stop in _alike(outermost[front:end], front):
                alike = bool((outermost[begin:stop] == outermost[begin]).all())
                low, high = outermost[begin].tolist() if alike else (0, 0)
                step = max(_RUN, -(-(stop - begin) // _RUNS))
                for start in range(begin, stop, step):
                    last = min(start + step, stop)
                    ranges = ((first, low), (high, last)) if high > low else ((first, last),)
                    yield start, last, ranges, True

    def _outermost(self) -> np.ndarray:
        """[num_tokens, 2] int32: by token, the hidden keys of the outermost depth that hides any, (0, 0) for none."""
        hidden = self.hidden.cpu().numpy()
        found = np.zeros((len(hidden), 2), dtype=np.int32)
        for depth in reversed(range(hidden.shape[1])):
            own = hidden[:, depth]
            found = np.where(own[:, 1:] > own[:, :1], own, found)
        return found

    def _mask(self, start: int, end: int, ranges: tuple[tuple[int, int], ...], dtype: torch.dtype) -> torch.Tensor:
        device = self.starts.device
        keys = torch.cat([torch.arange(*one, dtype=torch.int32, device=device) for one in ranges])
        unseen = keys > torch.arange(start, end, dtype=torch.int32, device=device)[:, None]
        hidden = self.hidden[start:end]
        for depth in range(hidden.shape[1]):
            low, high = hidden[:, depth, 0, None], hidden[:, depth, 1, None]
            if bool((high > low).any()):
                unseen |= (keys >= low) & (keys < high)
        return torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill_(unseen, float("-inf"))


def _alike(outermost: np.ndarray, at: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with the same hidden keys; where smaller than `_BRANCH`, neighbours become one. at: of row 0."""
    borders = [0, *(np.flatnonzero((outermost[1:] != outermost[:-1]).any(1)) + 1).tolist(), len(outermost)]
    begun = 0
    for begin, end in pairwise(borders):
        if end - begin >= _BRANCH:
            if begun < begin:
                yield at + begun, at + begin
            yield at + begin, at + end
            begun = end
    if begun < len(outermost):
        yield at + begun, at + len(outermost)


def inputs(batch: Batch) -> dict[str, Any]:
    """Keyword arguments of a causal model's forward over ``batch``: one row, [1, num_tokens], and its visibility."""
    return {
        "input_ids": batch.ids[None],
        "position_ids": batch.positions[None],
        "visibility": Visibility(batch.starts, batch.hidden),
        "use_cache": False,
    }


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    visibility: Visibility | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, as transformers calls it.

    query: [1, heads, num_tokens, head_dim]; key, value: [1, kv_heads, num_tokens, head_dim], of the same dtype.
    Returns [1, num_tokens, heads, head_dim]. Raises ValueError without ``visibility``, with a mask beside it, for more
    than one sequence, and for dropout. A single token without ``visibility`` is the next one of a generation: it sees
    all keys there are.
    """
    if visibility is None and attention_mask is None and query.shape[2] == 1:
        output = scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=True)
        return output.transpose(1, 2).contiguous(), None
    if visibility is None or attention_mask is not None:
        raise ValueError(f"the attention {NAME!r} takes what tokens see as visibility=..., and no attention_mask")
    if query.shape[:3:2] != (1, len(visibility.starts)) or dropout:
        raise ValueError(
            f"the attention {NAME!r} takes one packed sequence of {len(visibility.starts)} tokens and no dropout, "
            f"not {query.shape[0]} of {query.shape[2]} with dropout {dropout}"
        )
    if query.is_cuda:
        output = _compiled(flex_attention)(
            query, key, value, block_mask=visibility.block_mask(), scale=scaling, enable_gqa=True
        )
    else:
        output = _in_runs(query, key, value, visibility.runs(query.dtype), scaling)
    return output.transpose(1, 2).contiguous(), None


def _in_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: list[Run], scaling: float | None
) -> torch.Tensor:
    queries = query.split([run.end - run.start for run in runs], dim=2)
    outputs = [
        scaled_dot_product_attention(
            rows,
            _taken(key, run.keys),
            _taken(value, run.keys),
            attn_mask=run.mask,
            is_causal=run.mask is None,
            scale=scaling,
            enable_gqa=True,
        )
        for rows, run in zip(queries, runs, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _taken(states: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    parts = [states[:, :, start:end] for start, end in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


AttentionInterface.register(NAME, attention)
