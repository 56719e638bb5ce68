"""Keys, limits and the queue in the HTTP application, without a server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from multiverse.serving.access.access import Access
from multiverse.serving.access.admission import Admission, AdmissionLimits, Pressure
from multiverse.serving.access.key_file import entry
from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.access.refusals import Overloaded
from multiverse.serving.api.gate import Gate, pressure_of
from multiverse.serving.api.http import build_asgi
from multiverse.serving.fleet.fleet_engine import stats_of
from multiverse.serving.fleet.messages import Status
from multiverse.telemetry.export import build
from tests.unit.serving.fake_engine import WordCodec
from tests.unit.serving.fake_fleet import FakeCluster
from tests.unit.serving.http_fakes import FakeEngine, block_of_two, sequential

LIMITED = "  tenant: lab\n  limits: {concurrency: 1, tokens_per_minute: 4, max_width: 4}\n"


class Server:
    """The application with the keys mv-alice (no limits), mv-bob and mv-carol (limits, one tenant)."""

    def __init__(
        self, keys: Path, client: httpx.AsyncClient, engine: FakeEngine, gate: Gate, registry: CollectorRegistry
    ) -> None:
        self.keys = keys
        self.client = client
        self.engine = engine
        self.gate = gate
        self._registry = registry

    async def ask(self, key: str = "mv-alice", content: str = "Go", **fields: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}
        headers = {"authorization": f"Bearer {key}"}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    def metric(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(entry("alice", "mv-alice") + entry("bob", "mv-bob") + LIMITED + entry("carol", "mv-carol"))
    path.write_text(path.read_text() + LIMITED)
    return path


def script(engine: FakeEngine, question: str) -> Sequence[Any]:
    match question:
        case "wait":
            return [*sequential(engine.tokens, "One")[:1], 60.0]
        case "refused":
            return [ValueError('Unimplemented keys: ["nonsense"]')]
        case "block":
            return block_of_two(engine.tokens)
        case _:
            return sequential(engine.tokens, "One", " two")


@asynccontextmanager
async def served(keys: Path | None, admission: Admission | None = None, **access: Any) -> AsyncIterator[Server]:
    engine = FakeEngine(lambda request: script(engine, request.question))
    registry = CollectorRegistry()
    store = None if keys is None else KeyStore(keys)
    app = build_asgi(engine, "tiny", [build(registry)], Access(store, **access), admission)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.1") as client:
        yield Server(keys or Path(), client, engine, app.state.gate, registry)


def refused(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["code"]


async def running(server: Server, requests: int) -> None:
    async with asyncio.timeout(5):
        while server.engine.open < requests:
            await asyncio.sleep(0.001)


async def test_known_key_is_served(keys: Path) -> None:
    async with served(keys) as server:
        assert (await server.ask()).json()["choices"][0]["message"]["content"] == "One two"


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/tiny", "/metrics", "/openapi.json", "/nothing", "/health/x"]
)
async def test_every_path_needs_a_key(keys: Path, path: str) -> None:
    async with served(keys) as server:
        response = await server.client.get(path)
        assert refused(response) == (401, "authentication_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert server.metric("multiverse_rejections_total", reason="unauthorized") == 1


async def test_health_needs_no_key(keys: Path) -> None:
    async with served(keys) as server:
        assert (await server.client.get("/health")).status_code == 200


async def test_metrics_can_be_opened(keys: Path) -> None:
    async with served(keys, open_metrics=True) as server:
        assert (await server.client.get("/metrics")).status_code == 200
        assert (await server.client.get("/v1/models")).status_code == 401


async def test_unknown_key_is_refused_before_the_body_is_looked_at(keys: Path) -> None:
    async with served(keys) as server:
        assert refused(await server.ask("mv-mallory", n=0))[0] == 401
        assert server.engine.requests == []


async def test_server_without_keys_refuses_other_machines() -> None:
    async with served(None) as server:
        assert refused(await server.ask()) == (403, "permission_error", "no_api_keys")
        assert (await server.client.get("http://127.0.0.1/v1/models")).status_code == 200
        assert server.metric("multiverse_rejections_total", reason="not_local") == 1


async def test_tenants_have_cache_salts_of_their_own(keys: Path) -> None:
    async with served(keys) as server:
        for key in ("mv-alice", "mv-bob", "mv-carol"):
            await server.ask(key, parallel={"mode": "auto"})
        await server.ask("mv-alice", parallel={"mode": "off"})
        assert [request.cache_salt for request in server.engine.requests] == [
            "layout-1/alice",
            "layout-1/lab",
            "layout-1/lab",
            "layout-1-off/alice",
        ]


async def test_prefix_cache_can_be_shared(keys: Path) -> None:
    async with served(keys, shared_prefix_cache=True) as server:
        await server.ask("mv-alice")
        await server.ask("mv-bob")
        assert [request.cache_salt for request in server.engine.requests] == ["layout-1-off"] * 2


@pytest.mark.parametrize("field", ["width", "max_width"])
async def test_width_above_the_keys_limit_is_refused(keys: Path, field: str) -> None:
    async with served(keys) as server:
        response = await server.ask("mv-bob", parallel={"mode": "force", field: 5})
        assert refused(response) == (403, "permission_error", "limit_exceeded")
        error = response.json()["error"]
        assert (error["param"], error["message"]) == (
            f"parallel.{field}",
            f"parallel.{field} is 5: the key 'bob' may ask for at most 4",
        )
        assert server.metric("multiverse_rejections_total", reason="width") == 1


async def test_default_of_max_width_is_cut_to_the_keys_limit(keys: Path) -> None:
    async with served(keys) as server:
        await server.ask("mv-bob", parallel={"mode": "auto", "max_width": None})
        await server.ask("mv-carol", parallel={"mode": "force", "width": 2})
        await server.ask("mv-alice", parallel={"mode": "auto"})
        assert [request.parallel.max_width for request in server.engine.requests] == [4, 4, 8]


@pytest.mark.parametrize("stream", [False, True])
async def test_request_above_the_concurrency_is_told_when_to_come_back(keys: Path, stream: bool) -> None:
    async with served(keys) as server:
        first = asyncio.create_task(server.ask("mv-bob", "wait"))
        await running(server, 1)
        response = await server.ask("mv-bob", stream=stream)
        assert refused(response) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert response.headers["retry-after"] == "1"
        assert (await server.ask("mv-carol")).status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await server.ask("mv-bob")).status_code == 200
        assert server.metric("multiverse_rejections_total", reason="concurrency") == 1


async def test_tokens_of_prompt_and_answer_are_charged(keys: Path) -> None:
    async with served(keys) as server:
        assert (await server.ask("mv-bob")).json()["usage"]["total_tokens"] == 4
        response = await server.ask("mv-bob")
        assert refused(response) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert response.headers["retry-after"] == "15"
        assert server.metric("multiverse_rejections_total", reason="tokens_per_minute") == 1


async def test_requests_and_tokens_are_counted_by_key(keys: Path) -> None:
    async with served(keys) as server:
        usage = (await server.ask(content="block", n=2, parallel={"mode": "auto"})).json()["usage"]
        assert server.metric("multiverse_key_requests_total", key="alice") == 1
        assert server.metric("multiverse_key_tokens_total", key="alice", kind="prompt") == 2 == usage["prompt_tokens"]
        made = server.metric("multiverse_key_tokens_total", key="alice", kind="completion")
        assert made == usage["completion_tokens"] > 2


async def test_refused_body_is_not_charged(keys: Path) -> None:
    async with served(keys) as server:
        assert (await server.ask(max_tokens=1000)).status_code == 400
        assert server.metric("multiverse_key_requests_total", key="alice") is None


@pytest.mark.parametrize("stream", [False, True])
async def test_full_server_is_overloaded(keys: Path, stream: bool) -> None:
    admission = Admission(AdmissionLimits(max_running=1, max_waiting=0))
    async with served(keys, admission) as server:
        first = asyncio.create_task(server.ask("mv-alice", "wait"))
        await running(server, 1)
        response = await server.ask("mv-bob", stream=stream)
        assert refused(response) == (429, "rate_limit_error", "overloaded")
        assert response.headers["retry-after"] == "1"
        assert server.metric("multiverse_rejections_total", reason="queue_full") == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert admission.running == 0
        assert (await server.ask("mv-bob")).status_code == 200


async def test_generations_of_one_request_count_each(keys: Path) -> None:
    admission = Admission(AdmissionLimits(max_running=4))
    async with served(keys, admission) as server:
        first = asyncio.create_task(server.ask("mv-alice", "wait", n=3))
        await running(server, 3)
        assert admission.running == 3
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert admission.running == 0


async def test_body_that_is_refused_gives_its_place_back(keys: Path) -> None:
    admission = Admission(AdmissionLimits(max_running=1, max_waiting=0))
    async with served(keys, admission) as server:
        for stream in (False, True):
            assert (await server.ask(max_tokens=1000, stream=stream)).status_code == 400
        assert admission.running == 0


async def test_waiting_request_runs_when_the_engine_has_room(keys: Path) -> None:
    admission = Admission(AdmissionLimits(max_running=4))
    async with served(keys, admission) as server:
        server.engine.figures["kv_usage"] = 0.95
        first = asyncio.create_task(server.ask("mv-alice", "wait"))
        await running(server, 1)
        await asyncio.sleep(0.01)
        second = asyncio.create_task(server.ask("mv-bob"))
        async with asyncio.timeout(5):
            while server.metric("multiverse_admission_waiting") != 1:
                await asyncio.sleep(0.01)
        assert not second.done()
        server.engine.figures["kv_usage"] = 0.5
        assert (await second).status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async with asyncio.timeout(5):
            while server.metric("multiverse_admission_waiting") != 0:
                await asyncio.sleep(0.01)


async def test_dead_engine_holds_nobody_in_the_queue(keys: Path) -> None:
    admission = Admission(AdmissionLimits(max_running=4))
    admission.update(Pressure(1.0))
    async with served(keys, admission) as server:
        server.engine.dead = True
        first = asyncio.create_task(server.ask("mv-alice", "wait"))
        await running(server, 1)
        assert (await server.ask("mv-bob")).status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_replicas_are_counted_while_no_request_comes(keys: Path) -> None:
    async with served(keys) as server:
        server.engine.figures["replicas"] = 2
        await server.gate.look()
        assert server.metric("multiverse_replicas") == 2
        server.engine.dead = True
        await server.gate.look()
        assert server.metric("multiverse_replicas") == 0
        server.engine.dead = False
        await server.gate.look()
        assert server.metric("multiverse_replicas") == 2


async def test_engine_that_does_not_answer_counts_as_gone(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    monkeypatch.setattr("multiverse.serving.api.gate.LOOK_SECONDS", 0.01)
    async with served(keys) as server:
        await server.gate.look()
        assert server.metric("multiverse_replicas") == 1
        server.engine.stats = silent  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await server.gate.look()
        assert server.metric("multiverse_replicas") == 0


async def test_metrics_are_shown_without_an_engine(keys: Path) -> None:
    async with served(keys, open_metrics=True) as server:
        await server.ask()
        server.engine.dead = True
        response = await server.client.get("/metrics")
        assert response.status_code == 200
        assert "\nmultiverse_replicas 0.0\n" in response.text
        assert '\nmultiverse_requests_total{mode="off",outcome="stop"} 1.0\n' in response.text


async def test_schema_that_cannot_be_followed_is_no_error_of_the_engine(keys: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    async with served(keys) as server:
        for stream in (False, True):
            response = await server.ask(content="refused", response_format=form, stream=stream)
            assert (response.status_code, response.json()["error"]["param"]) == (400, "response_format")
        assert server.metric("multiverse_requests_total", mode="off", outcome="refused") == 2
        assert server.metric("multiverse_requests_total", mode="off", outcome="error") is None
        assert (await server.ask(content="refused")).status_code == 500
        assert server.metric("multiverse_requests_total", mode="off", outcome="error") == 1


def test_pressure_is_what_the_engine_tells() -> None:
    assert pressure_of({"kv_usage": 0.5, "waiting": 3, "leases": 7}) == Pressure(0.5, 3)
    assert pressure_of({"leases": 7}) == Pressure(0.0, 0)


async def test_a_long_queue_at_one_of_several_replicas_is_not_one_at_all() -> None:
    fleet = FakeCluster.of(WordCodec(), lambda segment: iter(()), replicas=3).fleet
    for replica, waiting, free in (("r0", 6, 0), ("r1", 0, 100), ("r2", 0, 80)):
        fleet.report(replica, Status(0, waiting, 100, free, 4, {"waiting": waiting}))
    pressure = pressure_of(stats_of(fleet))
    assert pressure == Pressure(pytest.approx(0.4), 2.0)
    admission = Admission(AdmissionLimits(max_waiting=0, max_waiting_rows=4))
    async with admission.admit("a"):
        admission.update(pressure)
        async with admission.admit("b"):
            fleet.report("r2", Status(0, 7, 100, 80, 4, {"waiting": 7}))
            admission.update(pressure_of(stats_of(fleet)))
            with pytest.raises(Overloaded):
                await admission.admit("c").__aenter__()
