"""The bodies of OpenAI's requests, with the ``parallel`` extension.

Every field is acted on, or named here as harmless, or refused: nothing is silently ignored.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_WIDTH = 32
MAX_DEPTH = 8
MAX_GENERATIONS = 16
MAX_LOGPROBS = 20
MAX_SEED = 2**63 - 1


class Body(BaseModel):
    """JSON types are taken as they are ("1" is no number); null stands for an absent field, as in OpenAI's clients."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    harmless: ClassVar[frozenset[str]] = frozenset()
    """Fields that clients send and that cannot change what is generated here."""

    @model_validator(mode="before")
    @classmethod
    def _without_null_and_harmless(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None and key not in cls.harmless}


class Parallel(Body):
    """How the request may go parallel."""

    mode: Literal["auto", "force", "off"] | None = Field(
        None,
        description="auto: the model's tags decide; force: a block is opened; off: plain. Default: auto if trained.",
    )
    width: int | None = Field(
        None, ge=1, le=MAX_WIDTH, description="Branches in mode force; default: the model chooses."
    )
    max_width: int = Field(8, ge=1, le=MAX_WIDTH, description="Branches at the same time; more run in waves.")
    max_depth: int = Field(2, ge=1, le=MAX_DEPTH, description="How deep blocks may nest; 1 is no nesting.")
    max_branch_tokens: int | None = Field(None, ge=1, description="Tokens of one branch.")
    max_positions: int | None = Field(None, ge=1, description="Budget in positions of the critical path.")
    reduce: Literal["kv", "text"] | None = Field(
        None, description="kv: branches are merged by their KV, without loss; text: by a second prefill of their text."
    )
    stream_branches: bool = Field(False, description="Also stream every branch as it is made.")
    tags: bool = Field(True, description="False: content is the flattened text, without tags, goals and conclusions.")


class StreamOptions(Body):
    harmless = frozenset({"include_obfuscation"})
    include_usage: bool = Field(False, description="Send usage in the last chunk.")


class GenerationBody(Body):
    """What chat and plain completions share."""

    harmless = frozenset(
        {
            "user",
            "metadata",
            "store",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "parallel_tool_calls",
        }
    )

    model: str
    parallel: Parallel = Parallel()
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = Field(
        False, description="Also send token ids, in streams with the index of each chunk's first token."
    )
    n: int = Field(1, ge=1, le=MAX_GENERATIONS, description="Generations; each has a seed derived from `seed`.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens of all branches; default: what the context leaves.")
    min_tokens: int = Field(0, ge=0)
    ignore_eos: bool = Field(False, description="True: the end of sequence is never sampled.")
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, description="0 and -1: all tokens.")
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    stop: list[Annotated[str, Field(min_length=1)]] = Field([], max_length=16, description="A string or several.")
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field({}, description="Token id to bias.")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_token_ids(cls, value: dict[str, float]) -> dict[str, float]:
        for key in value:
            if not (key.isascii() and key.isdecimal() and len(key) < 10):
                raise ValueError(f"keys must be token ids like '42', not {key[:20]!r}")
        return value


class Message(Body):
    """One turn. ``content`` is a string, or a list of parts of type text."""

    harmless = frozenset({"name", "tool_call_id", "annotations"})

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _text_parts(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        for part in value:
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                raise ValueError('parts must be {"type": "text", "text": "..."}; the model reads text only')
        return "".join(part["text"] for part in value)


class JsonSchema(Body):
    harmless = frozenset({"description", "strict"})

    name: str = "schema"
    schema_: dict[str, Any] = Field(alias="schema", description="A JSON schema.")


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema must be given exactly where type is 'json_schema'")
        return self


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    continue_final_message: bool = Field(
        False,
        description="Go on with the last message, the assistant's; vLLM's field, with add_generation_prompt false.",
    )
    add_generation_prompt: bool = Field(True, description="False exactly where continue_final_message is true.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="Alternatives per token, with logprobs.")
    response_format: ResponseFormat | None = None
    tools: list[Any] = []
    tool_choice: Any = None


class CompletionBody(GenerationBody):
    """``POST /v1/completions``. ``prompt``: a string, token ids, or a list of either."""

    prompt: list[str] | list[list[int]] = Field(min_length=1, max_length=MAX_GENERATIONS)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="Alternatives per token.")
    echo: Literal[False] = False
    best_of: Literal[1] = 1

    @field_validator("prompt", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        """Also checks what the items are: a union's own errors would name no value."""
        prompts = [value] if isinstance(value, str) or (_is_ids(value) and value) else value
        if not (isinstance(prompts, list) and (all(isinstance(p, str) for p in prompts) or all(map(_is_ids, prompts)))):
            raise ValueError("must be a string, a list of strings, a list of token ids, or a list of such lists")
        return prompts


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
