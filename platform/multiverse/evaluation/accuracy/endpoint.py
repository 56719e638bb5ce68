"""A server that speaks OpenAI's chat completions, ours or anybody's."""

import re
import time
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ValidationError

from multiverse.evaluation.accuracy.asking import FORCED_STOP, AnswerError, Ask, Response, TargetError, closing
from multiverse.evaluation.accuracy.config import EndpointTarget

_CONNECT_SECONDS = 10.0
_LONGEST_MESSAGE = 300
_TOO_LONG = re.compile(r"context|too (?:long|large)|max_(?:completion_)?tokens", re.IGNORECASE)
"""What servers say of a request that their context does not hold."""


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """All that was written: reasoning that the server has taken out stands before the content again."""
        thought = self.reasoning_content or self.reasoning
        return (f"<think>\n{thought.strip()}\n</think>\n\n" if thought else "") + (self.content or "")


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int


class _Branches(BaseModel):
    width: int


class _Parallel(BaseModel):
    """Our server's extension."""

    tokens: int
    critical_path: int
    ended: bool = False
    fallbacks: tuple[str, ...] = ()
    blocks: tuple[_Branches, ...] = ()


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None
    parallel: _Parallel | None = None


class EndpointResponder:
    """A `Responder` over HTTP. Raises ConfigError at once if the API key is missing."""

    def __init__(self, target: EndpointTarget, connections: int = 256) -> None:
        self._target = target
        self._key = target.key()
        self._model = target.model or ""
        self.ours = False
        """Whether the server is Multiverse's, which takes budgets in positions."""
        self._root: str | None = None
        self._went_on = False
        self._http = httpx.AsyncClient(
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key.get_secret_value()}"},
            timeout=httpx.Timeout(target.timeout_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=not target.loopback,  # proxies do not reach this machine
        )

    async def __aenter__(self) -> Self:
        try:
            await self._look()
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def _look(self) -> None:
        """Which models are there. Raises TargetError if nobody answers, or the name is open."""
        url = self._target.base_url
        try:
            response = await self._http.get(f"{url}/models")
        except httpx.RequestError as error:
            raise TargetError(f"{url} does not answer: {type(error).__name__}: {error}") from error
        if response.status_code in (401, 403):
            raise TargetError(f"{url} refuses: HTTP {response.status_code}: {self._complaint(response)}")
        try:
            models = {str(entry["id"]): entry for entry in response.json()["data"]}
        except (ValueError, KeyError, TypeError):
            models = {}  # not every server lists its models
        if not self._model:
            if len(models) != 1:
                there = f"has the models {', '.join(models)}" if models else "does not list its models"
                raise TargetError(f"{url} {there}: name one, as in {url}#NAME")
            self._model = next(iter(models))
        entry = models.get(self._model, {})
        self.ours = entry.get("owned_by") == "multiverse"
        self._root = entry.get("root")

    @property
    def identity(self) -> dict[str, Any]:
        """Who answers, once it runs: the model's name there and, where the server says so (vLLM), where it is from."""
        return {"model": self._model, "root": self._root}

    async def answer(self, ask: Ask) -> Response:
        begun = time.perf_counter()
        messages = self._target.messages(ask.question)
        completion = await self._complete(messages, ask, self._limits(ask))
        response = _response(completion, time.perf_counter() - begun)
        # Where the budget cut branches only, the answer came to its end, as a sequential one does before its budget.
        ended = completion.parallel is not None and completion.parallel.ended
        if ask.budget is None or response.finish != "length" or ended:
            return response
        end = closing(response.text, ask.graded_by, self._target.opens_thinking)
        answered = await self._complete(*self._forcing(messages, ask, response.text, end))
        self._went_on = True
        tail = answered.choices[0].message.text
        count = answered.usage.completion_tokens if answered.usage is not None else None

        def more(before: int | None) -> int | None:
            # The server does not count what was written for it; its answer it does.
            return None if before is None or count is None else before + count

        goes_on = self._target.forcing == "continue"
        return Response(
            text=f"{response.text}{end}{tail}" if goes_on else f"{response.text}\n\n{tail}",
            finish="budget",
            tokens=more(response.tokens),
            critical_path=more(response.critical_path),
            seconds=time.perf_counter() - begun,
            blocks=response.blocks,
            width=response.width,
            fallbacks=response.fallbacks,
            forced=True,
        )

    def _limits(self, ask: Ask) -> dict[str, Any]:
        """How long the answer may get. Without blocks a token is a position: elsewhere a budget is max_tokens."""
        field, budget = self._target.length_field, ask.budget
        if budget is None:
            return {} if ask.max_tokens is None else {field: ask.max_tokens}
        if not self.ours:
            return {field: budget}
        return {"parallel": self._target.extra_body.get("parallel", {}) | {"max_positions": budget}}

    def _forcing(
        self, messages: list[dict[str, str]], ask: Ask, text: str, end: str
    ) -> tuple[list[dict[str, str]], Ask, dict[str, Any]]:
        fields: dict[str, Any] = {self._target.length_field: ask.answer_tokens, "stop": [FORCED_STOP]}
        if self.ours:
            fields["parallel"] = {"mode": "off"}
        if self._target.forcing == "continue":
            fields |= {"add_generation_prompt": False, "continue_final_message": True}
            return [*messages, {"role": "assistant", "content": text + end}], ask, fields
        cue = f"Time is up. Answer now, with nothing else, beginning with: {end.strip()}"
        return [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": cue}], ask, fields

    async def _complete(self, messages: list[dict[str, str]], ask: Ask, fields: dict[str, Any]) -> _Completion:
        """Raises AnswerError, TargetError."""
        body: dict[str, Any] = {"model": self._model, "messages": messages, "temperature": ask.temperature}
        if ask.temperature:
            body |= {"top_p": ask.top_p, "seed": ask.seed}
        try:
            response = await self._http.post(
                f"{self._target.base_url}/chat/completions", json=body | self._target.extra_body | fields
            )
        except httpx.TimeoutException as error:
            raise AnswerError(f"no answer in {self._target.timeout_seconds:.0f} s: {type(error).__name__}") from error
        except httpx.RequestError as error:
            raise AnswerError(f"the connection failed: {type(error).__name__}: {error}") from error
        if response.status_code != 200:
            raise self._refused(response, "continue_final_message" in fields)
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError as error:
            what = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise AnswerError(f"the answer is no chat completion: {what}") from error
        if not completion.choices:
            raise AnswerError("the answer has no choices")
        return completion

    def _refused(self, response: httpx.Response, going_on: bool) -> Exception:
        status = response.status_code
        message = f"HTTP {status}: {self._complaint(response)}"
        too_long = _TOO_LONG.search(message) is not None
        if going_on and status in (400, 422) and not self._went_on and not too_long:  # else it is the item's fault
            return TargetError(
                f"{self._target.base_url} does not go on with a message where a budget ends ({message}): "
                "ask all models with `forcing: turn`"
            )
        if status in (401, 402, 403, 404):
            return TargetError(f"{self._target.base_url}: {message}")
        after = response.headers.get("Retry-After", "")
        pause = float(after) if re.fullmatch(r"\d{1,5}(\.\d+)?", after) else None
        retryable = status in (408, 409, 425, 429) or status >= 500
        return AnswerError(message, retryable, pause, counts=status != 429)

    def _complaint(self, response: httpx.Response) -> str:
        """What the server says is wrong, without our key, which some servers quote."""
        try:
            value = response.json()
            error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except ValueError:
            text = response.text
        if self._key is not None:
            text = text.replace(self._key.get_secret_value(), "[key]")
        return text[:_LONGEST_MESSAGE]


def _response(completion: _Completion, seconds: float) -> Response:
    choice, parallel = completion.choices[0], completion.parallel
    used = completion.usage.completion_tokens if completion.usage is not None else None
    return Response(
        text=choice.message.text,
        finish=choice.finish_reason or "unknown",
        tokens=used if parallel is None else parallel.tokens,
        critical_path=used if parallel is None else parallel.critical_path,
        seconds=seconds,
        blocks=len(parallel.blocks) if parallel is not None else 0,
        width=parallel.blocks[0].width if parallel is not None and parallel.blocks else 0,
        fallbacks=parallel.fallbacks if parallel is not None else (),
    )
