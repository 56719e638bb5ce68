"""What users send makes no new series."""

from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from multiverse.serving.access.access import Access
from multiverse.serving.access.key_file import entry
from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.api.http import build_asgi
from multiverse.telemetry.export import build
from tests.unit.serving.http_fakes import FakeEngine, block_of_two

DIFFERENT = 1000


def series(registry: CollectorRegistry) -> set[str]:
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#") and "_created" not in line}


async def ask(client: httpx.AsyncClient, number: int) -> None:
    """One good request and bad ones, with texts, keys, names and seeds that nobody else sends."""
    text = f"text-{number}"
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "user": text, "seed": number}
    path, good = "/v1/chat/completions", {"authorization": "Bearer mv-alice"}
    assert (await client.post(path, json=body, headers=good)).status_code == 200
    assert (await client.post(path, json=body, headers={"authorization": f"Bearer {text}"})).status_code == 401
    assert (await client.post(path, json=body | {"model": text}, headers=good)).status_code == 404
    assert (await client.post(path, json=body | {"parallel": {"mode": text}}, headers=good)).status_code == 400
    assert (await client.get(f"/{text}", headers=good)).status_code == 404


async def test_a_thousand_different_requests_make_as_many_series_as_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(entry("alice", "mv-alice"))
    engine = FakeEngine(lambda _: block_of_two(engine.tokens))
    engine.figures |= {"steps": [(1.0, 0.01), (4.0, 0.011)], "running": 1}
    registry = CollectorRegistry()
    app = build_asgi(engine, "tiny", [build(registry)], Access(KeyStore(keys)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.1") as client:
        await client.get("/metrics", headers={"authorization": "Bearer mv-alice"})
        await ask(client, 0)
        before = series(registry)
        for number in range(1, DIFFERENT):
            await ask(client, number)
        after = series(registry)
    assert registry.get_sample_value("multiverse_key_requests_total", {"key": "alice"}) == DIFFERENT
    assert after == before
    assert not [name for name in after if "text-" in name]
