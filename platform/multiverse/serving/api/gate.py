"""What a request passes before it is generated: the check of its key, the key's limits, the server's queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from multiverse.serving.access.access import Access, Caller, anybody
from multiverse.serving.access.admission import Admission, Pressure
from multiverse.serving.access.refusals import Refused
from multiverse.serving.api.errors import ApiError, from_refusal
from multiverse.serving.api.measure import ServerMeter
from multiverse.serving.api.schema import MAX_GENERATIONS, ChatBody, CompletionBody
from multiverse.serving.interface import GenerationEngine
from multiverse.serving.page.routes import is_page

WATCH_SECONDS = 0.25
LOOK_SECONDS = 5.0
"""That the engine may take to tell its figures; then it counts as gone."""
SETTLE_SECONDS = 5.0
"""How long figures are still asked for behind the last request: what it held is given back, and replicas tell late."""
B = TypeVar("B", ChatBody, CompletionBody)


class Gate:
    """Without ``access`` nobody is asked for a key, without ``admission`` nobody waits. Refusals become ApiErrors."""

    def __init__(
        self, access: Access | None, admission: Admission | None, engine: GenerationEngine, meter: ServerMeter
    ) -> None:
        self._access = access
        self._admission = admission
        self._engine = engine
        self._meter = meter
        self._watching: asyncio.Task[None] | None = None

    def caller(self, scope: Scope) -> Caller:
        """Who sends the request of an ASGI scope. Only what is open to all needs no key."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        open_to_all = path == "/health" or is_page(path)
        if self._access is None or open_to_all or (path == "/metrics" and self._access.open_metrics):
            return anybody()
        # The server's end of the connection, which tells whether it came in from outside.
        address, _ = scope.get("server") or (None, None)
        with self._counted():
            return self._access.caller(Headers(scope=scope).get("authorization"), address)

    def narrowed(self, caller: Caller, body: B) -> B:
        """The body with the default of ``max_width`` cut to the key's limit."""
        asked = body.parallel
        with self._counted(caller):
            if asked.width is not None:
                caller.account.width("parallel.width", asked.width, explicit=True)
            explicit = "max_width" in asked.model_fields_set
            max_width = caller.account.width("parallel.max_width", asked.max_width, explicit=explicit)
        if max_width == asked.max_width:
            return body
        return body.model_copy(update={"parallel": asked.model_copy(update={"max_width": max_width})})

    @asynccontextmanager
    async def admitted(self, caller: Caller, body: ChatBody | CompletionBody) -> AsyncIterator[None]:
        """Wait for the turn of a request and hold its place."""
        prompts = len(body.prompt) if isinstance(body, CompletionBody) else 1
        with self._counted(caller), self._meter.accounted(caller), caller.account.request():
            self._meter.account(caller)
            async with self._turn(caller, min(prompts * body.n, MAX_GENERATIONS)):
                yield

    @asynccontextmanager
    async def _turn(self, caller: Caller, generations: int) -> AsyncIterator[None]:
        if self._admission is None:
            yield
            return
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(self._admission))
        came = time.monotonic()
        async with self._admission.admit(caller.tenant, generations):
            self._meter.admitted(time.monotonic() - came)
            yield

    def begun(self, caller: Caller, prompt_tokens: int) -> None:
        """The caller's request was admitted and is in order."""
        caller.account.charge(prompt_tokens)
        self._meter.begun(caller.name, prompt_tokens)

    def cache_tenant(self, caller: Caller) -> str:
        return "" if self._access is None else self._access.cache_tenant(caller)

    async def look(self) -> None:
        """Feed the queue and the meter with the engine's figures."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                stats = await self._engine.stats()
        except Exception:
            # A dead engine fails its requests itself; nobody shall wait for its figures.
            pressure = Pressure()
            self._meter.unreachable()
        else:
            pressure = pressure_of(stats)
            self._meter.engine(stats)
        if self._admission is not None:
            self._admission.update(pressure)

    async def _watch(self, admission: Admission) -> None:
        """Looks often as long as there are requests."""
        idle = 0.0
        while idle < SETTLE_SECONDS:
            idle = 0.0 if admission.running or admission.waiting else idle + WATCH_SECONDS
            await self.look()
            self._meter.waiting(admission.waiting)
            await asyncio.sleep(WATCH_SECONDS)

    @contextmanager
    def _counted(self, caller: Caller | None = None) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self._meter.rejected(refusal.reason, None if caller is None else caller.name)
            raise from_refusal(refusal) from refusal


def pressure_of(stats: Mapping[str, Any]) -> Pressure:
    """The figures that admission goes by, of ``stats`` (totals of all replicas); what is not told holds nobody back."""
    return Pressure(float(stats.get("kv_usage", 0.0)), stats.get("waiting", 0) / max(1, stats.get("replicas", 1)))


class KeyCheck:
    """ASGI middleware before every path, also those that do not exist; puts the caller into ``request.state``."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["caller"] = self._gate.caller(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
