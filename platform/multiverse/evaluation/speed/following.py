"""A vLLM logits processor that makes any model write an answer of a given shape, so that content plays no role."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from multiverse.engine.masks import Rules
from multiverse.evaluation.speed.script import Script
from multiverse.models.manifest import Manifest

PROCESSOR = f"{__name__}:FollowsScript"
FILE = "MULTIVERSE_SPEED_SCRIPT"
"""Environment variable with the path of the script."""


class FollowsScript(AdapterLogitsProcessor):
    """Requests that may open a block, and branches, write what the `Script` says; plain requests are left alone."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._opener = Manifest.load(vllm_config.model_config.model).tag_ids["<Parallel>"]
        self._path = Path(os.environ[FILE])
        self._read: tuple[int, Script] | None = None

    def is_argmax_invariant(self) -> bool:
        return False

    def _script(self) -> Script:
        changed = self._path.stat().st_mtime_ns
        if self._read is None or self._read[0] != changed:
            self._read = changed, Script.load(self._path)
        return self._read[1]

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        rules = Rules.of(params)
        if (rules.closer is None and self._opener in rules.masked) or not self._path.exists():
            return None
        script, found = self._script(), list[tuple[int, ...]]()

        def apply(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            if not found:
                found.append(script.following(prompt) or ())
            if len(output) < len(found[0]) and logits[token := found[0][len(output)]] > -torch.inf:
                logits.fill_(-torch.inf)
                logits[token] = 0.0
            return logits

        return apply
