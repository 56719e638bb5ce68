"""Calls to a real HTTP server that fails in every way there is."""

import asyncio
import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from multiverse.config import ConfigError
from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, EndpointError, LLMError, Reply
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import LLMConfig
from multiverse.curation.llm.schemas import strict
from tests.integration.llm_server import FAULTS, Server, always, first, llm_server, seeded

KEY = "sk-secret-of-the-test"
SCHEMA = {"type": "object", "properties": {"steps": {"type": "array"}}, "required": ["steps"]}


@pytest.fixture
def server() -> Iterator[Server]:
    with llm_server() as server:
        yield server


def config(server: Server, **values: Any) -> LLMConfig:
    return LLMConfig.of({"base_url": server.url, "model": "m", "backoff_seconds": 0.02, **values})


def question(text: str = "one", **values: Any) -> Call:
    return Call(
        **{"stage": "test", "messages": ({"role": "user", "content": text},), "schema": None} | values, max_tokens=16
    )


async def ask(config: LLMConfig, *calls: Call, accounting: Accounting | None = None) -> list[Reply | BaseException]:
    """What became of the calls, made at the same time."""
    async with open_llm(config, accounting or Accounting()) as llm:
        return await asyncio.gather(*map(llm, calls), return_exceptions=True)


async def error_of(config: LLMConfig, call: Call | None = None) -> LLMError:
    (error,) = await ask(config, call or question())
    assert isinstance(error, LLMError)
    return error


async def test_answer_comes_with_its_figures(server: Server) -> None:
    prices = {"prompt": 1e6, "completion": 2e6}
    (reply,) = await ask(config(server, prices=prices), question("one two"))
    assert reply == Reply("answer to one two", 2, 4, attempts=1, cached=False, cost=10.0, model="m")


async def test_body_of_a_request(server: Server) -> None:
    await ask(config(server), question(seed=7, temperature=0.5), question(temperature=None))
    one = {"model": "m", "messages": [{"role": "user", "content": "one"}], "max_tokens": 16}
    assert [request.body for request in server.requests] == [one | {"temperature": 0.5, "seed": 7}, one]


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        (
            "json_schema",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": strict(SCHEMA), "strict": True},
                }
            },
        ),
        ("json_object", {"response_format": {"type": "json_object"}}),
        ("guided_json", {"structured_outputs": {"json": SCHEMA}}),
        ("none", {}),
    ],
)
async def test_schema_is_sent_as_configured(server: Server, structured: str, sent: dict[str, Any]) -> None:
    await ask(config(server, structured=structured), question(schema=SCHEMA))
    body = server.requests[0].body
    assert {name: body[name] for name in ("response_format", "structured_outputs") if name in body} == sent


async def test_effort_of_thinking_is_sent_where_it_is_set(server: Server) -> None:
    await ask(config(server), question())
    await ask(config(server, reasoning_effort="low"), question())
    assert [request.body.get("reasoning_effort", "-") for request in server.requests] == ["-", "low"]


async def test_limit_of_an_answer_is_called_as_configured(server: Server) -> None:
    await ask(config(server, length_field="max_completion_tokens"), question())
    assert "max_tokens" not in server.requests[0].body
    assert server.requests[0].body["max_completion_tokens"] == 16


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "429"),
        ("500", "500"),
        ("503", "503"),
        ("reset", "connection"),
        ("cut", "connection"),
        ("slow", "timeout"),
        ("truncated", "malformed"),
        ("none_at_all", "empty"),
        ("empty", "empty"),
        ("html", "malformed"),
    ],
)
async def test_call_is_repeated_after_a_fault(server: Server, fault: str, reason: str) -> None:
    server.fault, server.retry_after, server.slow_seconds = first(2, fault), lambda: None, 5.0
    accounting = Accounting()
    seconds = 0.5 if fault == "slow" else 30.0
    (reply,) = await ask(config(server, timeout_seconds=seconds), question(), accounting=accounting)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.attempts) == ("answer to one", 3)
    figures = accounting.total
    assert (figures.made, figures.failed, figures.attempts, dict(figures.retries)) == (1, 0, 3, {reason: 2})


@pytest.mark.parametrize("fault", [fault for fault in (*FAULTS, "503") if fault != "429"])
async def test_call_is_given_up_after_max_attempts(server: Server, fault: str) -> None:
    server.fault, server.slow_seconds = always(fault), 5.0
    seconds = 0.5 if fault == "slow" else 30.0
    error = await error_of(config(server, timeout_seconds=seconds, max_attempts=3))
    assert (type(error), error.attempts, error.retryable) == (LLMError, 3, True)
    assert str(error).startswith("test: given up after 3 attempts: ")
    assert len(server.requests) == 3


async def test_too_many_requests_are_no_failures_but_end_at_the_deadline(server: Server) -> None:
    server.fault, server.retry_after = always("429"), lambda: "0.1"
    began = time.monotonic()
    error = await error_of(config(server, deadline_seconds=1.5, max_attempts=2))
    assert time.monotonic() - began < 3
    assert error.attempts > 3
    assert error.retryable


async def test_deadline_cuts_an_attempt_short(server: Server) -> None:
    server.fault, server.slow_seconds = always("slow"), 30.0
    began = time.monotonic()
    error = await error_of(config(server, deadline_seconds=0.5))
    assert time.monotonic() - began < 5
    assert error.attempts == 1


async def test_call_that_is_wrong_is_not_repeated(server: Server) -> None:
    server.fault = always("400")
    error = await error_of(config(server))
    assert (type(error), error.attempts, error.retryable) == (LLMError, 1, False)


async def test_answer_that_was_all_thinking_is_not_paid_for_again(server: Server) -> None:
    server.fault = always("thought")
    error = await error_of(config(server))
    assert (type(error), error.attempts, error.retryable) == (LLMError, 1, False)
    assert "all of its 16 tokens went to thinking, more is stages.max_tokens" in str(error)


async def test_key_that_is_refused_with_400_is_no_fault_of_the_call(server: Server) -> None:
    server.fault = always("key")
    error = await error_of(config(server))
    assert (type(error), error.attempts, error.retryable) == (EndpointError, 1, False)
    assert str(error).endswith("HTTP 400: API key not valid. Please pass a valid API key.")


async def test_refused_key_is_no_fault_of_the_call(server: Server) -> None:
    server.fault = always("401")
    error = await error_of(config(server))
    assert (type(error), error.attempts, error.retryable) == (EndpointError, 1, False)
    assert "name its environment variable in key_env" in str(error)


async def test_nobody_listens() -> None:
    with llm_server() as server:
        pass
    error = await error_of(config(server, max_attempts=2))
    assert (error.attempts, error.retryable) == (2, True)


async def test_every_call_ends_under_a_mixture_of_faults(server: Server) -> None:
    server.fault, server.retry_after, server.slow_seconds = seeded(5, 0.6), lambda: "0.05", 9.0
    accounting = Accounting()
    calls = [question(f"q{number}") for number in range(150)]
    ends = await ask(config(server, timeout_seconds=3, max_attempts=4), *calls, accounting=accounting)
    replies = [end for end in ends if isinstance(end, Reply)]
    errors = [end for end in ends if isinstance(end, LLMError)]
    assert len(replies) + len(errors) == 150
    assert len(replies) > 75
    assert len(errors) > 0
    assert {request.fault for request in server.requests} == {"none", *FAULTS}
    texts = [f"answer to q{number}" for number, end in enumerate(ends) if isinstance(end, Reply)]
    assert [reply.text for reply in replies] == texts
    figures = accounting.total
    assert (figures.made, figures.failed) == (len(replies), len(errors))
    assert figures.attempts == 150 + figures.retries.total()


@pytest.mark.parametrize(
    ("retry_after", "least"), [(lambda: "1", 1.0), (lambda: formatdate(time.time() + 3, usegmt=True), 1.9)]
)
async def test_retry_after_holds_back_every_call(server: Server, retry_after: Any, least: float) -> None:
    server.fault, server.retry_after = first(1, "429"), retry_after
    async with open_llm(config(server), Accounting()) as llm:
        refused = asyncio.create_task(llm(question("refused")))
        while not server.requests:
            await asyncio.sleep(0.01)
        answered = server.requests[0].at
        await asyncio.sleep(0.3)
        replies = await asyncio.gather(refused, *(llm(question(f"other {number}")) for number in range(8)))
    assert len(replies) == 9
    assert len(server.requests) == 10  # one refused, and none ran into the same wall
    assert min(request.at for request in server.requests[1:]) - answered >= least


async def test_pause_beyond_the_deadline_stops_all_calls(server: Server) -> None:
    server.fault, server.retry_after = always("429"), lambda: "3600"
    async with open_llm(config(server, deadline_seconds=60), Accounting()) as llm:
        with pytest.raises(LLMError, match="HTTP 429: too many requests"):
            await llm(question("one"))
        with pytest.raises(EndpointError, match="takes no calls for another 3600 s") as caught:
            await llm(question("two"))
    assert (caught.value.attempts, caught.value.retryable) == (0, True)
    assert server.prompts == ["one"]


async def test_concurrency_is_bounded(server: Server) -> None:
    server.latency = 0.05
    await ask(config(server, concurrency=5), *(question(f"q{number}") for number in range(40)))
    assert server.most_running == 5


async def test_connections_are_used_again(server: Server) -> None:
    await ask(config(server, concurrency=3), *(question(f"q{number}") for number in range(40)))
    assert len({request.connection for request in server.requests}) <= 3


async def test_requests_per_minute(server: Server) -> None:
    began = time.monotonic()
    await ask(config(server, requests_per_minute=600), *(question(f"q{number}") for number in range(21)))
    assert 2.0 <= server.requests[-1].at - began < 8  # 20 intervals of 0.1 s


async def test_tokens_per_minute_count_what_was_used(server: Server) -> None:
    # A call may use 1 + 16 tokens, which is 0.85 s, and uses 1 + 3, which is 0.2 s.
    began = time.monotonic()
    await ask(config(server, tokens_per_minute=1200, concurrency=1), *(question("q", seed=n) for n in range(8)))
    assert 7 * 0.2 <= server.requests[-1].at - began < 7 * 0.85


@pytest.mark.parametrize("fault", ["none", "400", "401", "500", "reset", "truncated", "cut"])
async def test_key_is_sent_and_shown_nowhere(
    server: Server, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("LLM_KEY", KEY)
    server.fault = always(fault)
    (end,) = await ask(config(server, key_env="LLM_KEY", max_attempts=2), question())
    logging.getLogger("test").error("what became of it", exc_info=end if isinstance(end, LLMError) else None)
    assert server.requests[0].authorization == f"Bearer {KEY}"
    assert "httpcore" in {record.name.partition(".")[0] for record in caplog.records}
    assert KEY not in caplog.text + repr(end) + str(end)


def test_missing_key_is_told_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_KEY", raising=False)
    away = LLMConfig(base_url="https://llm.example.com/v1", model="m", key_env="LLM_KEY")
    with pytest.raises(ConfigError, match="LLM_KEY is not set"):
        asyncio.run(ask(away, question()))
