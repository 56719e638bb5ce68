"""A vLLM logits processor that makes any model write given tokens: tags, in order and out of order."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

SCRIPT = "MULTIVERSE_SCRIPT"
"""Environment variable with the path of the script, a JSON list of [marker, continuation], both token ids."""


class ScriptedTokens(AdapterLogitsProcessor):
    """Forces ``continuation[n]`` where the text ends with ``marker + continuation[:n]``; the longest such end counts.

    The script is read anew for every request. A token that the engine masks is not forced. What is forced depends on
    the tokens alone, so a preempted or rebuilt request goes on where it was.
    """

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        path = Path(os.environ[SCRIPT])
        script = json.loads(path.read_text()) if path.exists() else []

        def apply(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            token = next_token(script, [*prompt, *output])
            if token is not None and logits[token] > -torch.inf:
                logits.fill_(-torch.inf)
                logits[token] = 0.0
            return logits

        return apply if script else None


def next_token(script: Sequence[tuple[Sequence[int], Sequence[int]]], tokens: Sequence[int]) -> int | None:
    """What the script writes behind ``tokens``, None where it says nothing."""
    longest, found = 0, None
    for marker, continuation in script:
        for written, token in enumerate(continuation):
            end = [*marker, *continuation[:written]]
            if len(end) > longest and tokens[-len(end) :] == end:
                longest, found = len(end), token
    return found
