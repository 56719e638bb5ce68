"""The OpenAI surface under a real server, over an engine without a model."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from multiverse.serving.api.http import build_asgi
from multiverse.serving.request import GenerationRequest
from tests.integration.http_surface import surface
from tests.unit.serving.http_fakes import FIRST, HEAD, SECOND, TAIL, FakeEngine, block_of_two, sequential

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "Go"}]


def script(request: GenerationRequest) -> list[Any]:
    match request.question:
        case "block":
            return list(block_of_two(engine.tokens))
        case "fail":
            return [RuntimeError("out of memory")]
        case "fail later":
            return [*sequential(engine.tokens, "One")[:1], RuntimeError("out of memory")]
        case "schema":
            return [ValueError("no such grammar")]
        case "wait":
            return [*sequential(engine.tokens, "One")[:1], 60.0]
        case "wait first":
            return [60.0]
        case _:
            return list(sequential(engine.tokens, "One", " two"))


engine = FakeEngine(script)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with surface(build_asgi(engine, "tiny")) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def ask(content: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}


def chunks(client: httpx.Client, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
    response = client.post(path, json=body | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["tiny"]
    assert sdk.models.retrieve("tiny").id == "tiny"


def test_chat(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(model="tiny", messages=MESSAGES)  # type: ignore[arg-type]
    assert completion.choices[0].message.content == "One two"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
    }


def test_streamed_chat_is_the_whole_one_in_pieces(sdk: openai.OpenAI) -> None:
    options = {"include_usage": True}
    with sdk.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        stream=True,
        stream_options=options,  # type: ignore[call-overload]
    ) as stream:
        streamed = list(stream)
    assert [chunk.choices[0].delta.content for chunk in streamed[:-1]] == ["", "One", " two", None]
    assert streamed[-2].choices[0].finish_reason == "stop"
    assert streamed[-1].choices == []
    assert streamed[-1].usage.total_tokens == 4


def test_plain_completion(sdk: openai.OpenAI) -> None:
    completion = sdk.completions.create(model="tiny", prompt="Go", n=2)
    assert [choice.text for choice in completion.choices] == ["One two", "One two"]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1, 4)


def test_streamed_plain_completion(sdk: openai.OpenAI) -> None:
    with sdk.completions.create(model="tiny", prompt="Go", stream=True) as stream:
        assert [chunk.choices[0].text for chunk in stream] == ["One", " two", ""]


def test_block_in_a_whole_response(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=ask("block", parallel={"mode": "auto"})).json()
    assert response["choices"][0]["message"]["content"] == HEAD + FIRST + SECOND + TAIL
    assert response["parallel"]["x"] == 1.5
    assert [branch["text"] for branch in response["parallel"]["blocks"][0]["branches"]] == ["one.", "two."]


def test_block_in_a_stream_comes_in_reading_order(client: httpx.Client) -> None:
    *streamed, last, done = chunks(client, ask("block", parallel={"mode": "auto"}))
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed)
    assert content == HEAD + FIRST + SECOND + TAIL
    assert (last["choices"][0]["finish_reason"], last["parallel"]["critical_path"]) == ("stop", 40)
    assert done == "[DONE]"


def test_branches_in_a_stream_come_as_they_are_made(client: httpx.Client) -> None:
    streamed = chunks(client, ask("block", parallel={"mode": "auto", "stream_branches": True}))
    told = [chunk["parallel"] for chunk in streamed[:-2] if "parallel" in chunk]
    assert [(item["event"], item.get("branch")) for item in told] == [
        ("fork", None),
        ("delta", 2),
        ("branch", 2),
        ("delta", 1),
        ("branch", 1),
        ("join", None),
    ]
    assert [item.pop("at") >= 0 for item in told] == [True] * 6
    assert told[1] == {"event": "delta", "block": 1, "branch": 2, "place": [[1, 2]], "delta": "two."}
    assert [chunk["choices"][0]["delta"] for chunk in streamed[:-2] if "parallel" in chunk] == [{}] * 6


def test_flattened_stream_and_response_are_equal(client: httpx.Client) -> None:
    body = ask("block", parallel={"mode": "auto", "tags": False})
    streamed = chunks(client, body)[:-1]
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed)
    assert content == "Look.one.two.Done."
    assert client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"] == content


def test_several_choices_have_a_tree_each(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=ask("block", n=2, parallel={"mode": "auto"})).json()
    assert [choice["parallel"]["x"] for choice in response["choices"]] == [1.5, 1.5]


def test_health(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}


def test_dead_engine_is_not_healthy(client: httpx.Client) -> None:
    engine.dead = True
    try:
        response = client.get("/health")
    finally:
        engine.dead = False
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "the engine does not answer: the engine's process has ended"


def test_metrics(client: httpx.Client) -> None:
    client.post("/v1/chat/completions", json=ask("block", parallel={"mode": "force"}))
    text = client.get("/metrics").text
    assert 'multiverse_requests_total{mode="force",outcome="stop"} 1.0' in text
    assert "multiverse_leased_blocks 7.0" in text


def test_bodies_are_described(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/CompletionBody"}
    schemas = document["components"]["schemas"]
    assert schemas["Parallel"]["properties"]["max_width"]["maximum"] == 32
    assert schemas["ChatBody"]["properties"]["parallel"]["$ref"] == "#/components/schemas/Parallel"


def refused(response: httpx.Response) -> tuple[int, str, str | None, str]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["type"], error["param"], error["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}', "invalid unicode code point"),
        (b"[" * 100_000, "recursion limit exceeded"),
        (b'{"temperature": NaN}', "expected value"),
        (b"", "EOF while parsing"),
    ],
    ids=["utf-8", "depth", "nan", "empty"],
)
def test_body_that_is_no_json_is_refused(client: httpx.Client, body: bytes, message: str) -> None:
    status, kind, param, said = refused(client.post("/v1/chat/completions", content=body))
    assert (status, kind, param) == (400, "invalid_request_error", None)
    assert said.startswith(f"the body is not JSON in UTF-8: {message}")


def test_body_that_is_no_object_is_refused(client: httpx.Client) -> None:
    status, _, _, message = refused(client.post("/v1/chat/completions", json=[1]))
    assert (status, message) == (400, "the request is [1]: must be an object")


def test_body_of_10_megabytes_is_refused(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=ask("x" * 10_000_000))
    status, _, _, message = refused(response)
    assert (status, message) == (413, "the body has 10000058 bytes or more: must have at most 4194304")


def test_wrong_value_is_refused(client: httpx.Client) -> None:
    assert refused(client.post("/v1/chat/completions", json=ask("x", max_tokens=0))) == (
        400,
        "invalid_request_error",
        "max_tokens",
        "max_tokens is 0: must be greater than or equal to 1",
    )


def test_unknown_model_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model is 'huge': this server has 'tiny'"):
        sdk.completions.create(model="huge", prompt="x")


def test_unknown_path_is_not_found(client: httpx.Client) -> None:
    assert refused(client.get("/v1/embeddings")) == (404, "invalid_request_error", None, "Not Found")


def test_wrong_method_is_refused(client: httpx.Client) -> None:
    assert refused(client.get("/v1/completions"))[0] == 405


@pytest.mark.parametrize("stream", [False, True])
def test_engine_error_is_a_server_error(client: httpx.Client, stream: bool) -> None:
    response = client.post("/v1/chat/completions", json=ask("fail", stream=stream))
    assert refused(response) == (500, "server_error", None, "the engine failed the request: out of memory")


def test_engine_error_in_a_stream_is_said_in_it(client: httpx.Client) -> None:
    streamed = chunks(client, ask("fail later"))
    assert streamed[-1]["error"]["message"] == "the engine failed the request: out of memory"


def test_schema_that_cannot_be_followed_is_refused(client: httpx.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    response = client.post("/v1/chat/completions", json=ask("schema", response_format=form))
    assert refused(response)[:3] == (400, "invalid_request_error", "response_format")


@pytest.mark.parametrize(("content", "stream"), [("wait", True), ("wait first", True), ("wait", False)])
async def test_request_ends_when_the_client_goes(url: str, content: str, stream: bool) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=ask(content, stream=stream)))
        async with asyncio.timeout(5):
            while engine.open == 0:
                await asyncio.sleep(0.01)
        asking.cancel()
    async with asyncio.timeout(5):
        while engine.open > 0:
            await asyncio.sleep(0.01)
