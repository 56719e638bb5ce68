"""A model of the worker's own: vLLM with constrained decoding as the LLM, and as the independence check."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from multiverse.curation.chain.plan import read_steps
from multiverse.curation.chain.schemas import steps_schema
from multiverse.curation.checks.independence import IndependenceScorer
from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, LLMError
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import EngineLLMConfig
from multiverse.curation.llm.local import LocalEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

CONFIG = EngineLLMConfig(
    model="builtin:smollm2-135m", max_model_len=1024, kv_cache_gib=0.5, max_num_seqs=8, enforce_eager=True
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LocalEngine]:
    async with LocalEngine(CONFIG.engine_config()) as running:
        yield running


def call(text: str, schema: dict[str, object] | None = None, max_tokens: int = 300) -> Call:
    return Call("steps", ({"role": "user", "content": text},), schema, max_tokens)


async def test_answers_keep_to_their_schema(engine: LocalEngine) -> None:
    accounting = Accounting()
    async with open_llm(CONFIG, accounting, engine) as llm:
        questions = [f"Which steps has a solution of five sentences about {what}?" for what in ("cats", "sums", "rain")]
        replies = await asyncio.gather(*(llm(call(text, steps_schema(5))) for text in questions))
    whole = [reply.text for reply in replies if reply.completion_tokens < 300]
    assert whole
    for answer in whole:
        keys = [int(key) for key in json.loads(answer)["steps"]]
        assert keys == sorted(set(keys))
        assert read_steps(answer, 5)[-1].end == 5
    assert accounting.total.made == 3
    assert accounting.total.completion_tokens == sum(reply.completion_tokens for reply in replies)


async def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(engine: LocalEngine) -> None:
    async with open_llm(CONFIG, Accounting(), engine) as llm:
        with pytest.raises(LLMError, match="1,024") as refused:
            await llm(call("word " * 3000))
    assert not refused.value.retryable


async def test_branches_that_lean_on_a_sibling_are_told_from_those_that_do_not(engine: LocalEngine) -> None:
    scorer = IndependenceScorer(engine)
    first = "The code of the first room is 8 4 1 9 7 3 and its colour is turquoise. "
    leaning = await scorer.gap("Which codes?", "We look. ", [first, "So 8 4 1 9 7 3 and turquoise it is again. "])
    apart = await scorer.gap("Which codes?", "We look. ", [first, "Cows eat grass and sleep at night. "])
    assert leaning is not None and apart is not None
    assert leaning > 0.5 > apart
    assert await scorer.gap("Which?", "", ["word " * 800, "word " * 800]) is None
