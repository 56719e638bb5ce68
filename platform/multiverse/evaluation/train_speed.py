"""What the layout's attention costs in training: forward and backward, beside plain causal attention, on the CPU."""

import gc
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from multiverse.evaluation.documents import DocumentWriter
from multiverse.models.manifest import Manifest
from multiverse.structure.tags import Vocabulary
from multiverse.training.attention import NAME, inputs
from multiverse.training.examples import Example
from multiverse.training.packing import NO_LABEL, Batch
from multiverse.training.writing import Part

LENGTHS = (1024, 2048, 4096)
LEAST_RATIO = 0.9
"""Of tokens/s, at the shortest length."""
_BRANCHES = 4


def measure_training(directory: str | Path, repeats: int) -> dict[str, Any]:
    """Medians over steps of either attention in turn, in bf16 and without an optimizer.

    A step is one structured document of `LENGTHS` tokens: text, a block of four branches, text. repeats: steps of each
    attention at the shortest length; longer ones take as many tokens, and two steps at least.
    mask_mib: what the masks of a step take together; float_mask_mib: a whole mask in float32.
    ok: whether tokens/s are at least 0.9 of those of causal attention at the shortest length.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation=NAME).train()
    vocabulary = Manifest.load(directory).vocabulary()
    batches = [Batch.of([document(vocabulary, length)]) for length in LENGTHS]
    _step(model, batches[0], NAME)
    _step(model, batches[0], "sdpa")
    rows = [_compare(model, batch, max(2, repeats * LENGTHS[0] // len(batch))) for batch in batches]
    return {"lengths": rows, "ok": rows[0]["ratio"] >= LEAST_RATIO}


def document(vocabulary: Vocabulary, length: int) -> Example:
    """Random words in a structure of exactly ``length`` tokens.

    The last quarter is asked for: with more, logits would take most of the memory and hide what attention takes.
    """
    write = DocumentWriter(vocabulary)
    before, body = length // 8, length * 3 // (4 * _BRANCHES)
    block = write.block(write.bodies([body - 16] * _BRANCHES))
    ids = [*write.text(before), *block, *write.text(length - before - len(block))]
    asked = [4 * index >= 3 * length for index in range(length)]
    return Example.of(ids, vocabulary.kinds(ids), asked, [Part.TEXT if one else Part.PROMPT for one in asked])


def _compare(model: Any, batch: Batch, repeats: int) -> dict[str, Any]:
    steps: dict[str, list[tuple[float, float, int]]] = {NAME: [], "sdpa": []}
    for _ in range(repeats):
        for name, found in steps.items():
            found.append(_step(model, batch, name))
    seconds = {name: statistics.median(step[0] for step in found) for name, found in steps.items()}
    peaks = {name: statistics.median(step[1] for step in found) for name, found in steps.items()}
    pairs = zip(steps["sdpa"], steps[NAME], strict=True)
    return {
        "tokens": len(batch),
        "multiverse_tokens_s": len(batch) / seconds[NAME],
        "causal_tokens_s": len(batch) / seconds["sdpa"],
        "ratio": statistics.median(causal[0] / ours[0] for causal, ours in pairs),
        "multiverse_peak_mib": peaks[NAME],
        "causal_peak_mib": peaks["sdpa"],
        "mask_mib": steps[NAME][0][2] / 2**20,
        "float_mask_mib": 4 * len(batch) ** 2 / 2**20,
    }


def _step(model: Any, batch: Batch, attention: str) -> tuple[float, float, int]:
    """Seconds, the process's peak memory in MiB, and bytes of masks, of one forward and backward."""
    model.set_attn_implementation(attention)
    model.zero_grad(set_to_none=True)
    gc.collect()
    asked = (batch.labels != NO_LABEL).nonzero()[:, 0]
    _forget_peak()
    begun = time.perf_counter()
    arguments = inputs(batch) if attention == NAME else {"input_ids": batch.ids[None], "use_cache": False}
    logits = model(**arguments, logits_to_keep=asked).logits[0]
    torch.nn.functional.cross_entropy(logits.float(), batch.labels[asked]).backward()
    seconds = time.perf_counter() - begun
    return seconds, _peak_mib(), arguments["visibility"].mask_bytes() if attention == NAME else 0


def _forget_peak() -> None:
    """Have the kernel begin anew with this process's peak (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
