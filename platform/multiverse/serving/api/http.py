"""The OpenAI surface as an ASGI application: it runs under any ASGI server and under Ray Serve alike."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import pydantic_core
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from multiverse.serving.access.access import Access, Caller
from multiverse.serving.access.admission import Admission
from multiverse.serving.api.errors import ApiError, from_validation
from multiverse.serving.api.gate import Gate, KeyCheck
from multiverse.serving.api.generation import Generation
from multiverse.serving.api.measure import ServerMeter
from multiverse.serving.api.openai import ChatForm, CompletionForm, Form, Reply
from multiverse.serving.api.schema import ChatBody, CompletionBody
from multiverse.serving.api.translate import Ticket, default_mode, to_requests
from multiverse.serving.interface import GenerationEngine
from multiverse.serving.page.routes import page_routes
from multiverse.telemetry.export import build
from multiverse.telemetry.recorders import Recorder

MAX_BODY = 4 * 2**20
"""Bytes of a request's body."""
_MAX_DRAINED = 64 * 2**20
_REFERENCE = "#/components/schemas/{model}"

log = logging.getLogger(__name__)
B = TypeVar("B", ChatBody, CompletionBody)
T = TypeVar("T")


def build_asgi(
    engine: GenerationEngine,
    model_name: str,
    recorders: Sequence[Recorder] = (),
    access: Access | None = None,
    admission: Admission | None = None,
    cluster: Callable[[], bytes] | None = None,
    meter: type[ServerMeter] = ServerMeter,
) -> FastAPI:
    """The application that serves ``engine`` under ``model_name``, with the playground at ``/``.

    ``/metrics`` shows what this process measured, with the engine's figures, and behind it what ``cluster`` gives: the
    whole cluster's metrics as text, under other names. ``recorders`` (Ray's metrics agent) get this process's values.
    ``meter`` measures all of it. Without ``access`` nobody is asked for a key, without ``admission`` all requests run
    at once. Have ``app.state.gate`` look at the engine now and then: without requests nobody else does.
    """
    registry = CollectorRegistry()
    server = meter(build(registry), recorders)
    created = int(time.time())
    arrivals = _arrivals()
    gate = Gate(access, admission, engine, server)
    app = _Documented(title="Multiverse", docs_url=None, redoc_url=None)
    app.state.gate = gate
    app.add_middleware(KeyCheck, gate=gate)
    app.router.routes.extend(page_routes())

    def model() -> dict[str, Any]:
        return {
            "id": model_name,
            "object": "model",
            "created": created,
            "owned_by": "multiverse",
            "root": model_name,
            "max_model_len": engine.limits.max_model_len,
            "default_mode": default_mode(engine),
        }

    async def answer(request: Request, kind: type[B], form: Form) -> Response:
        body = await _body(request, kind)
        _check_model(body.model, model_name)
        caller: Caller = request.state.caller
        body = gate.narrowed(caller, body)
        id = form.id_prefix + uuid.uuid4().hex

        @asynccontextmanager
        async def admitted() -> AsyncIterator[Generation]:
            async with gate.admitted(caller, body):
                requests = to_requests(
                    body,
                    engine,
                    lambda: Ticket(f"{id}-{(number := next(arrivals))}", number),
                    gate.cache_tenant(caller),
                )
                # The choices of one prompt follow each other and share it.
                gate.begun(caller, sum(len(first.prompt) for first in requests[:: body.n]))
                yield Generation(body, requests, engine, server, Reply(form, id, model_name, body.n), caller)

        if body.stream:
            return EventStream(_streamed(admitted()))
        try:
            return JSONResponse(await _unless_gone(_whole(admitted()), request.receive))
        except Exception as error:
            return _as_api_error(error).response()

    @app.post("/v1/chat/completions", openapi_extra=_takes(ChatBody))
    async def chat_completions(request: Request) -> Response:
        return await answer(request, ChatBody, ChatForm(engine.tokens))

    @app.post("/v1/completions", openapi_extra=_takes(CompletionBody))
    async def completions(request: Request) -> Response:
        return await answer(request, CompletionBody, CompletionForm(engine.tokens))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        _check_model(name, model_name)
        return model()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        try:
            await engine.stats()
        except Exception as error:
            raise ApiError(503, f"the engine does not answer: {error}") from error
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        await gate.look()
        text = generate_latest(registry)
        if cluster is not None:
            text += await asyncio.to_thread(cluster)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(ApiError)
    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: Exception) -> Response:
        return _as_api_error(error).response()

    return app


def _arrivals() -> Iterator[int]:
    """Places in the order of all requests of all routers: microseconds, each once."""
    last = 0
    while True:
        last = max(last + 1, time.time_ns() // 1000)
        yield last


async def _whole(admitted: AbstractAsyncContextManager[Generation]) -> dict[str, Any]:
    async with admitted as generation:
        return await generation.respond()


async def _streamed(admitted: AbstractAsyncContextManager[Generation]) -> AsyncGenerator[dict[str, Any], None]:
    async with admitted as generation, aclosing(generation.stream()) as chunks:
        async for chunk in chunks:
            yield chunk


class ClientGone(Exception):
    """The client closed the connection before its answer was there."""


class EventStream(Response):
    """Server-sent events. The first chunk decides the status; a client that goes ends the generation at once."""

    def __init__(self, chunks: AsyncGenerator[dict[str, Any], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone):
            await _unless_gone(self._send_all(scope, receive, send), receive)

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            try:
                chunk = await anext(self._chunks)
            except Exception as error:
                await _as_api_error(error).response()(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_event(send, _json(chunk))
            try:
                async for chunk in self._chunks:
                    await _send_event(send, _json(chunk))
                await _send_event(send, "[DONE]")
            except Exception as error:
                # The status is sent: clients know an error in the stream by its key, and that [DONE] is missing.
                await _send_event(send, _json(_as_api_error(error).body()))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Do ``work``, but cancel it when the client goes (then ClientGone is raised) or the server does."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _body(request: Request, kind: type[B]) -> B:
    body = bytearray()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MAX_BODY:
            body += piece
        elif size > _MAX_DRAINED:
            break
    if size > MAX_BODY:
        # Read to its end, within reason: many clients read no answer before they have sent all.
        raise ApiError(413, f"the body has {size} bytes or more: must have at most {MAX_BODY}")
    try:
        value = pydantic_core.from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON in UTF-8: {error}") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from error


def _check_model(asked: str, served: str) -> None:
    if asked != served:
        raise ApiError(404, f"model is {asked[:100]!r}: this server has {served!r}", "model", "model_not_found")


def _as_api_error(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case ClientGone():
            return ApiError(499, "the client closed the connection")
        case HTTPException():
            return ApiError(error.status_code, error.detail)
        case _:
            log.error("a request failed", exc_info=error)
            return ApiError(500, f"the engine failed the request: {error}")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _takes(body: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=body.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class _Documented(FastAPI):
    """Bodies are read and checked here and not by FastAPI, so their schemas are put into ``/openapi.json`` by hand."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        bodies = models_json_schema([(ChatBody, "validation"), (CompletionBody, "validation")], ref_template=_REFERENCE)
        document.setdefault("components", {}).setdefault("schemas", {}).update(bodies[1]["$defs"])
        return document
