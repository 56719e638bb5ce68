"""The answers of a language model, read strictly."""

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.curation.chain.plan import (
    BlockTexts,
    Dependencies,
    Links,
    Opening,
    PlanError,
    Step,
    dependencies_schema,
    read_dependencies,
    read_steps,
    read_texts,
    steps_schema,
    texts_schema,
)
from tests.unit.curation.plans import random_replies

PARTS = (Step("a", 0, 3, (Step("x", 1, 2), Step("y", 2, 3))), Step("b", 3, 4))
BRANCHES = [["We add. ", "Similarly, we take it."]]


def steps(*items: dict[str, Any]) -> str:
    return json.dumps({"steps": items})


def step(first: int, last: int, title: str = "t", **more: Any) -> dict[str, Any]:
    return {"title": title, "first": first, "last": last, **more}


def texts(outlines: list[str], conclusion: str = "Done.", **more: Any) -> str:
    return json.dumps({"blocks": [{"outlines": outlines, "conclusion": conclusion, **more}]})


def opening(original: str, rewrite: str = "Then", branch: int = 2) -> str:
    return texts(["a", "b"], openings=[{"branch": branch, "original": original, "rewrite": rewrite}])


def test_steps_are_ranges_of_sentences() -> None:
    reply = steps(step(1, 2, " one "), step(3, 3, "two", sub_steps=[]))
    assert read_steps(reply, 3) == (Step("one", 0, 2), Step("two", 2, 3))


def test_a_sentence_that_is_not_covered_joins_the_step_before() -> None:
    assert read_steps(steps(step(2, 2), step(5, 5)), 7) == (Step("t", 1, 4), Step("t", 4, 7))


def test_sub_steps_reach_to_the_end_of_their_step() -> None:
    reply = steps(step(1, 4, sub_steps=[step(2, 2, "x"), step(4, 4, "y")]), step(6, 6, "b"))
    assert read_steps(reply, 6) == (Step("t", 0, 5, (Step("x", 1, 3), Step("y", 3, 5))), Step("b", 5, 6))


def test_an_answer_may_stand_in_a_code_block() -> None:
    assert read_steps(f"```json\n{steps(step(1, 1))}\n```\n", 1) == (Step("t", 0, 1),)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "the reply is no JSON: EOF while parsing a value at line 1 column 0"),
        ('{"steps": [{"ti', "the reply is no JSON: EOF while parsing a string at line 1 column 15"),
        ("[1]", "the reply must be a JSON object, not [1]"),
        ("{}", "steps is missing"),
        (steps(), "steps is []: must have at least 1 item after validation, not 0"),
        (steps({"title": "t", "first": 1}), "steps[0].last is missing"),
        (steps(step(1, 1, more=2)), "steps[0].more is not a known field (its value is 2); leave it out"),
        (steps({"title": "t", "first": "1", "last": 1}), 'steps[0].first is "1": must be a valid integer'),
        (steps(step(0, 1)), "steps[0].first is 0: must be greater than or equal to 1"),
        (steps(step(1, 1, " ")), 'steps[0].title is " ": must have at least 1 character'),
        (steps(step(1, 1, "a\nb")), 'steps[0].title is "a\\nb": must be one line'),
        (steps(step(1, 1, "a</Path>")), 'steps[0].title is "a</Path>": must not hold the tag </Path>'),
        (steps(step(2, 1)), "steps[0].last is 1: must be at least its first, 2"),
        (steps(step(1, 5)), "steps[0].last is 5: must be at most 4, where the text ends"),
        (steps(step(1, 2), step(2, 3)), "steps[1].first is 2: must be at least 3, behind the end of steps[0]"),
        (steps(step(3, 4), step(1, 2)), "steps[1].first is 1: must be at least 5, behind the end of steps[0]"),
        (
            steps(step(2, 3, sub_steps=[step(1, 2)])),
            "steps[0].sub_steps[0].first is 1: must be at least 2, where the text begins",
        ),
        (
            steps(step(2, 3, sub_steps=[step(2, 4)])),
            "steps[0].sub_steps[0].last is 4: must be at most 3, where the text ends",
        ),
        (
            steps(step(1, 3, sub_steps=[step(1, 2), step(2, 3)])),
            "steps[0].sub_steps[1].first is 2: must be at least 3, behind the end of steps[0].sub_steps[0]",
        ),
    ],
)
def test_refused_steps(reply: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_steps(reply, 4)
    assert str(refused.value) == message


def needs(alternatives: list[list[str]] | None = None, /, **found: list[int]) -> str:
    """``s1_2``: the second sub-step of the first step."""
    named = {name.removeprefix("s").replace("_", "."): numbers for name, numbers in found.items()}
    return json.dumps({"needs": named, **({} if alternatives is None else {"alternatives": alternatives})})


def test_dependencies_are_numbered_from_zero_inside() -> None:
    reply = needs([["1.2", "1.1"]], s1=[], s1_1=[], s1_2=[], s2=[1, 1])
    assert read_dependencies(reply, PARTS) == Dependencies(
        Links((frozenset(), frozenset({0})), (frozenset(), frozenset())),
        (Links((frozenset(), frozenset()), (frozenset(), frozenset({0}))), Links((), ())),
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (needs(s1=[]), "needs.2 is missing: every step and sub-step must be there, if only with []"),
        (needs(s1=[], s2=[], s3=[]), 'needs has "3": must be one of 1, 2'),
        (needs(s1=[], s2=[], s2_1=[]), 'needs has "2.1": must be one of 1, 2'),
        (needs(s1=[1], s2=[]), "needs.1 has 1: must name earlier ones of its level only, below 1"),
        (needs(s1=[], s2=[3]), "needs.2 has 3: must name earlier ones of its level only, below 2"),
        (needs(s1=[], s2=[0]), "needs.2[0] is 0: must be greater than or equal to 1"),
        (needs([["1", "3"]], s1=[], s2=[]), 'alternatives[0] has "3": must be one of 1, 2'),
        (needs([["1"]], s1=[], s2=[]), 'alternatives[0] is ["1"]: must have at least 2 items after validation, not 1'),
    ],
)
def test_refused_dependencies(reply: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_dependencies(reply, [Step("a", 0, 3), Step("b", 3, 4)])
    assert str(refused.value) == message


def test_steps_with_parts_need_the_links_of_their_parts() -> None:
    with pytest.raises(PlanError, match=r"^needs\.1\.1 is missing: "):
        read_dependencies(needs(s1=[], s2=[]), PARTS)


def test_alternatives_are_of_one_level() -> None:
    with pytest.raises(PlanError, match=r'^alternatives\[0\] is \["1\.1", "2"\]: must be of one level and one step$'):
        read_dependencies(needs([["1.1", "2"]], s1=[], s1_1=[], s1_2=[], s2=[]), PARTS)


def test_texts_of_a_block() -> None:
    reply = opening("Similarly,", "For the rest,")
    assert read_texts(reply, BRANCHES) == (
        BlockTexts(("a", "b"), "Done.", (None, Opening("Similarly,", "For the rest,"))),
    )


def test_no_blocks_need_no_texts() -> None:
    assert read_texts('{"blocks": []}', []) == ()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"blocks": []}', "blocks has 0 items: must have 1, one per block"),
        (texts(["a", "b", "c"]), "blocks[0].outlines has 3 items: must have 2, one per branch"),
        (texts(["a", "a"]), 'blocks[0].outlines[1] is "a": must differ from those before it'),
        (
            texts(["1: a", "b"]),
            'blocks[0].outlines[0] is "1: a": must not begin with a number: numbers are written by code',
        ),
        (texts(["a\nc", "b"]), 'blocks[0].outlines[0] is "a\\nc": must be one line'),
        (texts(["a", "b"], ""), 'blocks[0].conclusion is "": must have at least 1 character'),
        (texts(["a", "b"], "a <Goal>"), 'blocks[0].conclusion is "a <Goal>": must not hold the tag <Goal>'),
        (
            opening("Next,"),
            'blocks[0].openings[0].original is "Next,": must be how the branch begins, "Similarly, we take it."',
        ),
        (opening("Simil"), 'blocks[0].openings[0].original is "Simil": must end where a word ends'),
        (opening("Similarly", "a b c d e f g h i"), "blocks[0].openings[0].rewrite is"),
        (opening("Similarly,", branch=3), "blocks[0].openings[0].branch is 3: must be at most 2"),
    ],
)
def test_refused_texts(reply: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_texts(reply, BRANCHES)
    assert str(refused.value).startswith(message)


def test_schemas_know_the_number_of_sentences_and_the_fields() -> None:
    schema = steps_schema(7)
    last = schema["$defs"]["SubStepReply"]["properties"]["last"]
    assert (last["minimum"], last["maximum"], schema["additionalProperties"]) == (1, 7, False)
    assert set(schema["$defs"]["StepReply"]["required"]) == {"title", "first", "last"}
    needs = dependencies_schema(PARTS)["properties"]["needs"]
    assert needs["required"] == list(needs["properties"]) == ["1", "1.1", "1.2", "2"]
    schema = texts_schema([["a", "b"], ["c", "d", "e"]])
    assert (schema["properties"]["blocks"]["minItems"], schema["properties"]["blocks"]["maxItems"]) == (2, 2)
    block = schema["$defs"]["BlockReply"]
    assert (block["properties"]["outlines"]["minItems"], block["properties"]["outlines"]["maxItems"]) == (2, 3)
    assert set(block["required"]) == {"outlines", "conclusion"}


_NUMBERS = st.integers(-2, 12) | st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none()
_JSON = st.recursive(_NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
_FIELDS = ["steps", "title", "first", "last", "sub_steps", "needs", "alternatives", "1", "1.1", "1.2", "2"]
_FIELDS += ["blocks", "outlines", "conclusion", "openings", "branch", "original", "rewrite"]
_LIKE_PLANS = st.recursive(
    _NUMBERS | st.lists(_NUMBERS, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.text() | _JSON.map(json.dumps) | _LIKE_PLANS.map(json.dumps))
def test_any_answer_is_a_plan_or_refused(reply: str) -> None:
    for read in (
        lambda: read_steps(reply, 4),
        lambda: read_dependencies(reply, PARTS),
        lambda: read_texts(reply, BRANCHES),
    ):
        try:
            read()
        except PlanError as error:
            assert str(error)


@pytest.mark.parametrize(
    "reply", ["[" * 100_000, '{"steps":' * 10_000, "\ud800", '{"steps": 1e999}', f'{{"steps": {"9" * 5_000}}}']
)
def test_hostile_answers_are_refused(reply: str) -> None:
    with pytest.raises(PlanError):
        read_steps(reply, 4)


def _damaged(draw: random.Random, reply: str) -> str:
    """A valid answer with some characters changed, left out or doubled."""
    characters = list(reply)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(characters))
        characters[at : at + 1] = draw.choice([[], ["0"], ["9"], ["]"], [characters[at]] * 2, ["<Path>"]])
    return "".join(characters)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_damaged_answers_are_plans_or_refused(draw: random.Random, sentences: int) -> None:
    reply, dependencies = random_replies(draw, sentences)
    try:
        found = read_steps(_damaged(draw, reply), sentences)
        read_dependencies(_damaged(draw, dependencies), found)
    except PlanError:
        return
    assert found[-1].end == sentences
    assert all(step.begin < step.end for step in found)
    assert all(one.end == other.begin for one, other in pairwise(found))
