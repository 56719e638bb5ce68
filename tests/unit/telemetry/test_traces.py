"""Traces of a request, as an OTLP receiver gets them."""

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from multiverse.engine.segment import Sampling
from multiverse.serving.api.http import build_asgi
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.telemetry import traces
from tests.otlp_receiver import Receiver, attributes, receiver
from tests.unit.serving.fake_engine import WordCodec
from tests.unit.serving.fake_fleet import FakeCluster, resumable
from tests.unit.serving.http_fakes import FakeEngine
from tests.unit.serving.sequencer_harness import GOAL_2

SECRET = "secret"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "under-test")
        traces._provider.cache_clear()
        yield received
        provider = traces._provider()
        assert provider is not None
        provider.shutdown()
        traces._provider.cache_clear()


async def answer() -> None:
    """A request with a block of two branches on three replicas, whose prompt and branches say the secret."""
    codec = WordCodec()
    texts = {
        SECRET: f" go\n{GOAL_2}",
        "1:": f" {SECRET}\n</Path>",
        "2:": " z\n</Path>",
        "<Conclusion>": "\nso\n</Conclusion>\n</Parallel>",
    }
    cluster = FakeCluster.of(codec, resumable(codec, texts))
    sequencer = Sequencer(cluster.fleet, codec, EngineLimits(1000, True), reduction=cluster.reduction)
    with traces.span("request", request="r") as trace:
        request = GenerationRequest(
            "r", tuple(codec.encode(SECRET)), Sampling(max_tokens=400), ParallelOptions(mode="auto"), trace=trace
        )
        async for _ in sequencer.generate(request):
            pass


async def test_a_request_is_one_trace_with_its_branches_their_segments_and_the_join(received: Receiver) -> None:
    await answer()
    traces.flush()
    assert len({span.trace_id for span in received.spans}) == 1
    assert received.services == {"under-test"}
    assert received.parents("request") == {""}
    assert received.parents("branch") == received.parents("join") == received.parents("reduce") == {"request"}
    assert received.parents("segment") == {"request", "branch"}
    assert sorted(attributes(span)["multiverse.branch"] for span in received.named("branch")) == [1, 2]
    (join,) = received.named("join")
    assert attributes(join) == {"multiverse.block": 1, "multiverse.width": 2}
    (request,) = received.named("request")
    for span in received.spans:
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano


async def test_no_text_is_sent(received: Receiver) -> None:
    await answer()
    with pytest.raises(ValueError), traces.span("broken"):
        raise ValueError(SECRET)
    traces.flush()
    assert received.named("broken")[0].status.message == "ValueError"
    assert not [span.name for span in received.spans if SECRET in str(span)]


async def test_schema_that_cannot_be_followed_is_no_error_of_its_request(received: Receiver) -> None:
    app = build_asgi(FakeEngine(lambda _: [ValueError(SECRET)]), "tiny")
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Go"}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for form, status in ((schema, 400), ({"type": "text"}, 500)):
            response = await client.post("/v1/chat/completions", json=body | {"response_format": form})
            assert response.status_code == status
    traces.flush()
    statuses = [span.status.code for span in received.named("request")]
    assert statuses == [Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR]


def test_without_an_endpoint_there_is_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in traces.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    traces._provider.cache_clear()
    with traces.span("request") as trace:
        assert trace == ""
    assert not traces.enabled()
