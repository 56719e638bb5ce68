"""A vLLM logits processor that makes any model write given tokens: tags, in order and out of order."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        lines = [Line.of(*line) for line in json.loads(path.read_text())] if path.exists() else []

        def apply(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            token = next_token(lines, [*prompt, *output])
            if token is not None and logits[token] > -torch.inf:
                logits.fill_(-torch.inf)
                logits[token] = 0.0
            return logits

        return apply if lines else None


@dataclass(frozen=True, slots=True)
class Line:
    """``lengths``: by a token, how many tokens of ``text`` (marker and continuation) may stand when it is the last."""

    text: tuple[int, ...]
    lengths: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, marker: Sequence[int], continuation: Sequence[int]) -> "Line":
        text = (*marker, *continuation)
        lengths: dict[int, tuple[int, ...]] = {}
        for length in range(len(marker), len(text)):
            lengths[text[length - 1]] = (length, *lengths.get(text[length - 1], ()))
        return cls(text, lengths)


def next_token(lines: Sequence[Line], tokens: Sequence[int]) -> int | None:
    """What the script writes behind ``tokens``, None where it says nothing."""
    longest, found = 0, None
    for line in lines:
        for length in line.lengths.get(tokens[-1], ()):
            if length > longest and tuple(tokens[-length:]) == line.text[:length]:
                longest, found = length, line.text[length]
    return found
