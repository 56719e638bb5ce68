"""The layout's own forward in transformers: what the engine's branches and joins are compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from multiverse.structure.layout import Layout


def load_reference(directory: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """The transformers model of a checkpoint, in eval mode, with the attention that takes an explicit mask."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").eval()


@torch.inference_mode()
def layout_logits(model: Any, token_ids: Sequence[int], layout: Layout) -> torch.Tensor:
    """Logits [num_tokens, vocab_size] float32 of one forward over the whole sequence, blocks and all.

    Takes memory for num_tokens x num_tokens in the model's dtype: for tests and the engine's self-test.
    """
    ids = torch.tensor([token_ids], device=model.device)
    positions = torch.from_numpy(layout.positions.astype("int64"))[None].to(model.device)
    blocked = ~visible(layout).to(model.device)
    mask = torch.zeros(blocked.shape, dtype=model.dtype, device=model.device)
    mask = mask.masked_fill(blocked, torch.finfo(model.dtype).min)
    output = model(input_ids=ids, position_ids=positions, attention_mask=mask[None, None], use_cache=False)
    logits: torch.Tensor = output.logits[0].float()
    return logits


def visible(layout: Layout) -> torch.Tensor:
    """Which key (column) each query (row) sees: [num_tokens, num_tokens] bool."""
    intervals = torch.from_numpy(layout.hidden_intervals())
    keys = torch.arange(len(intervals))
    seen = keys[None, :] <= keys[:, None]
    for depth in range(intervals.shape[1]):
        low, high = intervals[:, depth, 0, None], intervals[:, depth, 1, None]
        seen &= (keys < low) | (keys >= high)
    return seen
