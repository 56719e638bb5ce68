"""A vLLM logits processor that has an untrained model open blocks by itself in ``auto``, for load tests.

A model that was not trained never writes a tag, and nothing of what ``auto`` does would run.
"""

from collections.abc import Callable, Sequence

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from multiverse.engine.masks import Rules
from multiverse.models.tokens import Tokens

PROCESSOR = f"{__name__}:OpensBlocks"
WIDTHS = (2, 3, 4)
ASPECTS = ("the basics", "the practical side", "common mistakes", "an example")


class OpensBlocks(AdapterLogitsProcessor):
    """Forces a goal of two to four outlines as the beginning of an answer, where ``<Parallel>`` may be sampled.

    The rest is the model's. What is forced depends on the tokens alone, so a request that was preempted or rebuilt goes
    on where it was.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        tokens = Tokens.load(vllm_config.model_config.model)
        self._opener = tokens.tag("<Parallel>")
        self._header = answer_header(tokens)
        self._goals = [goal(tokens, width) for width in WIDTHS]

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        if self._opener in Rules.of(params).masked:
            return None

        def apply(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            token = forced(self._header, self._goals, prompt, output)
            if token is not None and logits[token] > -torch.inf:
                logits.fill_(-torch.inf)
                logits[token] = 0.0
            return logits

        return apply


def answer_header(tokens: Tokens) -> list[int]:
    """What the chat template writes between the last message and the answer."""
    messages = [{"role": "user", "content": "?"}]
    whole, asked = tokens.chat(messages), tokens.chat(messages, add_generation_prompt=False)
    return whole[len(asked) :]


def goal(tokens: Tokens, width: int) -> list[int]:
    """``<Parallel>`` up to ``</Goal>``, the way the engine writes it."""
    outlines = "".join(f"<Outline>\n{number}: {ASPECTS[number - 1]}\n</Outline>\n" for number in range(1, width + 1))
    return tokens.encode_structured(f"<Parallel>\n<Goal>\n{outlines}</Goal>")


def forced(
    header: Sequence[int], goals: Sequence[Sequence[int]], prompt: Sequence[int], output: Sequence[int]
) -> int | None:
    """The next token, where the text is a header with the beginning of a goal behind it. Which goal: the question's."""
    longest = max(map(len, goals))
    if len(output) >= longest:
        return None
    end = [*prompt[-longest - len(header) :], *output]
    for begun in range(longest):
        at = len(end) - begun - len(header)
        if at < 0:
            break
        if end[at : at + len(header)] == list(header):
            question = sum(prompt[: len(prompt) + len(output) - begun - len(header)])
            text = goals[question % len(goals)]
            written = end[at + len(header) :]
            return text[begun] if begun < len(text) and written == list(text[:begun]) else None
    return None
