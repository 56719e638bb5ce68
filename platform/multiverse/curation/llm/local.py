"""A model that vLLM runs for this process, as it is: texts that it continues, and how well it predicts them.

Plain `AsyncLLM`, not `VllmEngine`: nothing here forks or joins, and vLLM scores the tokens of a prompt only where no
connector supplies their KV.
"""

import itertools
from collections.abc import Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.inputs import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from multiverse.curation.llm.calls import EndpointError, LLMError
from multiverse.engine.config import EngineConfig
from multiverse.engine.masks import Rules
from multiverse.engine.vllm_engine import SHUTDOWN_SECONDS
from multiverse.engine.vllm_setup import start_plain_vllm
from multiverse.models.manifest import Manifest
from multiverse.models.tokens import Tokens


class LocalEngine:
    """One vLLM for all that a worker asks of the model. Use it in ``async with``, which stops vLLM's processes.

    identity: all that decides what is answered, beside what is asked. max_model_len: tokens of a prompt and its answer.
    Making one takes seconds to minutes; raises vLLM's errors for settings that do not go with the model.
    """

    def __init__(self, config: EngineConfig) -> None:
        manifest = Manifest.load(config.model)
        self.tokens = Tokens.load(config.model)
        self._llm = start_plain_vllm(config)
        self.max_model_len: int = self._llm.model_config.max_model_len
        self.identity = f"engine {manifest.fingerprint} {config.dtype} {self.max_model_len}"
        self.sampling_defaults = self._llm.model_config.get_diff_sampling_param()
        """What the model's generation_config.json says, as vLLM's server takes it."""
        self._no_tags = Rules(masked=tuple(manifest.tag_ids.values())).to_extra()
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._llm.shutdown(timeout=SHUTDOWN_SECONDS)

    async def run(self, prompt: Sequence[int], params: SamplingParams) -> RequestOutput:
        """What vLLM makes of a prompt, when it is finished. Tags are never sampled.

        Raises LLMError where vLLM refuses or fails it, EndpointError if its processes are gone.
        """
        params.output_kind = RequestOutputKind.FINAL_ONLY
        params.extra_args = self._no_tags
        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=list(prompt)), params, request_id=f"local-{next(self._numbers)}"
        )
        try:
            async with aclosing(outputs):
                output: RequestOutput = await anext(outputs)
        except VLLMClientError as error:
            raise LLMError(f"vLLM refuses the call: {error}", attempts=1, retryable=False) from error
        except EngineDeadError as error:
            raise EndpointError("vLLM's processes are gone; its log says why", attempts=1, retryable=True) from error
        except VLLMServerError as error:
            raise LLMError(f"vLLM failed the call: {error}", attempts=1, retryable=True) from error
        if (finish := output.outputs[0].finish_reason) not in ("stop", "length"):
            raise LLMError(f"vLLM ended the call with {finish!r}", attempts=1, retryable=True)
        return output

    async def logprobs(self, ids: Sequence[int], start: int) -> list[float]:
        """Log-probability (nats) of each of ``ids[start:]``, given all before it.

        ids: fewer than `max_model_len`. start: at least 1. Raises as `run`.
        vLLM holds the logits [num_tokens, vocab_size] float32 of a prefill step, which on a CPU is all of ``ids``:
        `max_model_len` bounds that memory.
        """
        output = await self.run(ids, SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False))
        scored = itertools.islice(zip(ids, output.prompt_logprobs, strict=True), start, None)
        return [position[id].logprob for id, position in scored]
