"""The answers of a language model, read strictly."""

import json
import random
import re
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
    Step,
    read_dependencies,
    read_steps,
    read_texts,
)
from multiverse.curation.chain.replies import PlanError
from multiverse.curation.chain.schemas import dependencies_schema, steps_schema, texts_schema
from tests.unit.curation.plans import random_replies

PARTS = (Step("a", 0, 3, (Step("x", 1, 2), Step("y", 2, 3))), Step("b", 3, 4))
BRANCHES = [["We add. ", "Similarly, we take it."]]


def steps(found: dict[int, str], parts: dict[int, str] | None = None) -> str:
    return json.dumps({"steps": found} | ({} if parts is None else {"sub_steps": parts}))


def texts(outlines: list[str], conclusion: str = "Done.", **more: Any) -> str:
    return json.dumps({"blocks": {"1": {"outlines": outlines, "conclusion": conclusion, **more}}})


def opening(original: str, rewrite: str = "Then", branch: int = 2) -> str:
    return texts(["a", "b"], openings=[{"branch": branch, "original": original, "rewrite": rewrite}])


def test_a_step_reaches_to_where_the_next_begins() -> None:
    assert read_steps(steps({1: " one ", 3: "two"}), 3) == (Step("one", 0, 2), Step("two", 2, 3))


def test_the_order_of_the_answer_is_of_no_consequence() -> None:
    assert read_steps(steps({3: "two", 1: "one"}, {}), 3) == (Step("one", 0, 2), Step("two", 2, 3))


def test_sentences_before_the_first_step_stay_outside() -> None:
    assert read_steps(steps({2: "t", 5: "t"}), 7) == (Step("t", 1, 4), Step("t", 4, 7))


def test_sub_steps_reach_to_the_next_one_or_the_end_of_their_step() -> None:
    reply = steps({1: "a", 6: "b", 7: "c"}, {2: "x", 4: "y", 7: "z"})
    parts = (Step("x", 1, 3), Step("y", 3, 5))
    assert read_steps(reply, 8) == (Step("a", 0, 5, parts), Step("b", 5, 6), Step("c", 6, 8, (Step("z", 6, 8),)))


@pytest.mark.parametrize(
    "form",
    [
        "```json\n{}\n```\n",
        "```JSON\n{}\n```",
        "  ```\n{}\n  ```",
        "Here it is:\n\n```json\n{}\n```\nThat is all.",
        "\ufeff{}",
    ],
)
def test_an_answer_may_stand_in_a_code_block(form: str) -> None:
    assert read_steps(form.replace("{}", steps({1: "t"})), 1) == (Step("t", 0, 1),)


def test_of_two_code_blocks_none_is_chosen() -> None:
    block = f"```json\n{steps({1: 't'})}\n```\n"
    with pytest.raises(PlanError, match="the reply is no JSON"):
        read_steps(f"{block}or\n{block}", 1)


def test_null_is_as_good_as_left_out() -> None:
    assert read_steps('{"steps": {"1": "t"}, "sub_steps": null}', 1) == (Step("t", 0, 1),)
    (block,) = read_texts(texts(["a", "b"], openings=None), BRANCHES)
    assert block == BlockTexts(("a", "b"), "Done.", (None, None))
    with pytest.raises(PlanError, match=r"^steps is missing$"):
        read_steps('{"steps": null}', 1)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "the reply is no JSON: EOF while parsing a value at line 1 column 0"),
        ('{"steps": {"ti', "the reply is no JSON: EOF while parsing a string at line 1 column 14"),
        ("[1]", "the reply must be a JSON object, not [1]"),
        ("{}", "steps is missing"),
        (steps({}), "steps is {}: must have at least 1 item after validation, not 0"),
        ('{"steps": {"1": "a"}, "more": 2}', "more is not a known field (its value is 2); leave it out"),
        ('{"steps": ["a"]}', 'steps is ["a"]: must be a valid dictionary'),
        ('{"steps": {"1": 2}}', "steps.1 is 2: must be a valid string"),
        (steps({1: " "}), 'steps.1 is " ": must have at least 1 character'),
        (steps({1: "a\nb"}), 'steps.1 is "a\\nb": must be one line'),
        (steps({1: "a</Path>"}), 'steps.1 is "a</Path>": must not hold the tag </Path>'),
        (steps({0: "a"}), 'steps has "0": must be a sentence\'s number, 1 to 4'),
        (steps({1: "a", 5: "b"}), 'steps has "5": must be a sentence\'s number, 1 to 4'),
        ('{"steps": {"01": "a"}}', 'steps has "01": must be a sentence\'s number, 1 to 4'),
        ('{"steps": {"²": "a"}}', 'steps has "²": must be a sentence\'s number, 1 to 4'),
        (f'{{"steps": {{"{"9" * 5000}": "a"}}}}', 'steps has "9'),
        (steps({1: "a"}, {9: "b"}), 'sub_steps has "9": must be a sentence\'s number, 1 to 4'),
        (steps({3: "a"}, {2: "b"}), "sub_steps has 2: must lie in a step, the first begins with 3"),
    ],
)
def test_refused_steps(reply: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_steps(reply, 4)
    assert str(refused.value).startswith(message)


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
    assert read_texts('{"blocks": {}}', []) == ()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"blocks": {}}', "blocks has none: must have 1; see 1"),
        ('{"blocks": {"2": {"outlines": ["a", "b"], "conclusion": "c"}}}', "blocks has 2: must have 1; see 1"),
        (texts(["a", "b", "c"]), "blocks.1.outlines has 3 items: must have 2, one per branch"),
        (texts(["a", "a"]), 'blocks.1.outlines[1] is "a": must differ from those before it'),
        (
            texts(["1: a", "b"]),
            'blocks.1.outlines[0] is "1: a": must not begin with a number: numbers are written by code',
        ),
        (texts(["a\nc", "b"]), 'blocks.1.outlines[0] is "a\\nc": must be one line'),
        (texts(["a", "b"], ""), 'blocks.1.conclusion is "": must have at least 1 character'),
        (texts(["a", "b"], "a <Goal>"), 'blocks.1.conclusion is "a <Goal>": must not hold the tag <Goal>'),
        (
            opening("Next,"),
            'blocks.1.openings[0].original is "Next,": must be how the branch begins, "Similarly, we take it."',
        ),
        (opening("Simil"), 'blocks.1.openings[0].original is "Simil": must end where a word ends'),
        (opening("Similarly", "a b c d e f g h i"), "blocks.1.openings[0].rewrite is"),
        (opening("Similarly,", branch=3), "blocks.1.openings[0].branch is 3: must be at most 2"),
    ],
)
def test_refused_texts(reply: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_texts(reply, BRANCHES)
    assert str(refused.value).startswith(message)


def test_schemas_know_the_number_of_sentences_and_the_fields() -> None:
    schema = steps_schema(7)
    for name in ("steps", "sub_steps"):
        level = schema["properties"][name]
        assert list(level["properties"]) == [str(number) for number in range(1, 8)]
        assert level["additionalProperties"] is False
    assert schema["additionalProperties"] is False
    (pattern,) = steps_schema(1_500)["properties"]["steps"]["patternProperties"]
    assert [bool(re.search(pattern, key)) for key in ("1", "1500", "0", "12345", "x1")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    needs = dependencies_schema(PARTS)["properties"]["needs"]
    assert needs["required"] == list(needs["properties"]) == ["1", "1.1", "1.2", "2"]
    assert needs["properties"]["2"] == {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 1},
        "maxItems": 1,
    }
    blocks = texts_schema([["a", "b"], ["c", "d", "e"]])["properties"]["blocks"]
    assert blocks["required"] == ["1", "2"]
    outlines = blocks["properties"]["2"]["properties"]["outlines"]
    assert (outlines["minItems"], outlines["maxItems"]) == (3, 3)
    assert set(blocks["properties"]["2"]["required"]) == {"outlines", "conclusion"}


_NUMBERS = st.integers(-2, 12) | st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none()
_JSON = st.recursive(_NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
_FIELDS = ["steps", "sub_steps", "needs", "alternatives", "1", "1.1", "1.2", "2"]
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
