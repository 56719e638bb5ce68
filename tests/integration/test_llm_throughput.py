"""How many calls a second one client keeps up."""

import asyncio
import time
from pathlib import Path

import pytest

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import LLMConfig
from tests.integration.llm_server import llm_server

CALLS = 16 * 64
PROMPT = "One sentence of a chain, about as long as they are. " * 200
"""10 kB."""


@pytest.mark.slow
async def test_64_calls_in_flight_at_1_s_each_make_55_a_second(tmp_path: Path) -> None:
    with llm_server(latency=1.0) as server:
        config = LLMConfig(base_url=server.url, model="m", concurrency=64, cache_dir=tmp_path)
        calls = (Call("test", ({"role": "user", "content": f"{n} {PROMPT}"},), None, 500) for n in range(CALLS))
        async with open_llm(config, Accounting()) as llm:
            began, used = time.monotonic(), time.process_time()
            replies = await asyncio.gather(*map(llm, calls))
            seconds, used = time.monotonic() - began, time.process_time() - used
    print(
        f"{CALLS / seconds:.1f} calls/s over {seconds:.1f} s; {used / CALLS * 1000:.1f} ms CPU a call with the server"
    )
    assert len({reply.text for reply in replies}) == CALLS
    assert len(server.requests) == CALLS
    assert seconds > 10
    assert CALLS / seconds >= 55
