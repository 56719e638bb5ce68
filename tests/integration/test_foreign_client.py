"""Clients that nobody here wrote, unchanged, against the Serve application with two replicas of the builtin model."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 12, 64, 16
MESSAGES: list[Any] = [{"role": "user", "content": "How do I sleep, eat and train well?"}]


@pytest.fixture(scope="module")
def url(builtin_model: Path) -> Iterator[str]:
    from multiverse.application import free_port, serving
    from multiverse.config import AppConfig

    config = AppConfig.of(
        {
            "model": str(builtin_model),
            "served_name": "small",
            "replicas": 2,
            "placement": "spread",
            "engine": {"enforce_eager": True, "max_model_len": 1024, "kv_cache_gib": 0.5},
            "access": {"keys_env": "MULTIVERSE_TEST_API_KEYS"},
        }
    )
    with serving(config, port=free_port(), quiet=True) as url:
        yield url


@pytest.fixture
def sync(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def vllm_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH. The program `vllm` of the CPU build asks for the version of a distribution "vllm"."""
    from vllm.version import __version__

    folder = tmp_path_factory.mktemp("distribution")
    (folder / "vllm.dist-info").mkdir()
    (folder / "vllm.dist-info" / "METADATA").write_text(f"Name: vllm\nVersion: {__version__}+cpu\n")
    return folder


@pytest.mark.parametrize(
    ("backend", "endpoint"), [("openai-chat", "/v1/chat/completions"), ("openai", "/v1/completions")]
)
def test_vllm_bench_serve(
    url: str, builtin_model: Path, vllm_distribution: Path, tmp_path: Path, backend: str, endpoint: str
) -> None:
    options = {
        "backend": backend,
        "endpoint": endpoint,
        "base-url": url.removesuffix("/v1"),
        "tokenizer": str(builtin_model),
        "dataset-name": "random",
        "random-input-len": str(PROMPT_TOKENS),
        "random-output-len": str(ANSWER_TOKENS),
        "num-prompts": str(PROMPTS),
        "result-dir": str(tmp_path),
        "result-filename": "result.json",
    }
    program = Path(sys.executable).with_name("vllm")
    ran = subprocess.run(
        [program, "bench", "serve", "--save-result", *(f"--{name}={value}" for name, value in options.items())],
        env=os.environ | {"PYTHONPATH": str(vllm_distribution), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["model_id"], result["num_prompts"]) == ("small", PROMPTS)
    assert (result["completed"], result["failed"]) == (PROMPTS, 0), ran.stdout[-3000:]
    # It asks for answers that do not end before their limit.
    assert result["total_output_tokens"] == PROMPTS * ANSWER_TOKENS
    assert result["total_input_tokens"] >= PROMPTS * PROMPT_TOKENS


def test_openai_client_streams_what_it_gets_whole(sync: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    whole = sync.chat.completions.create(**asked)
    streamed = list(sync.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in streamed for choice in chunk.choices)
    assert text == whole.choices[0].message.content != ""
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    assert streamed[-1].usage == whole.usage


def test_openai_client_completes_a_text(sync: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "small", "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
    whole = sync.completions.create(**asked)
    streamed = "".join(chunk.choices[0].text for chunk in sync.completions.create(**asked, stream=True))
    assert streamed == whole.choices[0].text != ""


async def test_async_openai_client_has_many_requests_at_once(url: str) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": MESSAGES, "max_tokens": 24}
    extra = {"ignore_eos": True, "return_token_ids": True}

    async def whole() -> tuple[int, str | None]:
        answer = await client.chat.completions.create(**asked, extra_body=extra)
        assert answer.usage is not None
        return answer.usage.completion_tokens, answer.choices[0].finish_reason

    async def streamed() -> tuple[int, str | None]:
        tokens, finish = 0, None
        async for chunk in await client.chat.completions.create(**asked, extra_body=extra, stream=True):
            tokens += len((chunk.choices[0].model_extra or {}).get("token_ids") or [])
            finish = chunk.choices[0].finish_reason or finish
        return tokens, finish

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        ends = await asyncio.gather(*(whole() for _ in range(8)), *(streamed() for _ in range(8)))
    assert ends == [(24, "length")] * 16


def test_end_of_sequence_ends_an_answer_unless_it_is_ignored(sync: openai.OpenAI, builtin_model: Path) -> None:
    from multiverse.models.tokens import Tokens

    end, *_ = Tokens.load(builtin_model).eos_ids
    asked: dict[str, Any] = {"model": "small", "prompt": "Once", "max_tokens": 8, "logit_bias": {str(end): 100}}
    ended = sync.completions.create(**asked)
    ignored = sync.completions.create(**asked, extra_body={"ignore_eos": True, "return_token_ids": True})
    assert ended.usage is not None
    assert ignored.usage is not None
    assert (ended.usage.completion_tokens, ended.choices[0].finish_reason) == (0, "stop")
    assert (ignored.usage.completion_tokens, ignored.choices[0].finish_reason) == (8, "length")
    assert end not in (ignored.choices[0].model_extra or {})["token_ids"]
