"""Calls to a model that vLLM runs in the worker's own process, on a GPU or a CPU."""

import asyncio
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, LLMError, Reply
from multiverse.curation.llm.config import EngineLLMConfig
from multiverse.curation.llm.local import LocalEngine


class EngineLLM:
    """An `LLM`. A schema is kept to by constrained decoding, so an answer is JSON of its form unless it is cut off.

    ``engine`` is its owner's to stop. attempts: always 1.
    """

    def __init__(self, engine: LocalEngine, config: EngineLLMConfig, accounting: Accounting) -> None:
        self.identity = engine.identity
        self._engine = engine
        self._config = config
        self._accounting = accounting
        self._slots = asyncio.Semaphore(config.concurrency)

    async def __call__(self, call: Call) -> Reply:
        """The model's answer, of as many tokens as the call and the context allow. Raises LLMError."""
        figures = self._accounting.of(call.stage)
        async with self._slots:
            try:
                reply = await self._answer(call)
            except LLMError:
                figures.failed += 1
                raise
        figures.made += 1
        return reply

    async def _answer(self, call: Call) -> Reply:
        engine, figures = self._engine, self._accounting.of(call.stage)
        try:
            prompt = engine.tokens.chat(call.messages)
        except ValueError as error:
            raise LLMError(f"{call.stage}: {error}", attempts=0, retryable=False) from error
        room = engine.max_model_len - len(prompt)
        if room < 1:
            raise LLMError(
                f"{call.stage}: the prompt has {len(prompt):,} tokens, but {self._config.model} takes "
                f"{engine.max_model_len:,} with the answer",
                attempts=0,
                retryable=False,
            )
        figures.attempts += 1
        output = await engine.run(prompt, self._params(call, room))
        answer = output.outputs[0]
        cost = self._config.prices.cost(len(prompt), len(answer.token_ids))
        figures.use(len(prompt), len(answer.token_ids), cost)
        if not answer.text or answer.text.isspace():
            raise LLMError(f"{call.stage}: the answer is empty", attempts=1, retryable=False)
        return Reply(
            answer.text,
            len(prompt),
            len(answer.token_ids),
            attempts=1,
            cached=False,
            cost=cost,
            model=self._config.model,
        )

    def _params(self, call: Call, room: int) -> SamplingParams:
        sampling: dict[str, Any] = self._engine.sampling_defaults | {
            "max_tokens": min(call.max_tokens, room),
            "seed": call.seed,
            "stop_token_ids": list(self._engine.tokens.eos_ids),
        }
        if call.temperature is not None:
            sampling["temperature"] = call.temperature
        if call.schema is not None:
            sampling["structured_outputs"] = StructuredOutputsParams(json=call.schema)
        return SamplingParams(**sampling)
