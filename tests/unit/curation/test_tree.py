"""Rewrite mode's leaves, groups and skeletons."""

import json

import pytest

from multiverse.curation.chain.groups import Body, Span, group
from multiverse.curation.chain.plan import Step
from multiverse.curation.chain.replies import PlanError
from multiverse.curation.chain.sentences import Sentence
from multiverse.curation.chain.skeleton import marks, read_skeleton
from multiverse.curation.chain.tree import Leaf, groups_schema, leaves, read_groups, unseen
from tests.unit.curation.plans import block, untitled

SENTENCES = [Sentence(index, index + 1, "x") for index in range(8)]
STEPS = (
    Step("one", 1, 2),
    Step("two", 2, 6, (Step("left", 3, 4), Step("mid", 4, 5), Step("right", 5, 6))),
    Step("three", 6, 7),
    Step("four", 7, 8),
)
LEAVES = leaves(STEPS)
GROUPS = [["1", "2"], ["2.2", "2.3"]]
BODY: Body = (
    Span(0, 1),
    block((Span(1, 2),), (Span(2, 4), block((Span(4, 5),), (Span(5, 6),)))),
    Span(6, 8),
)
SKELETON = (
    "{0}\nLet's think in parallel.\n<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal>"
    "<Path>1: {1}</Path><Path>2: {2.0} {2.1}\n"
    "<Parallel><Goal><Outline>2.1: c</Outline><Outline>2.2: d</Outline></Goal>"
    "<Path>2.1: {2.2}</Path><Path>2.2: {2.3}</Path><Conclusion></Conclusion></Parallel></Path>"
    "<Conclusion></Conclusion></Parallel>\n{3}\n{4}"
)
PATHS = ["<Path>", "{2.2}", "</Path>", "<Path>", "{2.3}", "</Path>"]
FORM = ["{0}", "<Parallel>", "<Path>", "{1}", "</Path>", "<Path>", "{2.0}", "{2.1}"]
FORM += ["<Parallel>", *PATHS, "</Parallel>", "</Path>", "</Parallel>", "{3}", "{4}"]


def reply(*groups: list[str]) -> str:
    return json.dumps({"groups": groups})


def test_leaves_are_all_sentences_in_order() -> None:
    assert list(leaves(STEPS)) == [
        Leaf("0", "What comes first", 0, 1),
        Leaf("1", "one", 1, 2),
        Leaf("2.0", "two", 2, 3),
        Leaf("2.1", "left", 3, 4),
        Leaf("2.2", "mid", 4, 5),
        Leaf("2.3", "right", 5, 6),
        Leaf("3", "three", 6, 7),
        Leaf("4", "four", 7, 8),
    ]
    assert [leaf.label for leaf in leaves([Step("a", 0, 2, (Step("b", 0, 2),))])] == ["1.1"]


def test_groups_become_blocks() -> None:
    assert untitled(group(SENTENCES, STEPS, read_groups(reply(*GROUPS), STEPS))) == BODY
    assert group(SENTENCES, STEPS, read_groups(reply(), STEPS)) == (Span(0, 8),)
    whole = group(SENTENCES, STEPS, read_groups(reply(["1", "2", "3", "4"]), STEPS))
    assert untitled(whole) == (
        Span(0, 1),
        block((Span(1, 2),), (Span(2, 6),), (Span(6, 7),), (Span(7, 8),)),
    )


def test_neighbouring_groups_stay_apart() -> None:
    body = group(SENTENCES, STEPS, read_groups(reply(["1", "2"], ["3", "4"]), STEPS))
    assert untitled(body) == (
        Span(0, 1),
        block((Span(1, 2),), (Span(2, 6),)),
        block((Span(6, 7),), (Span(7, 8),)),
    )


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["1", "9"]], 'groups[0] has "9": must be one of 1, 2, 2.1, 2.2, 2.3, 3, 4'),
        ([["1", "3"]], 'groups[0] has "3" behind "1": must be steps of one level in a row'),
        ([["2", "1"]], 'groups[0] has "1" behind "2": must be steps of one level in a row'),
        ([["1", "2.1"]], 'groups[0] has "2.1" behind "1": must be steps of one level in a row'),
        ([["1", "1"]], 'groups[0] has "1": must be in one group, and once'),
        ([["1", "2"], ["2", "3"]], 'groups[1] has "2": must be in one group, and once'),
        ([["1"]], 'groups[0] is ["1"]: must have at least 2 items after validation, not 1'),
    ],
)
def test_refused_groups(groups: list[list[str]], message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_groups(reply(*groups), STEPS)
    assert str(refused.value) == message


def test_the_schema_of_groups_names_the_steps() -> None:
    groups = groups_schema(STEPS)["properties"]["groups"]
    assert groups["items"]["items"] == {"type": "string", "enum": ["1", "2", "2.1", "2.2", "2.3", "3", "4"]}
    assert (groups["maxItems"], groups["items"]["minItems"], groups["items"]["maxItems"]) == (3, 2, 7)


def test_a_branch_sees_no_leaf_of_its_siblings() -> None:
    assert unseen(BODY, LEAVES) == {
        "0": [],
        "1": ["2.0", "2.1", "2.2", "2.3"],
        "2.0": ["1"],
        "2.1": ["1"],
        "2.2": ["1", "2.3"],
        "2.3": ["1", "2.2"],
        "3": [],
        "4": [],
    }


def test_a_skeleton() -> None:
    assert marks(BODY, LEAVES) == FORM
    read_skeleton(SKELETON, FORM)
    read_skeleton(f"```xml\n{SKELETON}\n```", FORM)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{2.1}", "", "behind {2.0} must stand {2.1}, not <Parallel>"),
        ("{2.1}", "{2.1} {2.1}", "behind {2.1} must stand <Parallel>, not {2.1}"),
        ("{0}", "", "at the beginning must stand {0}, not <Parallel>"),
        ("{3}\n{4}", "{4}\n{3}", "behind </Parallel> must stand {3}, not {4}"),
        ("{4}", "", "behind {3} must stand {4}, not the end"),
        ("{4}", "{4} {5}", "behind {4} must stand the end, not {5}"),
        ("1: {1}", "1: {2.0}", "behind <Path> must stand {1}, not {2.0}"),
        ("{4}", "Done: {4}", 'only placeholders may stand outside of tags, not "Done:"'),
        ("{0}", "<Think>{0}</Think>", "at the beginning must stand {0}, not <Think>"),
        ("1: a<", "1: <", "outline 1 is empty"),
        ("2.2: ", "2: ", "outline 2 must have the number 2.2"),
        (
            "</Goal>",
            "",
            "line 3, column 63: rule goal-closed: a <Goal> may hold <Outline> only, and must be closed by </Goal>; "
            "found '<Path>'",
        ),
    ],
)
def test_refused_skeletons(old: str, new: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_skeleton(SKELETON.replace(old, new), FORM)
    assert str(refused.value) == message
