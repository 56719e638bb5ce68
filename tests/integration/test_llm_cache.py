"""Answers that were paid for are not paid for again: after errors, restarts and kills."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.cache import Cache
from multiverse.curation.llm.calls import LLMError, Reply
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import LLMConfig
from tests.integration.llm_server import Server, first, llm_server
from tests.integration.llm_worker import question

CONCURRENCY = 8


@pytest.fixture
def server() -> Iterator[Server]:
    with llm_server() as server:
        yield server


def config(server: Server, cache_dir: Path, **values: Any) -> LLMConfig:
    return LLMConfig(base_url=server.url, model="m", cache_dir=cache_dir, concurrency=CONCURRENCY, **values)


def cache(directory: Path) -> Cache:
    return Cache(directory, "m json_schema")


async def test_answer_is_there_before_it_is_used_and_asked_for_once(server: Server, tmp_path: Path) -> None:
    accounting = Accounting()
    async with open_llm(config(server, tmp_path), accounting) as llm:
        made = await llm(question(1))
        assert cache(tmp_path).get(cache(tmp_path).key(question(1))) == replace(made, cached=True)
    async with open_llm(config(server, tmp_path), accounting) as llm:
        assert await llm(question(1)) == replace(made, cached=True)
    assert len(server.requests) == 1
    figures = accounting.total
    assert (figures.made, figures.cached, figures.attempts, figures.prompt_tokens) == (1, 1, 1, 2)


async def test_everything_that_decides_the_answer_is_in_the_key(server: Server, tmp_path: Path) -> None:
    call = question(1)
    calls = [
        call,
        question(2),
        replace(call, stage="other"),
        replace(call, max_tokens=17),
        replace(call, temperature=1.0),
        replace(call, seed=1),
        replace(call, schema={"properties": {"a": {}, "b": {}}}),
        replace(call, schema={"properties": {"b": {}, "a": {}}}),
    ]
    async with open_llm(config(server, tmp_path), Accounting()) as llm:
        await asyncio.gather(*map(llm, calls))
    for other in ({"structured": "none"}, {}):
        async with open_llm(config(server, tmp_path, **other), Accounting()) as llm:
            await llm(call)
    assert len(server.requests) == len(calls) + 1


async def test_equal_calls_at_the_same_time_are_one(server: Server, tmp_path: Path) -> None:
    server.latency, accounting = 0.1, Accounting()
    async with open_llm(config(server, tmp_path), accounting) as llm:
        replies = await asyncio.gather(*(llm(question(1)) for _ in range(10)))
    assert len(server.requests) == 1
    assert Counter(reply.cached for reply in replies) == {False: 1, True: 9}
    assert (accounting.total.made, accounting.total.cached) == (1, 9)


async def test_caller_that_goes_takes_the_answer_from_nobody(server: Server, tmp_path: Path) -> None:
    server.latency = 0.3
    async with open_llm(config(server, tmp_path), Accounting()) as llm:
        goes, stays = asyncio.create_task(llm(question(1))), asyncio.create_task(llm(question(1)))
        await asyncio.sleep(0.1)
        goes.cancel()
        assert (await stays).text == "answer to question 1"
    assert len(server.requests) == 1


async def test_error_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.fault = first(1, "400")
    async with open_llm(config(server, tmp_path), Accounting()) as llm:
        with pytest.raises(LLMError):
            await llm(question(1))
        assert (await llm(question(1))).text == "answer to question 1"


@pytest.mark.parametrize("content", [b"", b'{"text": "half', b'{"text": "no figures"}'])
async def test_damaged_answer_is_asked_for_again(server: Server, tmp_path: Path, content: bytes) -> None:
    async with open_llm(config(server, tmp_path), Accounting()) as llm:
        await llm(question(1))
        (path,) = tmp_path.rglob("*.json")
        path.write_bytes(content)
        assert not (await llm(question(1))).cached
        assert (await llm(question(1))).cached
    assert len(server.requests) == 2


def start(config: LLMConfig, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.llm_worker", config.model_dump_json(), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_nothing_that_was_cached_is_asked_for_again_after_kills(server: Server, tmp_path: Path) -> None:
    server.latency, count, kills, store = 0.05, 240, 3, cache(tmp_path)
    keys = {f"question {number}": store.key(question(number)) for number in range(count)}
    kept: list[tuple[int, set[str]]] = []
    for kill in range(kills):
        process, goal = start(config(server, tmp_path), count), (kill + 1) * 60
        while len(server.requests) < goal:
            assert process.poll() is None
            time.sleep(0.003)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        time.sleep(0.5)  # the server ends what it was asked
        before = len(server.requests)
        cached = {prompt for prompt, key in keys.items() if store.get(key) is not None}
        assert before - (kill + 1) * CONCURRENCY <= len(cached) < count
        kept.append((before, cached))
    process = start(config(server, tmp_path), count)
    out, _ = process.communicate(timeout=120)
    assert json.loads(out) == [f"answer to question {number}" for number in range(count)]
    assert all(cached.isdisjoint(server.prompts[before:]) for before, cached in kept)
    asked = Counter(server.prompts)
    assert set(asked) == set(keys)
    assert asked.total() - count <= kills * CONCURRENCY


@pytest.mark.slow
def test_processes_share_a_directory(server: Server, tmp_path: Path) -> None:
    count = 100
    for expected in (count, 0):
        before = len(server.requests)
        processes = [start(config(server, tmp_path), count) for _ in range(2)]
        outs = [process.communicate(timeout=120)[0] for process in processes]
        assert [json.loads(out) for out in outs] == [[f"answer to question {n}" for n in range(count)]] * 2
        assert expected <= len(server.requests) - before <= 2 * expected
    assert not list(tmp_path.rglob("*.partial"))


def test_written_in_many_processes_at_once_is_whole(tmp_path: Path) -> None:
    store, reply = cache(tmp_path), Reply("x" * 100_000, 1, 2, 1, False, 0.0, "m")
    code = (
        "import sys; from pathlib import Path; from multiverse.curation.llm.cache import Cache; "
        "from multiverse.curation.llm.calls import Reply; store = Cache(Path(sys.argv[1]), 'm json_schema')\n"
        "for _ in range(500): store.put('ab' * 32, Reply('x' * 100_000, 1, 2, 1, False, 0.0, 'm'))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found = store.get("ab" * 32)
        assert found in (None, replace(reply, cached=True)) and (found is not None or not seen)
        seen += found is not None
        if seen == 50:
            writers[0].kill()
    assert seen > 50
    assert store.get("ab" * 32) == replace(reply, cached=True)
