"""Logits processor for segments (vLLM ``LogitsProcessor``): masked tags, padding rows, the end of a branch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from multiverse.models.manifest import Manifest

KEY = "multiverse"
"""Where a segment's rules travel: ``SamplingParams(extra_args={KEY: rules})``."""


@dataclass(frozen=True, slots=True)
class Rules:
    """masked: ids never sampled. closer: see ``Segment``; ``end_ids`` are the end-of-sequence ids it stands for; it is
    forced as output token number ``last`` (from 1). Behind it an end id is forced, which ends the vLLM request.
    """

    masked: tuple[int, ...] = ()
    closer: int | None = None
    end_ids: tuple[int, ...] = ()
    last: int = 0

    def to_extra(self) -> dict[str, Any]:
        return {
            KEY: {"masked": list(self.masked), "closer": self.closer, "end_ids": list(self.end_ids), "last": self.last}
        }

    @classmethod
    def of(cls, params: SamplingParams) -> "Rules":
        extra = (params.extra_args or {}).get(KEY)
        if extra is None:
            return cls()
        return cls(tuple(extra["masked"]), extra["closer"], tuple(extra["end_ids"]), extra["last"])


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A request of the batch. output: its tokens so far, which vLLM appends to."""

    rules: Rules
    output: list[int]

    @property
    def forced(self) -> int | None:
        """The only token that may come, if there is but one."""
        closer = self.rules.closer
        if closer is None:
            return None
        if self.output and self.output[-1] == closer:
            return self.rules.end_ids[0]
        return closer if len(self.output) + 1 >= self.rules.last else None


class SegmentRules(LogitsProcessor):
    """Applies each request's `Rules`; the padding rows of the vocabulary are masked for every request.

    The whole batch at once: row by row, that took a good part of a step of many branches, and more than of plain text.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._tokens = Manifest.load(vllm_config.model_config.model).tokens
        self._device = device
        self._rows: dict[int, Row] = {}
        self._masked: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Rows of the batch, and the ids that are masked in them."""
        self._closing: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        """By closer and end-of-sequence ids, the rows that have them."""

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if not process_dict_updates(self._rows, batch_update, lambda params, _, output: Row(Rules.of(params), output)):
            return
        masked: dict[tuple[int, ...], list[int]] = {}
        self._closing = {}
        for index, row in self._rows.items():
            rules = row.rules
            if rules.masked:
                masked.setdefault(rules.masked, []).append(index)
            if rules.closer is not None:
                self._closing.setdefault((rules.closer, rules.end_ids), []).append(index)
        self._masked = [(self._ids(rows)[:, None], self._ids(ids)) for ids, rows in masked.items()]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """logits: ``[rows, vocab_size]``, changed in place."""
        logits[:, self._tokens :] = -torch.inf
        for rows, ids in self._masked:
            logits[rows, ids] = -torch.inf
        for (closer, ends), indices in self._closing.items():
            forced = {index: token for index in indices if (token := self._rows[index].forced) is not None}
            free = [index for index in indices if index not in forced]
            if free:
                rows = self._ids(free)[:, None]
                both = logits[rows, self._ids((*ends, closer))].float()
                logits[rows[:, 0], closer] = torch.logsumexp(both, 1).to(logits.dtype)
                logits[rows, self._ids(ends)] = -torch.inf
            if forced:
                rows = self._ids(forced)
                logits[rows] = -torch.inf
                logits[rows, self._ids(forced.values())] = 0.0
        return logits

    def _ids(self, values: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.long, device=self._device)
