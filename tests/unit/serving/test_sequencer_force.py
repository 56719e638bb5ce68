"""``force`` mode: the outlines are planned under a grammar, the engine opens the block."""

import re

import pytest

from multiverse.engine.segment import Sampling
from multiverse.serving.events import BlockForked
from multiverse.serving.sequencing.planning import parse_plan, plan_messages, plan_regex
from tests.unit.serving.sequencer_harness import run

PLAN = "1: the first part\n2: the other part"
GOAL = "<Parallel>\n<Goal>\n<Outline>\n1: the first part\n</Outline>\n<Outline>\n2: the other part\n</Outline>\n</Goal>"
FORCED = {"]": PLAN, "first part**:": " x y", "other part**:": " z", "<Conclusion>": "so it is"}


async def test_an_untrained_model_answers_in_one_block() -> None:
    done = await run(FORCED, mode="force", width=2, trained=False)
    assert done.text == (
        f"{GOAL}\n<Path>\n1: **the first part**: x y</Path>\n<Path>\n2: \n\n**the other part**: z</Path>"
        "\n<Conclusion>so it is\n</Conclusion>\n</Parallel>"
    )
    assert (done.result.finish, done.result.fallbacks) == ("stop", ())
    assert done.of(BlockForked) == [BlockForked((), 1, ("1: the first part", "2: the other part"))]


async def test_the_prefix_is_computed_once() -> None:
    done = await run(FORCED, mode="force", width=2, trained=False)
    plan, prefix, first, second, _ = done.engine.segments
    assert plan.sampling.regex is not None
    assert (prefix.prefill_only, done.codec.decode(prefix.tokens)) == (True, f"Q{GOAL}")
    assert first.sources == second.sources
    assert (first.sources[0].lease, first.sources[0].stop) == (prefix.lease, len(prefix.tokens))


async def test_the_plan_is_asked_with_the_question_and_without_tags() -> None:
    done = await run(FORCED, mode="force", width=2, trained=False)
    plan = done.engine.segments[0]
    assert "Task: What?\nList the parts of an answer, a few words each." in done.codec.decode(plan.tokens)
    assert done.masked(plan) == set(done.codec.vocabulary.tag_ids)


async def test_the_plan_ends_where_the_answer_may_not() -> None:
    done = await run(FORCED, mode="force", width=2, sampling=Sampling(max_tokens=400, ignore_eos=True))
    plan, _, *answer = done.engine.segments
    assert plan.sampling.ignore_eos is False
    assert {segment.sampling.ignore_eos for segment in answer} == {True}


async def test_an_untrained_models_conclusion_is_bounded() -> None:
    done = await run(FORCED | {"<Conclusion>": " w" * 300}, mode="force", width=2, trained=False)
    assert done.text.endswith(f"<Conclusion>{' w' * 64}\n</Conclusion>\n</Parallel>")
    assert done.result.finish == "stop"


async def test_an_untrained_model_may_close_its_conclusion_and_ends_there() -> None:
    done = await run(FORCED | {"<Conclusion>": " w</Conclusion> more"}, mode="force", width=2, trained=False)
    assert done.text.endswith("<Conclusion> w</Conclusion>\n</Parallel>")


async def test_a_trained_model_goes_on_behind_the_block() -> None:
    going_on = {"<Conclusion>": "so\n</Conclusion>\n</Parallel>\nThe end."}
    done = await run(FORCED | going_on, mode="force", width=2, trained=True)
    assert done.text.endswith("</Parallel>\nThe end.")


async def test_without_a_plan_the_answer_is_sequential() -> None:
    done = await run(FORCED | {"]": "no idea", "Q": "plain <Parallel>"}, mode="force", width=2)
    assert (done.text, done.result.fallbacks) == ("plain ", ("no_plan",))


async def test_without_room_for_the_block_the_answer_is_sequential() -> None:
    done = await run(FORCED | {"Q": "plain"}, mode="force", width=2, max_tokens=30)
    assert (done.text, done.result.fallbacks) == ("plain", ("no_room",))


def test_the_plans_shown_as_examples_have_the_form_asked_for() -> None:
    *turns, _ = plan_messages("What?")
    plans = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert len(plans) == 4
    assert all(re.fullmatch(plan_regex(None, 8), plan) for plan in plans)


@pytest.mark.parametrize("text", ["1: two words\n2: two words", "1: a b\n2: c d\n3: Über Größe, 3 + 4"])
def test_a_plan_of_free_width_matches(text: str) -> None:
    assert re.fullmatch(plan_regex(None, 3), text)


@pytest.mark.parametrize(
    "text",
    [
        "1: only one",
        "1: a b\n3: c d",
        "1: 1. 2.\n2: a b",
        "1: one\n2: two words",
        "1: a <b\n2: c d",
        "1: a b\n2: c d\n3: e f\n4: g h",
    ],
)
def test_a_plan_of_another_form_does_not_match(text: str) -> None:
    assert not re.fullmatch(plan_regex(None, 3), text)


def test_a_plan_of_given_width_has_that_many_lines() -> None:
    assert re.fullmatch(plan_regex(2, 8), "1: a b\n2: c d")
    assert not re.fullmatch(plan_regex(2, 8), "1: a b\n2: c d\n3: e f")


def test_of_a_plan_that_was_cut_the_last_line_is_left_out() -> None:
    outlines = parse_plan("1: a b\n2: c d\n3: e", complete=False, width=None)
    assert [outline.text for outline in outlines] == ["1: a b", "2: c d"]


def test_a_plan_with_too_few_lines_is_none() -> None:
    assert parse_plan("1: a b\n2: c d", complete=False, width=2) == ()
