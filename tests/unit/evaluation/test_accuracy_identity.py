"""Is another model told from the one that answered?"""

from pathlib import Path

import httpx
import pytest

from multiverse.config import ConfigError
from multiverse.evaluation.accuracy import endpoint
from multiverse.evaluation.accuracy.asking import AnswerError, Ask, TargetError
from multiverse.evaluation.accuracy.config import EndpointTarget, EngineTarget
from multiverse.evaluation.accuracy.endpoint import EndpointResponder
from multiverse.evaluation.accuracy.identity import fingerprint, identity
from multiverse.evaluation.accuracy.run import evaluate
from tests.unit.evaluation.accuracy_fakes import Told, config, opener, right

MIB = 2**20
CLIENT = httpx.AsyncClient


def test_a_directory_is_known_by_its_files(tmp_path: Path) -> None:
    weights, settings = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.write_bytes(bytes(40 * MIB))
    settings.write_text("{}")
    (tmp_path / "README.md").write_text("a card")
    found = [fingerprint(str(tmp_path))]
    (tmp_path / "README.md").write_text("another card")
    assert fingerprint(str(tmp_path)) == found[0]
    for at in (0, 20 * MIB, 40 * MIB - 1):
        with weights.open("r+b") as file:
            file.seek(at)
            file.write(b"x" * (2 * MIB if at == 20 * MIB else 1))
        found.append(fingerprint(str(tmp_path)))
    settings.rename(tmp_path / "config2.json")
    found.append(fingerprint(str(tmp_path)))
    assert len(set(found)) == len(found)


def test_a_hub_id_is_known_by_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "/cache/snapshots/abc")
    assert fingerprint("owner/name") == "abc"
    assert fingerprint("name") is None


async def test_an_engine_has_its_models_fingerprint(tmp_path: Path) -> None:
    assert await identity(EngineTarget(model=str(tmp_path))) == {"fingerprint": fingerprint(str(tmp_path))}


class Server:
    """Lists ``models``; refuses to go on with a message, with ``status``, as often as ``refusals`` says."""

    def __init__(self, models: list[dict[str, str]], status: int = 400, refusals: tuple[bool, ...] = ()) -> None:
        self._models, self._status, self._refusals = models, status, list(refusals)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": self._models})
        going_on = b"continue_final_message" in request.content
        if going_on and self._refusals.pop(0):
            return httpx.Response(self._status, json={"error": {"message": "extra inputs are not permitted"}})
        choice = {"message": {"content": "so far"}, "finish_reason": "stop" if going_on else "length"}
        return httpx.Response(200, json={"choices": [choice]})


def serve(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    transport = httpx.MockTransport(server)
    monkeypatch.setattr(endpoint.httpx, "AsyncClient", lambda **values: CLIENT(transport=transport))


async def test_a_server_is_known_by_the_model_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Server([{"id": "served", "root": "/models/1"}]))
    target = EndpointTarget(base_url="http://127.0.0.1:1/v1")
    assert await identity(target) == {"model": "served", "root": "/models/1"}
    serve(monkeypatch, Server([]))
    assert await identity(target.model_copy(update={"model": "named"})) == {"model": "named", "root": None}


async def test_the_run_says_which_model_answers_and_goes_on_with_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = config(tmp_path, model={"base_url": "http://127.0.0.1:1/v1"})
    answering = opener(made, **{"127.0.0.1:1": Told(right(40))})
    said: list[str] = []
    serve(monkeypatch, Server([{"id": "one"}]))
    await evaluate(made, answering, say=said.append)
    assert said == ["model: one answers at http://127.0.0.1:1/v1"]
    serve(monkeypatch, Server([{"id": "other"}]))
    with pytest.raises(ConfigError, match=r"sides\.model\.model is 'one' there and 'other' here"):
        await evaluate(made, answering)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_server_that_cannot_go_on_with_a_message_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    serve(monkeypatch, Server([{"id": "served"}], status, (True,)))
    ask = Ask("generated", "item", 0, "How much?", "task", 0, budget=5)
    async with EndpointResponder(EndpointTarget(base_url="http://127.0.0.1:1/v1")) as responder:
        with pytest.raises(TargetError, match=f"HTTP {status}: extra inputs are not permitted.*`forcing: turn`"):
            await responder.answer(ask)


async def test_one_that_has_gone_on_before_may_refuse_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Server([{"id": "served"}], 400, (False, True)))
    ask = Ask("generated", "item", 0, "How much?", "task", 0, budget=5)
    async with EndpointResponder(EndpointTarget(base_url="http://127.0.0.1:1/v1")) as responder:
        assert (await responder.answer(ask)).forced
        with pytest.raises(AnswerError, match="HTTP 400"):
            await responder.answer(ask)
