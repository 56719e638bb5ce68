"""Anchored mode with a scripted LLM: every row is valid and restores its chain, or is rejected with the reason."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from multiverse.curation.llm.calls import Call, EndpointError, LLMError, Reply
from multiverse.curation.stages.anchored import curate
from multiverse.curation.stages.conversation import Asking
from multiverse.curation.stages.outcome import RowRejectedError, Spent
from multiverse.curation.stages.settings import Settings
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import parse
from tests.unit.curation.scripted import ScriptedLLM, reply

CHAIN = "We need a and b. For a we add 2 and 3, so a is 5. For b we take 4 twice, so b is 8. Together that is 13."
STEPS = '{"steps": {"1": "w", "2": "x", "3": "y", "4": "z"}}'
NEEDS = '{"needs": {"1": [], "2": [1], "3": [1], "4": [2, 3]}}'
TEXTS = '{"blocks": {"1": {"outlines": ["Find the first", "Find the second"], "conclusion": "Both are found."}}}'
STRUCTURED = """We need a and b. 
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: Find the first
</Outline>
<Outline>
2: Find the second
</Outline>
</Goal>
<Path>
1: For a we add 2 and 3, so a is 5. 
</Path>
<Path>
2: For b we take 4 twice, so b is 8. 
</Path>
<Conclusion>
Both are found.
</Conclusion>
</Parallel>
Together that is 13."""
SETTINGS = Settings(min_saving=1)


class Answers:
    """An `LLM` that gives these answers, in order; an exception is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return reply(answer)


async def test_three_answers_make_a_structured_chain() -> None:
    llm, spent = Answers(STEPS, NEEDS, TEXTS), Spent()
    curated = await curate("What are a and b?", CHAIN, llm, SETTINGS, spent)
    assert curated.chain == STRUCTURED
    assert (curated.sequential, curated.diff, curated.distance) == (CHAIN, "", 0.0)
    assert curated.figures.structure.widths == (2,)
    assert dict(spent.calls) == {"steps": 1, "dependencies": 1, "texts": 1}
    assert (spent.requests, spent.models, round(spent.cost, 6)) == (3, {"scripted"}, 0.003)


async def test_each_question_stands_behind_those_before_and_their_answers() -> None:
    llm = Answers(STEPS, NEEDS, TEXTS)
    await curate("?", CHAIN, llm, SETTINGS, Spent())
    first, second, third = (call.messages for call in llm.calls)
    assert [message["role"] for message in third] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert second[: len(first)] == first and third[: len(second)] == second
    assert "[2] For a we add 2 and 3, so a is 5." in first[1]["content"]


async def test_an_answer_that_cannot_be_used_is_asked_for_again_with_the_reason() -> None:
    llm, spent = Answers(STEPS, '{"needs": {"1": [3]}}', NEEDS, TEXTS), Spent()
    assert (await curate("?", CHAIN, llm, SETTINGS, spent)).chain == STRUCTURED
    *_, refused, message = llm.calls[2].messages
    assert refused == {"role": "assistant", "content": '{"needs": {"1": [3]}}'}
    assert "needs.2 is missing: every step and sub-step must be there" in message["content"]
    assert all("cannot be used" not in message["content"] for message in llm.calls[3].messages)
    assert spent.calls["dependencies"] == 2


async def test_an_outline_that_gives_a_result_away_is_refused() -> None:
    leaking = TEXTS.replace("Find the first", "Find that a is 5")
    llm = Answers(STEPS, NEEDS, leaking, TEXTS)
    assert (await curate("?", CHAIN, llm, SETTINGS, Spent())).chain == STRUCTURED
    assert "outline 1 gives away '5', a result of its branch" in llm.calls[3].messages[-1]["content"]


async def test_a_row_without_a_usable_answer_is_rejected_with_stage_and_reason() -> None:
    llm = Answers(STEPS, "no", "no", "no")
    with pytest.raises(RowRejectedError) as rejected:
        await curate("?", CHAIN, llm, Settings(Asking(tries=3), min_saving=1), Spent())
    assert (rejected.value.stage, rejected.value.retryable) == ("dependencies", False)
    assert "no answer could be used in 3 tries; the last: the reply is no JSON" in rejected.value.reason


async def test_a_call_that_was_given_up_may_do_better_another_time() -> None:
    llm = Answers(LLMError("no answer in 5 s", 6, retryable=True))
    with pytest.raises(RowRejectedError) as rejected:
        await curate("?", CHAIN, llm, SETTINGS, Spent())
    assert (rejected.value.stage, rejected.value.reason, rejected.value.retryable) == (
        "steps",
        "no answer in 5 s",
        True,
    )


async def test_an_endpoint_that_takes_no_calls_is_no_fault_of_the_row() -> None:
    with pytest.raises(EndpointError):
        await curate("?", CHAIN, Answers(EndpointError("no credit", 1, retryable=False)), SETTINGS, Spent())


async def test_nothing_is_asked_about_chains_that_cannot_be_structured() -> None:
    for chain, reason in (
        ("a <Path> b", "the chain holds the tag <Path> at character 2"),
        (" \n", "the chain is empty"),
    ):
        with pytest.raises(RowRejectedError) as rejected:
            await curate("?", chain, Answers(), SETTINGS, Spent())
        assert (rejected.value.stage, rejected.value.reason) == ("chain", reason)


async def test_a_chain_of_dependent_steps_stays_as_it_is() -> None:
    llm = Answers(STEPS, '{"needs": {"1": [], "2": [1], "3": [2], "4": [3]}}')
    curated = await curate("?", CHAIN, llm, SETTINGS, Spent())
    assert (curated.chain, curated.figures.structure.blocks) == (CHAIN, 0)


async def test_blocks_that_save_too_little_are_not_asked_about() -> None:
    curated = await curate("?", CHAIN, Answers(STEPS, NEEDS), Settings(min_saving=100), Spent())
    assert curated.chain == CHAIN


async def test_first_words_are_rewritten_only_where_that_is_wanted() -> None:
    opening = '"openings": [{"branch": 2, "original": "For b", "rewrite": "To find b,"}], "conclusion"'
    texts = TEXTS.replace('"conclusion"', opening)
    curated = await curate("?", CHAIN, Answers(STEPS, NEEDS, texts), SETTINGS, Spent())
    assert "To find b, we take 4 twice" in curated.sequential
    assert "-We need" in curated.diff and "+We need" in curated.diff and 0 < curated.distance < 0.2
    kept = Settings(min_saving=1, rewrite_openings=False)
    llm = Answers(STEPS, NEEDS, texts)
    assert (await curate("?", CHAIN, llm, kept, Spent())).sequential == CHAIN
    assert "openings" not in json.dumps(llm.calls[2].messages[-1]) + json.dumps(llm.calls[2].schema)


class Gaps:
    """A scorer that says what it is told."""

    def __init__(self, gap: float) -> None:
        self.gap_of_all = gap
        self.asked: list[tuple[str, str, Sequence[str]]] = []

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float:
        self.asked.append((question, before, branches))
        return self.gap_of_all


@pytest.mark.parametrize(("gap", "blocks", "merged"), [(0.4, 1, 0), (0.6, 0, 1)])
async def test_blocks_whose_branches_lean_on_each_other_are_made_sequential(
    gap: float, blocks: int, merged: int
) -> None:
    scorer = Gaps(gap)
    llm = Answers(STEPS, NEEDS, TEXTS)
    curated = await curate("What?", CHAIN, llm, SETTINGS, Spent(), scorer)
    assert (curated.figures.structure.blocks, curated.merged, curated.gaps) == (blocks, merged, {"2-3": gap})
    assert scorer.asked == [
        ("What?", "We need a and b. ", ["For a we add 2 and 3, so a is 5. ", "For b we take 4 twice, so b is 8. "])
    ]
    assert curated.sequential == CHAIN


async def outcome(chain: str, llm: ScriptedLLM) -> bool:
    """Whether a row came out; if so, it is valid and restores its chain."""
    try:
        curated = await curate("?", chain, llm, SETTINGS, Spent())
    except RowRejectedError as rejected:
        assert rejected.stage and rejected.reason
        return False
    parse(curated.chain)
    assert flatten_text(curated.chain) == curated.sequential
    if not curated.diff:
        assert curated.sequential == chain
    return True


async def test_any_answers_give_a_valid_row_or_a_reason(shared: Path) -> None:
    with (shared / "data" / "eval" / "gsm8k_train.jsonl").open(encoding="utf-8") as lines:
        chains = [json.loads(line)["answer"] for line, _ in zip(lines, range(300), strict=False)]
    for share, least, most in ((0.0, 300, 300), (0.4, 100, 299), (1.0, 0, 30)):
        llm = ScriptedLLM(share, seed=int(10 * share))
        came_out = sum([await outcome(chain, llm) for chain in chains])
        assert least <= came_out <= most, (share, came_out)


async def test_any_text_as_a_chain() -> None:
    draw = random.Random(0)
    for _ in range(100):
        pieces = [
            draw.choice(["a. ", "\n", "$x$", "1.", "```", "é", "\t", "?\n\n", "B! ", "<", "{", "$"]) for _ in range(30)
        ]
        await outcome("".join(pieces), ScriptedLLM())
