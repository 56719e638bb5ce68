"""Configuration of the LLM: endpoint, limits, prices, cache."""

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from multiverse.config import ConfigError, Configuration
from multiverse.serving.access.access import is_loopback
from multiverse.serving.access.shares import share

_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[^\s?#@]*)?", re.ASCII | re.IGNORECASE)


class Prices(BaseModel):
    """Money per million tokens, in any one currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(0.0, ge=0)
    completion: float = Field(0.0, ge=0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class LLMConfig(Configuration):
    """An endpoint that speaks OpenAI's chat completions, and how it is used."""

    base_url: str = Field(description="What stands before /chat/completions: https://api.openai.com/v1.")
    model: str = Field(min_length=1, description="The model's name there.")
    key_env: str | None = Field(
        None, min_length=1, description="Environment variable with the API key; default: no key is sent."
    )
    concurrency: int = Field(64, ge=1, description="Calls in flight at the same time.")
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
    prices: Prices = Prices()
    cache_dir: Path | None = Field(None, description="Where answers are kept for the next run; default: nowhere.")
    structured: Literal["json_schema", "guided_json", "none"] = Field(
        "json_schema",
        description="How a schema is sent: OpenAI's response_format, vLLM's structured_outputs, or not at all.",
    )
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls the limit of an answer: OpenAI's newer models the second."
    )
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Of the stages' calls; null: not sent, for models that refuse it."
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        # A key in an address would be shown wherever the address is.
        if not _ADDRESS.fullmatch(value):
            raise ValueError("must be an http:// or https:// address without user, query and fragment")
        return value.rstrip("/")

    @field_validator("cache_dir")
    @classmethod
    def _from_where_it_is_read(cls, path: Path | None) -> Path | None:
        # Workers run in folders of their own.
        return None if path is None else path.expanduser().absolute()

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

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
