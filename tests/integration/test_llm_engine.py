"""A model of the worker's own: vLLM with constrained decoding as the LLM, and as the independence check."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import fmean

import psutil
import pytest
import pytest_asyncio
import torch

from multiverse.curation.chain.plan import read_steps
from multiverse.curation.chain.schemas import steps_schema
from multiverse.curation.checks.independence import IndependenceScorer
from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, LLMError, Reply
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import EngineLLMConfig
from multiverse.curation.llm.local import LocalEngine
from multiverse.curation.stages import anchored
from multiverse.curation.stages.outcome import Spent
from multiverse.curation.stages.settings import Settings
from multiverse.models.reference import load_reference
from tests.integration.engine_harness import vllm_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

CONFIG = EngineLLMConfig(
    kind="engine",
    model="builtin:smollm2-135m",
    dtype="float32",
    max_model_len=1024,
    kv_cache_gib=0.5,
    max_num_seqs=8,
    enforce_eager=True,
    temperature=0,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LocalEngine]:
    async with LocalEngine(CONFIG.engine_config()) as running:
        assert vllm_processes()
        yield running
    assert not psutil.wait_procs(vllm_processes(), timeout=10)[1]


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
    apart = await scorer.gap(
        "What are the areas of the square and of the circle?",
        "The square has side 3 cm and the circle has radius 2 cm. We work out each area by its formula. ",
        [
            "The area of the square is 3 * 3 = 9 square centimetres. ",
            "For the circle we multiply pi by the square of its radius, which gives 12.56. ",
        ],
    )
    assert leaning is not None and apart is not None
    assert leaning > 0.5 > apart
    assert await scorer.gap("Which?", "", ["word " * 800, "word " * 800]) is None


async def test_a_question_has_one_answer_whatever_runs_beside_it_and_is_paid_for_once(
    engine: LocalEngine, tmp_path: Path
) -> None:
    asked = call("Name three fruits.", max_tokens=40)
    accounting = Accounting()
    async with open_llm(CONFIG, Accounting(), engine) as llm:
        others = [call(f"Name {number} animals.", max_tokens=40) for number in range(4, 9)]
        alone = await llm(asked)
        beside, *_ = await asyncio.gather(llm(asked), *(llm(other) for other in others))
    async with open_llm(CONFIG.model_copy(update={"cache_dir": tmp_path}), accounting, engine) as llm:
        first, second = await llm(asked), await llm(asked)
    assert alone.text == beside.text == first.text == second.text
    assert (first.cached, second.cached, accounting.total.completion_tokens) == (False, True, first.completion_tokens)


async def test_a_gap_is_that_of_the_transformers_model(engine: LocalEngine) -> None:
    question, before = "What are a, b and c?", "We find them one by one. "
    branches = ["First a, which is 2 and 3, so 5. ", "Then b is a doubled, 10. ", "As for c, it is the colour red. "]
    model = load_reference(CONFIG.engine_config().model)
    tokens = engine.tokens
    prefix = [*tokens.chat([{"role": "user", "content": question}]), *tokens.encode_plain(before)]
    parts = [tokens.encode_plain(branch) for branch in branches]

    def logprobs(context: list[int], part: list[int]) -> float:
        """The mean over ``part``."""
        with torch.inference_mode():
            logits = model(torch.tensor([[*context, *part]])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        return float(logits[range(len(part)), part].mean())

    gaps, seen = [], [*prefix, *parts[0]]
    for part in parts[1:]:
        gaps.append(logprobs(seen, part) - logprobs(prefix, part))
        seen += part
    assert await IndependenceScorer(engine).gap(question, before, branches) == pytest.approx(fmean(gaps), abs=1e-3)


async def test_a_block_whose_branches_lean_on_each_other_is_made_sequential(engine: LocalEngine) -> None:
    code = "8 4 1 9 7 3 and turquoise"
    chain = f"We look. \nThe first room has {code}.\nSo {code} it is again.\nCows eat grass at night.\nDone."
    answers = {
        "steps": {"steps": {"1": "Look", "2": "Room", "3": "Again", "4": "Cows", "5": "End"}},
        "dependencies": {"needs": {"1": [], "2": [1], "3": [1], "4": [1], "5": [2, 3, 4]}},
    }
    asked: list[str] = []

    async def llm(call: Call) -> Reply:
        asked.append(call.stage)
        return Reply(json.dumps(answers[call.stage]), 1, 1, 1, cached=False, cost=0.0, model="scripted")

    row = await anchored.curate("Codes?", chain, llm, Settings(min_saving=1), Spent(), IndependenceScorer(engine))
    assert (row.chain, row.merged, asked) == (chain, 1, ["steps", "dependencies"])
    assert max(gap for gap in row.gaps.values() if gap is not None) > 0.5
