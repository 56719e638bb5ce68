"""Keys behind Ray Serve's proxy, which listens on all addresses; the engine has no model."""

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from multiverse.application import hashed_keys
from multiverse.config import AppConfig
from tests.integration.test_access_http import own_address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Surface:
    """The HTTP surface, with the keys of its replica's environment."""

    def __init__(self, config: AppConfig) -> None:
        self._access = config.access_control()

    def __serve_build_asgi_app__(self) -> Any:
        from multiverse.serving.api.http import build_asgi
        from tests.unit.serving.http_fakes import FakeEngine, sequential

        engine = FakeEngine(lambda request: sequential(engine.tokens, "One"))
        return build_asgi(engine, "tiny", access=self._access)


@pytest.fixture(scope="module")
def urls(root: Path) -> Iterator[dict[str, str]]:
    """Base URLs of a server without keys and of one with the key mv-env, on an address that others may reach."""
    keyed = AppConfig.of({"access": {"keys_env": "KEYS_OF_TEST"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("KEYS_OF_TEST", "mv-env")
        paths = os.pathsep.join([str(root / "platform"), str(root)])
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            runtime_env={"env_vars": {"PYTHONPATH": paths, **hashed_keys(keyed)}},
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        serve.start(http_options={"host": "0.0.0.0", "port": port})
        open_config = AppConfig.of({"access": {"keys_env": "NO_KEYS_OF_TEST"}})
        serve.run(Surface.bind(open_config), name="open", route_prefix="/open")  # type: ignore[attr-defined]
        serve.run(Surface.bind(keyed), name="keyed", route_prefix="/keyed")  # type: ignore[attr-defined]
        yield {
            "open, inside": f"http://127.0.0.1:{port}/open",
            "open, outside": f"http://{own_address()}:{port}/open",
            "keyed": f"http://{own_address()}:{port}/keyed",
        }
        serve.shutdown()
        ray.shutdown()


def test_server_without_keys_answers_its_own_machine(urls: dict[str, str]) -> None:
    assert httpx.get(f"{urls['open, inside']}/v1/models").status_code == 200


def test_server_without_keys_refuses_others(urls: dict[str, str]) -> None:
    response = httpx.get(f"{urls['open, outside']}/v1/models")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "no_api_keys")


def test_health_is_open_below_a_route_prefix(urls: dict[str, str]) -> None:
    assert httpx.get(f"{urls['open, outside']}/health").status_code == 200
    assert httpx.get(f"{urls['keyed']}/health").status_code == 200


@pytest.mark.parametrize(("key", "status"), [("mv-env", 200), ("mv-other", 401)])
def test_key_of_the_drivers_environment_is_known_to_the_replica(urls: dict[str, str], key: str, status: int) -> None:
    response = httpx.get(f"{urls['keyed']}/v1/models", headers={"authorization": f"Bearer {key}"})
    assert response.status_code == status
