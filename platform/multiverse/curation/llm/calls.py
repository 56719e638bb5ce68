"""What curation asks an LLM, and what it gets."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One question. Equal calls to one model have one answer: that of the cache.

    stage: what it is for, in figures. messages: OpenAI's, ``{"role": ..., "content": ...}``. schema: JSON schema of the
    answer; None: text. max_tokens: of the answer. temperature, seed: None: as the endpoint has them.
    """

    stage: str
    messages: tuple[dict[str, str], ...]
    schema: dict[str, Any] | None
    max_tokens: int
    temperature: float | None = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer, never empty; with a schema it is meant to be JSON, which nobody has checked.

    Tokens, cost (in the currency of the prices) and attempts (requests sent, failed ones included) are those of the
    call when it was made, cached or not. model: as the endpoint names it.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    cached: bool
    cost: float
    model: str


class LLM(Protocol):
    """Anything that answers calls, many at a time."""

    async def __call__(self, call: Call) -> Reply:
        """Raises LLMError."""
        ...


class LLMError(RuntimeError):
    """A call was given up. attempts: requests sent. retryable: it may go well another time."""

    def __init__(self, message: str, attempts: int, retryable: bool) -> None:
        super().__init__(message, attempts, retryable)  # all of them, for pickle
        self.message = message
        self.attempts = attempts
        self.retryable = retryable

    def __str__(self) -> str:
        return self.message


class EndpointError(LLMError):
    """The LLM takes no call of ours: key, model, credit, a long pause, or an engine that is gone. No row is at fault;
    stop the job.
    """
