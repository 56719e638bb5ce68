"""How much the modes ask an LLM to write, in the built-in model's tokens: ideal answers on the real chains."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from multiverse.curation.stages import anchored, rewrite
from multiverse.curation.stages.outcome import Spent
from multiverse.curation.stages.settings import Settings
from tests.unit.curation.ideal_llm import IdealLLM
from tests.unit.curation.test_real_chains import CHAINS, thought


@pytest.fixture(scope="module")
def count(builtin_model: Path) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(builtin_model)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


async def share(mode: ModuleType, settings: Settings, shared: Path, count: Callable[[str], int]) -> float:
    """Tokens of all answers / tokens of all chains."""
    asked = chains = 0
    for number in CHAINS:
        llm, spent = IdealLLM(thought(shared, number), count), Spent()
        await mode.curate("", llm.chain, llm, settings, spent)
        asked += spent.completion_tokens
        chains += count(llm.chain)
    print(f"{mode.VERSION}: {asked} tokens asked for, chains of {chains}: {asked / chains:.1%}")
    return asked / chains


async def test_anchored_mode_asks_for_a_quarter_of_the_chains_at_most(
    shared: Path, count: Callable[[str], int]
) -> None:
    assert await share(anchored, Settings(), shared, count) <= 0.25


async def test_rewrite_mode_asks_for_more_than_the_chains(shared: Path, count: Callable[[str], int]) -> None:
    """Each step is written once more, and so is the structure."""
    assert 1.0 < await share(rewrite, Settings(), shared, count) <= 1.5
