"""What a run is said to come to, beside what it comes to with ideal answers on the real chains."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.estimate import CHARACTERS_PER_TOKEN, estimate_cost
from multiverse.curation.job.intake import Intake
from multiverse.curation.llm.calls import Call, Reply
from multiverse.curation.stages.modes import MODES
from multiverse.curation.stages.outcome import Spent
from multiverse.curation.stages.settings import Settings
from tests.unit.curation.ideal_llm import IdealLLM
from tests.unit.curation.test_real_chains import CHAINS, thought

SOME = tuple(CHAINS)[::3]


def config(mode: str) -> CurateConfig:
    given: dict[str, Any] = {"source": "rows.jsonl", "out": "out", "stages": {"mode": mode}}
    return CurateConfig.of(given | {"llm": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}})


def tokens(text: str) -> int:
    return round(len(text) / CHARACTERS_PER_TOKEN)


@pytest.mark.parametrize("mode", MODES)
async def test_the_estimate_is_near_what_real_chains_take(mode: str, shared: Path) -> None:
    taken: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    characters = 0
    for number in SOME:
        ideal = IdealLLM(thought(shared, number), tokens)
        characters += len(ideal.chain)

        async def llm(call: Call, ideal: IdealLLM = ideal) -> Reply:
            reply = await ideal(call)
            read = sum(tokens(message["content"]) for message in call.messages)
            taken[call.stage] = [
                sum(pair) for pair in zip(taken[call.stage], (1, read, reply.completion_tokens), strict=True)
            ]
            return reply

        await MODES[mode].curate("", ideal.chain, llm, Settings(), Spent())
    said = estimate_cost(config(mode), Intake(1, len(SOME), len(SOME), characters, {}, {}, {}))
    assert [stage for stage, *_ in said.stages] == list(MODES[mode].STAGES)
    for stage, calls, read, _, _ in said.stages:
        assert (calls, read) == pytest.approx(tuple(taken[stage][:2]), rel=0.35), stage
    # JSON has fewer characters per token than chains have.
    assert said.completion_tokens == pytest.approx(sum(written for _, _, written in taken.values()), rel=0.25)


def test_half_of_the_input_is_half_of_it() -> None:
    intake = Intake(2, 10, 10, 26_000, {}, {}, {})
    whole, half = (estimate_cost(config("anchored"), intake, share) for share in (1.0, 0.5))
    assert (half.rows, half.calls, whole.calls) == (5, 15, 30)
    assert half.prompt_tokens == pytest.approx(whole.prompt_tokens / 2, rel=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_taken_in_comes_to_nothing(mode: str) -> None:
    said = estimate_cost(config(mode), Intake(0, 0, 0, 0, {}, {}, {}))
    assert (said.calls, said.prompt_tokens, said.completion_tokens, said.cost) == (0, 0, 0, 0.0)
