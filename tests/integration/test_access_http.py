"""Keys, limits and the queue under a real server, over an engine without a model."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from multiverse.serving.access.access import Access
from multiverse.serving.access.admission import Admission, AdmissionLimits
from multiverse.serving.access.key_file import entry, parse_keys
from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.api.http import build_asgi
from multiverse.serving.request import GenerationRequest
from tests.integration.http_surface import surface
from tests.unit.serving.http_fakes import FakeEngine, sequential

pytestmark = pytest.mark.slow

ALICE, BOB, ENV = "mv-alice-secret", "mv-bob-secret", "mv-env-secret"


def script(request: GenerationRequest) -> list[Any]:
    match request.question:
        case "wait":
            return [*sequential(engine.tokens, "One")[:1], 60.0]
        case "fail":
            return [RuntimeError("out of memory")]
        case _:
            return list(sequential(engine.tokens, "One", " two"))


engine = FakeEngine(script)


@contextmanager
def serving(
    access: Access, admission: Admission | None = None, host: str = "127.0.0.1", log_level: str = "warning"
) -> Iterator[int]:
    """Give the port."""
    app = build_asgi(engine, "tiny", access=access, admission=admission)
    # log_config None: the server's records go where pytest sees them.
    with surface(app, host, log_level, log_config=None) as port:
        yield port


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(entry("alice", ALICE) + "  limits: {concurrency: 1, max_width: 4}\n" + entry("bob", BOB))
    return path


@pytest.fixture
def access(keys: Path) -> Access:
    # Every look at the clock is a second later, so that the file is looked at with every request.
    ticks = itertools.count()
    return Access(KeyStore(keys, parse_keys(ENV, "KEYS"), lambda: float(next(ticks))))


@pytest.fixture
def admission() -> Admission:
    return Admission(AdmissionLimits(max_running=2, max_waiting=1))


@pytest.fixture
def url(access: Access, admission: Admission) -> Iterator[str]:
    with serving(access, admission) as port:
        yield f"http://127.0.0.1:{port}"


def ask(client: httpx.Client, key: str, content: str = "Go", **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}
    return client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


@contextmanager
def waiting(url: str, key: str) -> Iterator[None]:
    """A stream that goes on until this ends; then the client goes."""
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "wait"}]}
    headers = {"authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream,
    ):
        assert stream.status_code == 200
        lines = stream.iter_lines()
        next(lines)
        yield


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


def test_openai_client_with_its_key(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=ALICE, max_retries=0) as sdk:
        completion = sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Go"}])
    assert completion.choices[0].message.content == "One two"


def test_openai_client_with_a_wrong_key(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError, match="the API key is not known here"),
    ):
        sdk.models.list()


def test_openai_client_asks_again_when_told_to(url: str) -> None:
    with waiting(url, ALICE), openai.OpenAI(base_url=f"{url}/v1", api_key=ALICE, max_retries=0) as sdk:
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.completions.create(model="tiny", prompt="Go")
        assert caught.value.response.headers["retry-after"] == "1"


def test_width_above_the_limit_is_forbidden(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=ALICE, max_retries=0) as sdk,
        pytest.raises(openai.PermissionDeniedError, match="the key 'alice' may ask for at most 4"),
    ):
        sdk.completions.create(model="tiny", prompt="Go", extra_body={"parallel": {"mode": "force", "width": 8}})


def test_refused_request_with_a_large_body_hears_why(client: httpx.Client) -> None:
    assert ask(client, "wrong", "x" * 3_000_000).status_code == 401


def test_client_that_goes_frees_its_place(url: str, client: httpx.Client) -> None:
    with waiting(url, ALICE):
        assert ask(client, ALICE).status_code == 429
    deadline = time.monotonic() + 5
    while ask(client, ALICE).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_client_that_goes_leaves_the_queue(url: str, admission: Admission) -> None:
    with waiting(url, ALICE), waiting(url, BOB):
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {ENV}"}) as client:
            queued = asyncio.create_task(client.post("/v1/completions", json={"model": "tiny", "prompt": "Go"}))
            await until(lambda: admission.waiting == 1)
            queued.cancel()
        await until(lambda: admission.waiting == 0)
        assert admission.running == 2


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


def test_queue_runs_when_a_place_is_free(url: str) -> None:
    answers: list[int] = []

    def late() -> None:
        with httpx.Client(base_url=url) as client:
            answers.append(ask(client, BOB).status_code)

    thread = threading.Thread(target=late)
    with waiting(url, ALICE), waiting(url, ENV):
        thread.start()
        thread.join(0.3)
        assert answers == []
    thread.join(5)
    assert answers == [200]


def test_keys_are_replaced_while_the_server_runs(keys: Path, client: httpx.Client) -> None:
    new = keys.with_suffix(".new")
    new.write_text(entry("alice", "mv-alice-new"))
    new.rename(keys)
    assert [ask(client, key).status_code for key in (ALICE, BOB, "mv-alice-new", ENV)] == [401, 401, 200, 200]


def test_broken_file_leaves_the_keys(keys: Path, client: httpx.Client) -> None:
    keys.write_text("- name: alice\n  sha256: [")
    assert ask(client, ALICE).status_code == 200


def test_no_key_is_seen_in_logs_metrics_errors_or_reprs(
    keys: Path, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    sent = [ALICE, BOB, ENV, "mv-unknown-secret"]
    seen: list[str] = []
    with (
        caplog.at_level(5),  # uvicorn's trace, below DEBUG
        serving(access, log_level="trace") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for key in sent:
            for content in ("Go", "fail"):
                seen.append(ask(client, key, content).text)
                seen.append(ask(client, key, content, stream=True).text)
            seen.append(ask(client, key, parallel={"mode": "force", "width": 8}).text)
            seen.append(client.get("/v1/models", headers={"authorization": key}).text)
            seen.append(client.get("/metrics", headers={"authorization": f"Bearer {key}"}).text)
        # An operator who writes the key where its hash belongs.
        keys.write_text(f"- name: {ALICE}\n  sha256: {BOB}\n")
        seen.append(ask(client, ALICE).text)
        caller = access.caller(f"Bearer {ALICE}", None)
        seen += [repr(vars(access)), repr(caller), repr(vars(caller.account)), repr(vars(access._store))]  # type: ignore[arg-type]
    seen += [caplog.text, *(json.dumps(vars(record), default=repr) for record in caplog.records)]
    assert [said for said in ("out of memory", "the keys stay as they were", "ASGI") if said not in caplog.text] == []
    assert 'multiverse_key_requests_total{key="alice"}' in "".join(seen)
    assert [key for key in sent if any(key.removeprefix("mv-") in text for text in seen)] == []


def test_server_without_keys_answers_its_own_machine_only() -> None:
    with serving(Access(None), host="0.0.0.0") as port:
        own = own_address()
        here = httpx.get(f"http://127.0.0.1:{port}/v1/models")
        there = httpx.get(f"http://{own}:{port}/v1/models")
    assert here.status_code == 200
    assert (there.status_code, there.json()["error"]["code"]) == (403, "no_api_keys")


def own_address() -> str:
    """An address of this machine that others may reach; without one the test is skipped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        address: str = probe.getsockname()[0]
    return address
