"""Runs what one HTTP request asks for and folds its events: the one path for whole and streamed responses."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from multiverse.serving.access.access import Caller
from multiverse.serving.answer.answers import Answer
from multiverse.serving.api.errors import ApiError
from multiverse.serving.api.measure import ServerMeter
from multiverse.serving.api.merge import closing, merged
from multiverse.serving.api.openai import Reply
from multiverse.serving.api.schema import ChatBody, CompletionBody
from multiverse.serving.events import Event, TokensAdded
from multiverse.serving.interface import GenerationEngine
from multiverse.serving.request import GenerationRequest
from multiverse.telemetry import traces


class Generation:
    """``respond`` or ``stream`` it, once."""

    def __init__(
        self,
        body: ChatBody | CompletionBody,
        requests: Sequence[GenerationRequest],
        engine: GenerationEngine,
        meter: ServerMeter,
        reply: Reply,
        caller: Caller,
    ) -> None:
        self._body = body
        self._engine = engine
        self._meter = meter
        self._reply = reply
        self._caller = caller
        tags = body.parallel.tags
        self._answers = [Answer(request, engine.tokens, engine.manifest.tag_ids, tags=tags) for request in requests]

    async def respond(self) -> dict[str, Any]:
        """The whole response."""
        async with aclosing(self._events()) as events:
            async for index, event in events:
                self._answers[index].push(event)
        return self._reply.response(self._answers, self._body.return_token_ids)

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed response."""
        greeted: set[int] = set()
        async with aclosing(self._events()) as events:
            async for index, event in events:
                if index not in greeted:
                    greeted.add(index)
                    if (first := self._reply.first(index)) is not None:
                        yield first
                for chunk in self._chunks(index, event):
                    yield chunk
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield self._reply.usage(self._answers)

    def _chunks(self, index: int, event: Event) -> list[dict[str, Any]]:
        answer = self._answers[index]
        chunks = []
        text = answer.push(event)
        top = answer.request.sampling.logprobs
        ids = self._body.return_token_ids
        if text is not None and (text.text or ((ids or top is not None) and text.tokens)):
            chunks.append(self._reply.piece(index, text, top, ids))
        if self._body.parallel.stream_branches and (progress := answer.progress(event)) is not None:
            chunks.append(self._reply.progress(index, progress))
        if answer.finished:
            chunks.append(self._reply.finish(index, answer))
        return chunks

    def _events(self) -> AsyncGenerator[tuple[int, Event], None]:
        return merged([self._measured(answer) for answer in self._answers])

    async def _measured(self, answer: Answer) -> AsyncIterator[Event]:
        request = answer.request
        mode = request.parallel.mode
        meter = self._meter.started(mode, self._caller.name)
        try:
            async with closing(self._traced(request)) as events:
                async for event in events:
                    meter.event(event)
                    answer.gain = meter.gain
                    if isinstance(event, TokensAdded):
                        self._caller.account.charge(len(event.tokens))
                    yield event
        except ApiError:
            meter.refused()
            raise
        except Exception:
            meter.failed()
            raise
        finally:
            meter.ended()

    async def _traced(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Raises ApiError for a schema that cannot be followed."""
        mode, begun = request.parallel.mode, False
        with traces.span(
            "request", refusal=ApiError, request=request.id, mode=mode, prompt_tokens=len(request.prompt)
        ) as trace:
            try:
                async with closing(self._engine.generate(replace(request, trace=trace))) as events:
                    async for event in events:
                        begun = True
                        yield event
            except ValueError as error:
                if request.sampling.json_schema is None or begun:
                    raise
                # Only the engine's grammar compiler knows which schemas it can follow.
                raise ApiError(
                    400, f"response_format.json_schema cannot be followed: {error}", "response_format"
                ) from error
