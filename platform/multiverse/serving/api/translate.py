"""One checked body to the generation requests it asks for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from multiverse.engine.segment import Sampling
from multiverse.serving.api.errors import bad
from multiverse.serving.api.prompts import Prompt, prompts
from multiverse.serving.api.schema import MAX_GENERATIONS, ChatBody, CompletionBody, GenerationBody
from multiverse.serving.interface import GenerationEngine
from multiverse.serving.request import GenerationRequest, Mode, ParallelOptions, Reduce, Seen
from multiverse.structure.tags import LAYOUT_VERSION


@dataclass(frozen=True, slots=True)
class Ticket:
    """What tells one generation from the others. ``arrival``: its place in the order of all requests of this server."""

    id: str
    arrival: int


def default_mode(engine: GenerationEngine) -> Mode:
    """Of requests that name none."""
    return "auto" if engine.limits.trained else "off"


def to_requests(
    body: ChatBody | CompletionBody, engine: GenerationEngine, ticket: Callable[[], Ticket], tenant: str = ""
) -> list[GenerationRequest]:
    """The requests of ``body``: ``n`` per prompt, the prompts in their order. Raises ApiError, naming the field.

    tenant: whose prefix cache they use; empty: the one that all share.
    """
    mode = body.parallel.mode or default_mode(engine)
    _check_options(body, mode)
    if mode != "off":
        _check_structured(body, mode)
    _check_logit_bias(body, engine.manifest.tokens)
    found = prompts(body, engine)
    if len(found) * body.n > MAX_GENERATIONS:
        raise bad("n", f"n is {body.n}: {len(found)} prompts make more than {MAX_GENERATIONS} generations")
    limits = [_max_tokens(body, prompt, engine.limits.max_model_len) for prompt in found]
    if mode == "off" and body.parallel.max_positions is not None:
        # Without blocks every token is a position.
        limits = [min(limit, body.parallel.max_positions) for limit in limits]
    requests = []
    for prompt, max_tokens in zip(found, limits, strict=True):
        for number in range(body.n):
            mine = ticket()
            requests.append(
                GenerationRequest(
                    id=mine.id,
                    prompt=prompt.tokens,
                    sampling=_sampling(body, max_tokens, derived_seed(body.seed, number)),
                    parallel=_parallel(body, mode, engine.limits.reduce),
                    question=prompt.question,
                    arrival=mine.arrival,
                    cache_salt=_cache_salt(mode, tenant),
                    seen=_seen(body),
                )
            )
    return requests


def _cache_salt(mode: Mode, tenant: str) -> str:
    # KV of the same tokens differs between layouts, and where all tags are masked. Names of tenants have no slash.
    return f"layout-{LAYOUT_VERSION}{'-off' if mode == 'off' else ''}{'/' if tenant else ''}{tenant}"


def _seen(body: GenerationBody) -> Seen:
    if not body.stream:
        return "nothing"
    return "all" if body.parallel.stream_branches else "answer"


def derived_seed(seed: int | None, number: int) -> int | None:
    """The seed of generation ``number`` (from 0): the first has the request's own, a 63-bit hash the others."""
    if seed is None or number == 0:
        return seed
    digest = hashlib.blake2b(f"{seed} generation {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _check_options(body: ChatBody | CompletionBody, mode: Mode) -> None:
    if body.stream_options is not None and not body.stream:
        raise bad("stream_options", "stream_options is given without stream: true")
    if body.parallel.stream_branches and not body.stream:
        raise bad("parallel.stream_branches", "parallel.stream_branches is true without stream: true")
    if body.parallel.width is not None and mode != "force":
        raise bad("parallel.width", f"parallel.width is {body.parallel.width}: works with parallel.mode 'force' only")
    logprobs = body.logprobs is not None and body.logprobs is not False
    if logprobs and not body.parallel.tags:
        raise bad("logprobs", "logprobs belong to tokens, tags included: they do not work with parallel.tags false")
    if isinstance(body, ChatBody):
        if body.continue_final_message == body.add_generation_prompt:
            raise bad(
                "continue_final_message",
                "continue_final_message must be true where add_generation_prompt is false, and only there",
            )
        if body.continue_final_message and body.messages[-1].role != "assistant":
            raise bad(
                "continue_final_message", "continue_final_message is true: the last message must be the assistant's"
            )
        if body.top_logprobs is not None and not body.logprobs:
            raise bad("top_logprobs", f"top_logprobs is {body.top_logprobs} without logprobs: true")
        if body.ignore_eos and body.response_format is not None and body.response_format.type != "text":
            raise bad("ignore_eos", "ignore_eos is true: what response_format describes ends by the end of sequence")
        if body.tools and body.tool_choice != "none":
            raise bad("tools", "tools: tool calls are not parsed here; send tool_choice 'none' or leave tools out")
        if body.tool_choice not in (None, "none", "auto"):
            raise bad("tool_choice", "tool_choice must be 'none': tool calls are not parsed here")
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise bad("max_tokens", "max_tokens and max_completion_tokens are the same: give one of them")


def _check_structured(body: ChatBody | CompletionBody, mode: Mode) -> None:
    """Refuse what has a meaning for one sequence of text only."""
    given = {
        "stop": bool(body.stop),
        "presence_penalty": body.presence_penalty != 0,
        "frequency_penalty": body.frequency_penalty != 0,
        "repetition_penalty": body.repetition_penalty != 1,
        "logit_bias": bool(body.logit_bias),
        "min_tokens": body.min_tokens > 0,
    }
    if isinstance(body, ChatBody):
        given["response_format"] = body.response_format is not None and body.response_format.type != "text"
        given["tools"] = bool(body.tools)
    for field, there in given.items():
        if there:
            raise bad(field, f"{field} works with parallel.mode 'off' only; the mode is {mode!r}")


def _check_logit_bias(body: GenerationBody, size: int) -> None:
    for key in body.logit_bias:
        if int(key) >= size:
            raise bad("logit_bias", f"logit_bias has the key {key!r}: must be a token id from 0 to {size - 1}")


def _max_tokens(body: ChatBody | CompletionBody, prompt: Prompt, max_model_len: int) -> int:
    left = max_model_len - len(prompt.tokens)
    field, asked = "max_tokens", body.max_tokens
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        field, asked = "max_completion_tokens", body.max_completion_tokens
    asked = left if asked is None else asked
    if asked > left:
        raise bad(
            field,
            f"{field} is {asked}: must be at most {left}, what the prompt of {len(prompt.tokens)} tokens leaves of the "
            f"model's context of {max_model_len}",
            "context_length_exceeded",
        )
    if body.min_tokens > asked:
        raise bad("min_tokens", f"min_tokens is {body.min_tokens}: must be at most {field}, which is {asked}")
    return asked


def _parallel(body: GenerationBody, mode: Mode, reduce: Reduce) -> ParallelOptions:
    asked = body.parallel
    return ParallelOptions(
        mode=mode,
        width=asked.width,
        max_width=asked.max_width,
        max_depth=asked.max_depth,
        max_branch_tokens=asked.max_branch_tokens,
        max_positions=asked.max_positions,
        reduce=asked.reduce or reduce,
    )


def _sampling(body: ChatBody | CompletionBody, max_tokens: int, seed: int | None) -> Sampling:
    if isinstance(body, ChatBody):
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        form = body.response_format
    else:
        logprobs, form = body.logprobs, None
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(body.top_k, 0),
        min_p=body.min_p,
        seed=seed,
        logprobs=logprobs,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias={int(key): value for key, value in body.logit_bias.items()} or None,
        stop=tuple(body.stop),
        json_schema=form.json_schema.schema_ if form is not None and form.json_schema is not None else None,
        json_object=form is not None and form.type == "json_object",
    )
