"""A program: serves the builtin model on the two nodes of a Ray cluster that runs, and asks one question twice.

First over HTTP, with the branches spread over the nodes; then with all of them on one, and under another key, so that
no cached KV of the first answer is used. Prints what came as JSON.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import ray

from multiverse.application import fleet_of, free_port, serving
from multiverse.config import AppConfig
from multiverse.serving.api.http import build_asgi

KEYS_ENV = "MULTIVERSE_TEST_API_KEYS"
SPREAD_KEY, HOME_KEY = "mv-spread", "mv-home"
BODY = {
    "model": "small",
    "messages": [{"role": "user", "content": "How do I sleep, eat and train well?"}],
    "max_tokens": 300,
    "temperature": 0,
    "logprobs": True,
    "parallel": {"mode": "force", "width": 4},
}


def main(model: str, interface: str) -> None:
    config = AppConfig.of(
        {
            "model": model,
            "served_name": "small",
            "replicas": 2,
            "placement": "spread",
            "engine": {
                "dtype": "float32",
                "enforce_eager": True,
                "block_size": 32,
                "max_model_len": 1024,
                "kv_cache_gib": 0.5,
            },
            "access": {"keys_env": KEYS_ENV},
        }
    )
    os.environ[KEYS_ENV] = f"{SPREAD_KEY},{HOME_KEY}"
    with serving(config, port=free_port(), quiet=True) as url:
        print(json.dumps(asyncio.run(_ask_twice(config, url, interface))))


async def _ask_twice(config: AppConfig, url: str, interface: str) -> dict[str, Any]:
    async with fleet_of(config.model_copy(update={"placement": "home"})) as router:
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        before = _on_the_wire(interface)
        async with httpx.AsyncClient(timeout=200) as client:
            spread = await _ask(client, f"{url}/chat/completions", SPREAD_KEY)
        wire = _on_the_wire(interface) - before
        await asyncio.sleep(2.5)  # what was received and given back is told with the next status
        stats = await router.engine.stats()
        here = httpx.ASGITransport(build_asgi(router.engine, config.name, access=config.access_control()))
        async with httpx.AsyncClient(transport=here, timeout=200) as client:
            home = await _ask(client, "http://home/v1/chat/completions", HOME_KEY)
        return {
            "replicas": {name: addresses[link.node] for name, link in router.fleet.links.items()},
            "spread": spread,
            "home": home,
            "received_bytes": stats["received_bytes"],
            "kv_mismatches": stats["kv_mismatches"],
            "rebuilds": stats["rebuilds"],
            "wire_bytes": wire,
            "left": {name: stats[name] for name in ("leases", "exports", "running", "waiting")},
        }


async def _ask(client: httpx.AsyncClient, url: str, key: str) -> dict[str, Any]:
    response = await client.post(url, json=BODY, headers={"authorization": f"Bearer {key}"})
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def _on_the_wire(interface: str) -> int:
    """Bytes that this host has sent and received."""
    counters = Path("/sys/class/net", interface, "statistics")
    return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


if __name__ == "__main__":
    main(*sys.argv[1:])
