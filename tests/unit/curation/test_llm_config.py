"""What a configuration of the LLM may say, and where its key comes from."""

from typing import Any

import pytest

from multiverse.config import ConfigError
from multiverse.curation.job.config import CurateConfig
from multiverse.curation.llm.config import LLMConfig

KEY = "sk-secret-of-the-test"


def config(**values: Any) -> LLMConfig:
    return LLMConfig.of({"base_url": "https://llm.example.com/v1", "model": "m", **values}, "llm")


@pytest.mark.parametrize(
    "address",
    [
        "llm.example.com/v1",
        "ftp://llm.example.com",
        "https://user:password@llm.example.com/v1",
        "https://llm.example.com/v1?key=abc",
        "https://llm.example.com:port/v1",
        "https://",
    ],
)
def test_address_that_cannot_be_used_or_may_hold_a_key_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="must be an http:// or https:// address"):
        config(base_url=address)


@pytest.mark.parametrize("address", ["http://[::1]:8000/v1", "http://localhost", "http://127.0.0.1:1/v1/"])
def test_loopback(address: str) -> None:
    assert config(base_url=address).loopback


def test_missing_key_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
        config(key_env="LLM_KEY").key()
    assert str(caught.value) == (
        "the environment variable LLM_KEY is not set: no API key for https://llm.example.com/v1"
    )


def test_loopback_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_KEY", raising=False)
    assert config(base_url="http://127.0.0.1:8000/v1", key_env="LLM_KEY").key() is None


def test_no_key_is_sent_unless_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert config().key() is None


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY}é", f"{KEY} two"])
def test_key_that_no_header_takes_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LLM_KEY", value)
    with pytest.raises(ConfigError, match="LLM_KEY is no API key") as caught:
        config(key_env="LLM_KEY").key()
    assert KEY not in repr(caught.value)


def test_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_KEY", f"{KEY}\n")
    held = config(key_env="LLM_KEY").key()
    assert held is not None
    assert held.get_secret_value() == KEY
    assert KEY not in repr(held) + repr(config(key_env="LLM_KEY"))


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        (None, "run: llm is null: must be an object"),
        ("gpt", 'run: llm is "gpt": must be an object'),
        ({"kind": "x"}, "run: llm is {\"kind\": \"x\"}: its kind must be 'endpoint' or 'engine'"),
        ({"model": "m"}, "run: llm.base_url is missing"),
    ],
)
def test_what_is_no_llm_is_told_without_names_of_ours(llm: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        CurateConfig.of({"source": "rows.jsonl", "out": "out", "llm": llm}, "run")
    assert str(refused.value) == message


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="api_key is not a known field"):
        config(api_key="x")


def test_workers_share_the_limits() -> None:
    part = config(concurrency=10, requests_per_minute=90, tokens_per_minute=3000).share(4)
    assert (part.concurrency, part.requests_per_minute, part.tokens_per_minute) == (3, 22.5, 750)
    assert config().share(4).requests_per_minute is None
