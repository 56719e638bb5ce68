"""A vLLM logits processor that makes any model write an answer of a given shape, so that content plays no role."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from multiverse.engine.masks import Rules
from multiverse.evaluation.speed.script import Script
from multiverse.models.manifest import Manifest

PROCESSOR = f"{__name__}:FollowsScript"
FILE = "MULTIVERSE_SPEED_SCRIPT"
"""Environment variable with the path of the script."""
MOST = 1e4
"""A logit that no other reaches: what the script says is sampled greedily."""


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    script: tuple[int, ...]
    output: list[int]


class FollowsScript(LogitsProcessor):
    """Greedy requests that may open a block, and branches, write what the `Script` says, as far as the engine's own
    rules let them; plain requests are left alone."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._opener = Manifest.load(vllm_config.model_config.model).tag_ids["<Parallel>"]
        self._path = Path(os.environ[FILE])
        self._device = device
        self._read: tuple[int, Script] | None = None
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._row)

    def _row(self, params: SamplingParams, prompt: list[int] | None, output: list[int]) -> _Row | None:
        rules = Rules.of(params)
        if (rules.closer is None and self._opener in rules.masked) or not self._path.exists():
            return None
        following = self._script().following(prompt or [])
        return None if following is None else _Row(following, output)

    def _script(self) -> Script:
        changed = self._path.stat().st_mtime_ns
        if self._read is None or self._read[0] != changed:
            self._read = changed, Script.load(self._path)
        return self._read[1]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """logits: ``[rows, vocab_size]``, changed in place."""
        forced = {
            index: row.script[len(row.output)] for index, row in self._rows.items() if len(row.output) < len(row.script)
        }
        if forced:
            places = (
                torch.tensor(list(forced), dtype=torch.long, device=self._device),
                torch.tensor(list(forced.values()), dtype=torch.long, device=self._device),
            )
            allowed = logits[places] > -torch.inf
            logits[places] = torch.where(allowed, MOST, logits[places])
        return logits
