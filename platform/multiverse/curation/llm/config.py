"""Configuration of the LLM: an endpoint or an engine of the worker's own, limits, prices, cache."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from multiverse.addresses import Address, on_this_machine
from multiverse.config import ConfigError, Configuration
from multiverse.serving.access.shares import share

if TYPE_CHECKING:
    from multiverse.engine.config import EngineConfig


class Prices(BaseModel):
    """Money per million tokens, in any one currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(0.0, ge=0, description="Of what is sent.")
    completion: float = Field(0.0, ge=0, description="Of what comes back.")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class LLMUse(Configuration):
    """How any LLM is used."""

    concurrency: int = Field(64, ge=1, description="Calls in flight at the same time.")
    prices: Prices = Prices()
    cache_dir: Path | None = Field(None, description="Where answers are kept for the next run; default: nowhere.")
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Of the stages' calls; null: not sent, for models that refuse it."
    )

    @field_validator("cache_dir")
    @classmethod
    def _from_where_it_is_read(cls, path: Path | None) -> Path | None:
        # Workers run in folders of their own.
        return None if path is None else path.expanduser().absolute()


class LLMConfig(LLMUse):
    """An endpoint that speaks OpenAI's chat completions."""

    kind: Literal["endpoint"] = Field("endpoint", description="May be left out.")
    base_url: Address = Field(description="What stands before /chat/completions: https://api.openai.com/v1.")
    model: str = Field(min_length=1, description="The model's name there.")
    key_env: str | None = Field(
        None, min_length=1, description="Environment variable with the API key; default: no key is sent."
    )
    requests_per_minute: float | None = Field(None, gt=0, description="Sent evenly. Default: no limit.")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Of prompts and answers; an answer counts as max_tokens until it is there."
    )
    timeout_seconds: float = Field(300.0, gt=0, description="Longest time for one attempt.")
    deadline_seconds: float = Field(
        1800.0, gt=0, description="Longest time from the start of a call's first attempt, pauses and retries included."
    )
    max_attempts: int = Field(
        6, ge=1, description="Failures after which a call is given up. 429 is none; the deadline bounds it."
    )
    backoff_seconds: float = Field(1.0, gt=0, description="Mean pause before the first retry; it doubles, up to 60 s.")
    structured: Literal["json_schema", "json_object", "guided_json", "none"] = Field(
        "json_schema",
        description="How a schema is sent: as OpenAI's response_format, only that JSON is wanted, as vLLM's "
        "structured_outputs, or not at all.",
    )
    reasoning_effort: str | None = Field(
        None, min_length=1, description="Sent along, for models that think: low, medium, high. Default: not sent."
    )
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls the limit of an answer: OpenAI's newer models the second."
    )

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return on_this_machine(self.base_url)

    def key(self) -> SecretStr | None:
        """The API key, from the environment. Raises ConfigError, which does not show it, if it is missing or no key.

        An endpoint on the loopback address may do without.
        """
        if self.key_env is None:
            return None
        value = os.environ.get(self.key_env, "").strip()
        if not value:
            if self.loopback:
                return None
            raise ConfigError(f"the environment variable {self.key_env} is not set: no API key for {self.base_url}")
        # Errors of the HTTP library would quote what it cannot send.
        if not re.fullmatch(r"[!-~]+", value):
            raise ConfigError(f"the environment variable {self.key_env} is no API key: it has other than ASCII letters")
        return SecretStr(value)

    def share(self, workers: int) -> "LLMConfig":
        """One worker's part of the limits, where several work at the same time. Each gets at least one call at once."""
        requests, tokens = (
            None if limit is None else limit / workers for limit in (self.requests_per_minute, self.tokens_per_minute)
        )
        return self.model_copy(
            update={
                "concurrency": share(self.concurrency, workers),
                "requests_per_minute": requests,
                "tokens_per_minute": tokens,
            }
        )


class LocalModel(Configuration):
    """A model that vLLM runs in the worker's own process. None: vLLM decides."""

    model: str = Field(
        min_length=1, description="A prepared directory, or anything that `multiverse prepare` takes: builtin:, s3://."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Of weights and KV cache; auto: bfloat16, or float32 on a CPU without instructions for it."
    )
    max_model_len: int | None = Field(
        None, ge=64, description="Tokens of a prompt and its answer; default: the model's positions."
    )
    kv_cache_gib: float = Field(2.0, gt=0, description="Size of the KV cache.")
    max_num_seqs: int = Field(64, ge=1, description="Calls that are decoded at the same time; more wait.")
    enforce_eager: bool = Field(False, description="True: no compilation; starts sooner, decodes slower.")
    tensor_parallel_size: int = Field(1, ge=1, description="Devices that share the weights.")
    threads: int | None = Field(None, ge=1, description="CPU threads, bound to no core; null: vLLM binds one to each.")

    @field_validator("model")
    @classmethod
    def _directory_from_where_it_is_read(cls, model: str) -> str:
        directory = Path(model).expanduser()
        return str(directory.absolute()) if directory.is_dir() else model

    def engine_config(self) -> "EngineConfig":
        """The engine's settings, equal where one engine can serve both. Prepares the model first if it is not.

        Raises ValueError as `multiverse.models.prepare.prepare` does.
        """
        from multiverse.engine.config import EngineConfig
        from multiverse.models.precision import chosen
        from multiverse.models.prepare import prepared

        dtype = chosen(self.dtype)
        return EngineConfig(
            model=prepared(self.model, dtype),
            dtype=dtype,
            max_model_len=self.max_model_len,
            kv_cache_bytes=int(self.kv_cache_gib * 2**30),
            max_num_seqs=self.max_num_seqs,
            enforce_eager=self.enforce_eager,
            tensor_parallel_size=self.tensor_parallel_size,
            threads=self.threads,
        )


class EngineLLMConfig(LLMUse, LocalModel):
    """A model that runs in each worker, as the LLM."""

    kind: Literal["engine"] = Field("engine", description="Has to be there.")

    def share(self, workers: int) -> "EngineLLMConfig":
        """One worker's part: all of it, since each has an engine of its own."""
        return self


def _of_its_kind(value: Any) -> Any:
    """``kind`` says which; pydantic's own union of this sort writes it into the paths of its errors."""
    match value:
        case {"kind": "engine"}:
            return EngineLLMConfig.model_validate(value)
        case {"kind": kind} if kind != "endpoint":
            raise ValueError("its kind must be 'endpoint' or 'engine'")
        case dict():
            return LLMConfig.model_validate(value)
        case LLMConfig() | EngineLLMConfig():
            return value
    raise ValueError("must be an object")


AnyLLMConfig = Annotated[LLMConfig | EngineLLMConfig, BeforeValidator(_of_its_kind)]
"""What a configuration says of the LLM; without ``kind``, an endpoint."""
