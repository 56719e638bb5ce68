"""A server that speaks OpenAI's chat completions over HTTP, answers as it is told, and fails as it is told."""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import web

Fault = str
"""``none``; ``429``: with Retry-After; ``500``; ``reset``: the connection ends without an answer; ``slow``: answered
after ``slow_seconds``; ``truncated``: the body is half a JSON; ``cut``: the body ends before its announced length;
``empty``: an answer without text; ``thought``: one that ended at its limit before any; ``none_at_all``: without
choices; ``html``: no JSON at all; ``401``, ``400``; ``too_long``: 400 for the context's length; ``key``: 400 for a key
that is not taken, as a list of errors."""

Body = dict[str, Any]

FAULTS: tuple[Fault, ...] = ("429", "500", "reset", "slow", "truncated", "cut", "empty", "none_at_all", "html")
"""Those that pass."""


@dataclass(frozen=True, slots=True)
class Request:
    """at: when it came, seconds of the monotonic clock. connection: equal for requests over the same one."""

    at: float
    body: Body
    fault: Fault
    authorization: str | None
    connection: int

    @property
    def prompt(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


class Server:
    """url: for ``base_url``. All else may be changed while it runs; requests: all that came, in their order.

    latency, slow_seconds in seconds. answer: the text for a request's body; tokens are its words. retry_after: asked
    for each 429, the header's value. fault: asked for each request. limited: an answer ends at max_tokens words.
    """

    def __init__(self, answer: Callable[[Body], str], latency: float, fault: Callable[[Body], Fault]) -> None:
        self.url = ""
        self.answer, self.latency, self.fault = answer, latency, fault
        self.retry_after: Callable[[], str | None] = lambda: "1"
        self.slow_seconds = 0.5
        self.limited = False
        self.requests: list[Request] = []
        self.running = 0
        self.most_running = 0

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]

    async def complete(self, http: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        try:
            body = await http.json()
        except ConnectionResetError:  # the client lost patience
            return web.Response()
        fault = self.fault(body)
        self.requests.append(Request(at, body, fault, http.headers.get("Authorization"), id(http.transport)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.slow_seconds if fault == "slow" else self.latency)
            return await self._answer(http, body, fault)
        finally:
            self.running -= 1

    async def _answer(self, http: web.Request, body: Body, fault: Fault) -> web.StreamResponse:
        text = "" if fault in ("empty", "thought") else self.answer(body)
        words = text.split(" ")
        cut = self.limited and len(words) > body.get("max_tokens", len(words))
        completion = _completion(body, " ".join(words[: body["max_tokens"]]) if cut else text)
        completion["choices"][0]["finish_reason"] = "length" if cut or fault == "thought" else "stop"
        if fault == "none_at_all":
            completion["choices"] = []
        content = json.dumps(completion).encode()
        match fault:
            case "429":
                wait = self.retry_after()
                headers = {} if wait is None else {"Retry-After": wait}
                return web.json_response(_error("too many requests"), status=429, headers=headers)
            case "400" | "401" | "500" | "503":
                key = http.headers.get("Authorization", "").removeprefix("Bearer ")
                return web.json_response(_error(f"this cannot be done with the key {key}"), status=int(fault))
            case "too_long":
                return web.json_response(_error("the maximum context length is 8 tokens"), status=400)
            case "key":
                return web.json_response([_error("API key not valid. Please pass a valid API key.")], status=400)
            case "reset":
                assert http.transport is not None
                peer: socket.socket = http.transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                http.transport.abort()
                return web.Response()
            case "truncated":
                return web.Response(body=content[: len(content) // 2], content_type="application/json")
            case "cut":
                response = web.StreamResponse(headers={"Content-Length": str(len(content))})
                await response.prepare(http)
                await response.write(content[: len(content) // 2])
                assert http.transport is not None
                http.transport.close()
                return response
            case "html":
                return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
            case _:
                return web.Response(body=content, content_type="application/json")


def echo(body: Body) -> str:
    return f"answer to {body['messages'][-1]['content']}"


def no_fault(body: Body) -> Fault:
    return "none"


def always(fault: Fault) -> Callable[[Body], Fault]:
    return lambda body: fault


def first(count: int, fault: Fault) -> Callable[[Body], Fault]:
    """The first ``count`` requests meet the fault."""
    left = [fault] * count
    return lambda body: left.pop() if left else "none"


def seeded(seed: int, share: float, faults: tuple[Fault, ...] = FAULTS) -> Callable[[Body], Fault]:
    """The given share of requests meets a fault drawn from ``faults``."""
    random = Random(seed)
    return lambda body: random.choice(faults) if random.random() < share else "none"


@contextmanager
def llm_server(
    answer: Callable[[Body], str] = echo, latency: float = 0.0, fault: Callable[[Body], Fault] = no_fault
) -> Iterator[Server]:
    """A running server, in a thread of its own; ``answer`` and ``fault`` are called there."""
    server, started = Server(answer, latency, fault), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.complete)
        app.router.add_get("/v1/models", _models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _models(http: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})


def _completion(body: Body, text: str) -> dict[str, Any]:
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    completion = len(text.split())
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": None}}
