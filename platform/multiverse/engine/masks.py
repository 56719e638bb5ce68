"""Logits processor for segments (vLLM ``AdapterLogitsProcessor``): masked tags, padding rows, the end of a branch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

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


class SegmentRules(AdapterLogitsProcessor):
    """Applies each request's `Rules`; the padding rows of the vocabulary are masked for every request."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._tokens = Manifest.load(vllm_config.model_config.model).tokens

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[[list[int], torch.Tensor], torch.Tensor]:
        rules = Rules.of(params)
        masked, ends = torch.tensor(rules.masked, dtype=torch.long), list(rules.end_ids)
        padding = self._tokens

        def apply(output: list[int], logits: torch.Tensor) -> torch.Tensor:
            logits[padding:] = -torch.inf
            if len(masked):
                logits[masked] = -torch.inf
            if rules.closer is None:
                return logits
            if output and output[-1] == rules.closer:
                return _only(logits, ends[0])
            if len(output) + 1 >= rules.last:
                return _only(logits, rules.closer)
            both = torch.cat([logits[ends], logits[rules.closer].unsqueeze(0)]).float()
            logits[rules.closer] = torch.logsumexp(both, 0).to(logits.dtype)
            logits[ends] = -torch.inf
            return logits

        return apply


def _only(logits: torch.Tensor, token: int) -> torch.Tensor:
    logits.fill_(-torch.inf)
    logits[token] = 0.0
    return logits
