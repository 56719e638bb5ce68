"""Calls over HTTP to any endpoint that speaks OpenAI's chat completions."""

import asyncio
import math
import random
import re
import time
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ValidationError

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, EndpointError, LLMError, Reply
from multiverse.curation.llm.config import LLMConfig
from multiverse.curation.llm.gate import Gate
from multiverse.curation.llm.schemas import response_format

_LONGEST_BACKOFF = 60.0
_CONNECT_SECONDS = 10.0
_BYTES_PER_TOKEN = 3
"""Of prompts, until the endpoint has counted: rather too many tokens than too few."""
_LONGEST_MESSAGE = 500
_REFUSED_KEY = re.compile(
    r"api[ _]key[ _](?:is )?(?:not|invalid|expired|missing)|(?:invalid|incorrect|missing|expired) api[ _]key",
    re.IGNORECASE,
)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    model: str | None = None
    choices: list[_Choice]
    usage: _Usage | None = None


class _Fault(Exception):
    """An attempt that gave no answer. reason: for figures. error: None: worth another attempt."""

    def __init__(self, reason: str, message: str, error: type[LLMError] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.error = error


class Endpoint:
    """An `LLM`. For one event loop; use it in ``async with``, which keeps connections open from call to call.

    Raises ConfigError at once if the API key is missing.
    """

    def __init__(self, config: LLMConfig, accounting: Accounting) -> None:
        self.identity = " ".join(filter(None, (config.model, config.structured, config.reasoning_effort)))
        """All that decides what a call is answered, beside the call: how a schema is sent does too."""
        self._config = config
        self._accounting = accounting
        self._key = config.key()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._gate = Gate(config.requests_per_minute, config.tokens_per_minute)
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),  # attempts have their own, from end to end
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            trust_env=not config.loopback,  # proxies do not reach this machine
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def __call__(self, call: Call) -> Reply:
        """Send ``call`` until it is answered. Raises LLMError."""
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
        config, figures = self._config, self._accounting.of(call.stage)
        deadline, attempts, failures = math.inf, 0, 0
        while True:
            await self._enter(call, attempts)
            now = time.monotonic()
            deadline = min(deadline, now + config.deadline_seconds)
            attempts += 1
            figures.attempts += 1
            try:
                return await self._attempt(call, attempts, min(config.timeout_seconds, deadline - now))
            except _Fault as fault:
                if fault.error is not None:
                    raise fault.error(self._tell(call, attempts, fault), attempts, retryable=False) from None
                failures += fault.reason != "429"
                backoff = self._backoff(attempts)
                late = time.monotonic() + max(backoff, self._gate.held) >= deadline
                if late or failures >= config.max_attempts:
                    raise LLMError(self._tell(call, attempts, fault), attempts, retryable=True) from None
                figures.retries[fault.reason] += 1
            await asyncio.sleep(backoff)

    async def _enter(self, call: Call, attempts: int) -> None:
        if (held := self._gate.held) > self._config.deadline_seconds:
            raise EndpointError(
                f"{self._config.base_url} takes no calls for another {held:.0f} s", attempts, retryable=True
            )
        await self._gate.enter(_most_tokens(call))

    def _backoff(self, attempts: int) -> float:
        mean: float = min(_LONGEST_BACKOFF, self._config.backoff_seconds * 2 ** min(attempts - 1, 16))
        return mean * random.uniform(0.5, 1.5)

    async def _attempt(self, call: Call, attempts: int, seconds: float) -> Reply:
        reserved, used = _most_tokens(call), 0
        try:
            response = await self._post(call, seconds)
            completion = self._completion(response)
            usage = completion.usage or _guess(call, completion)
            used = usage.prompt_tokens + usage.completion_tokens
            cost = self._config.prices.cost(usage.prompt_tokens, usage.completion_tokens)
            self._accounting.of(call.stage).use(usage.prompt_tokens, usage.completion_tokens, cost)
            text = completion.choices[0].message.content if completion.choices else None
            if not text or text.isspace():
                raise _empty(call, completion)
        finally:
            self._gate.correct(used - reserved)
        return Reply(
            text,
            usage.prompt_tokens,
            usage.completion_tokens,
            attempts,
            cached=False,
            cost=cost,
            model=completion.model or self._config.model,
        )

    async def _post(self, call: Call, seconds: float) -> httpx.Response:
        """A response with status 200. Raises _Fault."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.post(f"{self._config.base_url}/chat/completions", json=self._body(call))
        except TimeoutError:
            raise _Fault("timeout", f"no answer in {seconds:.0f} s") from None
        except httpx.RequestError as error:
            raise _Fault("connection", f"the connection failed: {type(error).__name__}: {error}") from None
        status = response.status_code
        if status == 200:
            return response
        if (pause := _retry_after(response.headers.get("Retry-After", ""))) is not None:
            self._gate.hold(pause)
        message, code = _complaint(response)
        message = f"HTTP {status}: {message}"
        if status in (401, 402, 404) or code == "insufficient_quota" or _is_about_the_key(status, message):
            if status == 401 and self._key is None:
                message += " (no API key was sent: name its environment variable in key_env)"
            raise _Fault(str(status), message, EndpointError)
        raise _Fault(str(status), message, None if status in (408, 409, 425, 429) or status >= 500 else LLMError)

    def _completion(self, response: httpx.Response) -> _Completion:
        """Raises _Fault."""
        try:
            return _Completion.model_validate_json(response.content)
        except ValidationError as error:
            what = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise _Fault("malformed", f"the answer is no chat completion: {what}: {_complaint(response)[0]}") from None

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": call.messages,
            self._config.length_field: call.max_tokens,
        }
        if call.temperature is not None:
            body["temperature"] = call.temperature
        if call.seed is not None:
            body["seed"] = call.seed
        if self._config.reasoning_effort is not None:
            body["reasoning_effort"] = self._config.reasoning_effort
        if call.schema is not None:
            match self._config.structured:
                case "json_object":
                    body["response_format"] = {"type": "json_object"}
                case "json_schema":
                    body["response_format"] = response_format(call.schema)
                case "guided_json":
                    body["structured_outputs"] = {"json": call.schema}
                case "none":
                    pass
        return body

    def _tell(self, call: Call, attempts: int, fault: _Fault) -> str:
        text = f"{call.stage}: given up after {attempts} attempt{'s' if attempts > 1 else ''}: {fault}"
        if self._key is not None:  # some endpoints quote a key that they do not take
            text = text.replace(self._key.get_secret_value(), "[key]")
        return text[:_LONGEST_MESSAGE]


def _empty(call: Call, completion: _Completion) -> _Fault:
    """Worth another attempt, unless all that an answer may have went to thinking: it would again, at the same price."""
    if completion.choices and completion.choices[0].finish_reason == "length":
        spent = f"the answer is empty: all of its {call.max_tokens} tokens went to thinking, more is stages.max_tokens"
        return _Fault("empty", spent, LLMError)
    return _Fault("empty", "the answer is empty")


def _prompt_tokens(call: Call) -> int:
    size = sum(len(message["content"].encode()) for message in call.messages)
    return size // _BYTES_PER_TOKEN + 1


def _most_tokens(call: Call) -> int:
    """What a call may use, as far as can be said before."""
    return _prompt_tokens(call) + call.max_tokens


def _guess(call: Call, completion: _Completion) -> _Usage:
    """For endpoints that do not count."""
    text = "".join(choice.message.content or "" for choice in completion.choices)
    tokens = len(text.encode()) // _BYTES_PER_TOKEN
    return _Usage(prompt_tokens=_prompt_tokens(call), completion_tokens=tokens)


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header: a number of seconds, or a date as in RFC 9110; None: neither."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _is_about_the_key(status: int, message: str) -> bool:
    """Some endpoints answer 400 or 403, and not 401, to a key that they do not take."""
    return status in (400, 403) and _REFUSED_KEY.search(message) is not None


def _complaint(response: httpx.Response) -> tuple[str, str | None]:
    """What the endpoint says is wrong, and its code: OpenAI's ``error`` object, or else the whole body.

    Some put the object into a list.
    """
    text, code = response.text, None
    try:
        said = response.json()
        match said[0] if isinstance(said, list) and said else said:
            case {"error": {"message": str(text), **rest}}:
                code = rest.get("code")
            case {"error": str(text)} | {"detail": str(text)}:
                pass
    except ValueError:
        pass
    return text, code if isinstance(code, str) else None
