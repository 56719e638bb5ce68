"""The strict grammar: what it takes, what it gives back, and how it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.structure.grammar import Block, Document, GrammarError, Outline, Path, Text, Think, parse, render
from multiverse.structure.tags import TAGS

HEAD = "<Parallel><Goal><Outline>1: x</Outline><Outline>2: y</Outline></Goal>"
END = "<Conclusion>c</Conclusion></Parallel>"
ONE = "<Parallel><Goal><Outline>{0}:</Outline></Goal><Path>{0}:{1}</Path><Conclusion></Conclusion></Parallel>"


def test_nodes_of_a_document() -> None:
    text = (
        "A\n<Think>B<Parallel> <Goal>\n<Outline>\n1: x\n</Outline>\t</Goal>\n<Path>\n1: p\n</Path>  "
        "<Conclusion>\nc\n</Conclusion>\n\n</Parallel></Think>D"
    )
    block = Block(
        outlines=(Outline("\n", "1", "\n1: x\n"),),
        paths=(Path("\n", "\n1:", (Text(" p\n"),)),),
        conclusion="\nc\n",
        spaces=(" ", "\t", "  ", "\n\n"),
    )
    assert parse(text) == Document((Text("A\n"), Think((Text("B"), block)), Text("D")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain < text > with <path> and </Pathe> &amp;\r\n",
        "<Think></Think>",
        "before<Think>inside</Think>after",
        f"{HEAD}<Path>1:</Path><Path>2:</Path>{END}",
        f" {HEAD}\n\n<Path>\n 1: a\n</Path>\t<Path>2:b</Path> {END}\n",
        ONE.format("1", ONE.format("1.1", "")),
        ONE.format("1", ONE.format("1.1", ONE.format("1.1.1", "deep"))),
        ONE.format("1", ONE.format("1", "")),
        ONE.format("1", "a") + ONE.format("1", "b"),
        f"<Think>{ONE.format('1', 'a')}</Think>{ONE.format('1', 'b')}",
    ],
)
def test_a_document_is_rendered_to_its_own_text(text: str) -> None:
    assert render(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n</Path>", "line 2, column 1: rule placement: this tag may not stand in text; found '</Path>'"),
        ("a </Think>", "line 1, column 3: rule placement: this tag may not stand in text; found '</Think>'"),
        ("<Goal>", "line 1, column 1: rule placement: this tag may not stand in text; found '<Goal>'"),
        (
            "<Think>a</Think>\n<Think>",
            "line 2, column 1: rule one-think: there may be one <Think> only; found '<Think>'",
        ),
        (
            "<Think>\na",
            "line 2, column 2: rule think-closed: <Think> must be closed by </Think> here; found 'the end'",
        ),
        (
            "<Think><Think>",
            "line 1, column 8: rule think-closed: <Think> must be closed by </Think> here; found '<Think>'",
        ),
        (
            "<Parallel>\n x<Goal>",
            "line 2, column 2: rule white-space: only white space may stand between <Parallel> and <Goal>; "
            "found 'x<Goal>'",
        ),
        (
            "<Parallel>\n<Path>",
            "line 2, column 1: rule goal-first: a block must begin with its <Goal>; found '<Path>'",
        ),
        (
            "<Parallel>\n<Goal>\n</Goal>",
            "line 3, column 1: rule outline-count: a <Goal> must have at least one <Outline>; found '</Goal>'",
        ),
        (
            "<Parallel><Goal><Path>",
            "line 1, column 17: rule goal-closed: a <Goal> may hold <Outline> only, and must be closed by </Goal>; "
            "found '<Path>'",
        ),
        (
            "<Parallel><Goal><Outline>x</Outline>",
            "line 1, column 26: rule outline-number: an outline must begin with its number and a colon; "
            "found 'x</Outline>'",
        ),
        (
            "<Parallel><Goal><Outline>2: x</Outline>",
            "line 1, column 26: rule outline-number: this outline's number must be 1; found '2: x</Outline>'",
        ),
        (
            "<Parallel><Goal><Outline>\n\n x</Outline>",
            "line 3, column 2: rule outline-number: an outline must begin with its number and a colon; "
            "found 'x</Outline>'",
        ),
        (
            f"{HEAD}<Path>\n  2: b</Path>",
            "line 2, column 3: rule path-number: this path must begin with its outline's number '1:'; "
            "found '2: b</Path>'",
        ),
        (
            "<Parallel><Goal><Outline>1: x<Path>",
            "line 1, column 30: rule outline-closed: an <Outline> may hold text only, then </Outline>; found '<Path>'",
        ),
        (
            f"{HEAD}\n<Path>2: b</Path>",
            "line 2, column 7: rule path-number: this path must begin with its outline's number '1:'; "
            "found '2: b</Path>'",
        ),
        (
            f"{HEAD}\n<Path>1: a</Path>\n<Conclusion>",
            "line 3, column 1: rule path-count: 2 outlines but 1 path; found '<Conclusion>'",
        ),
        (
            f"{HEAD}\n<Path>1:</Path><Path>2:</Path>\n<Path>3:</Path>",
            "line 3, column 1: rule path-count: 2 outlines but one more path; found '<Path>'",
        ),
        (
            f"{HEAD}<Path>1: a\n<Conclusion>",
            "line 2, column 1: rule path-closed: a <Path> must be closed by </Path> here; found '<Conclusion>'",
        ),
        (
            f"{HEAD}<Path>1: a\n<Think>",
            "line 2, column 1: rule path-closed: a <Path> must be closed by </Path> here; found '<Think>'",
        ),
        (
            f"{HEAD}<Path>1:</Path>\n x",
            "line 2, column 2: rule white-space: only white space may stand between paths; found 'x'",
        ),
        (
            f"{HEAD}<Path>1:</Path><Path>2:</Path>\n</Parallel>",
            "line 2, column 1: rule conclusion: a <Conclusion> must stand behind the last <Path>; found '</Parallel>'",
        ),
        (
            f"{HEAD}<Path>1:</Path><Path>2:</Path>\n<Conclusion><Parallel>",
            "line 2, column 13: rule conclusion-closed: a <Conclusion> may hold text only, then </Conclusion>; "
            "found '<Parallel>'",
        ),
        (
            f"{HEAD}<Path>1:</Path><Path>2:</Path>\n<Conclusion></Conclusion><Conclusion>",
            "line 2, column 26: rule block-closed: a block must end with </Parallel> behind its <Conclusion>; "
            "found '<Conclusion>'",
        ),
    ],
)
def test_refusals_say_which_rule_where_and_what_was_found(text: str, message: str) -> None:
    with pytest.raises(GrammarError) as refused:
        parse(text)
    assert str(refused.value) == message


def test_a_refusal_has_its_parts_apart() -> None:
    with pytest.raises(GrammarError) as refused:
        parse("ä\nb</Goal>")
    error = refused.value
    assert (error.rule, error.line, error.column, error.found) == ("placement", 2, 2, "</Goal>")


def test_a_nested_outline_is_numbered_below_its_path() -> None:
    with pytest.raises(
        GrammarError, match=r"rule outline-number: this outline's number must be 1\.1 or 1; found '2\.1:"
    ):
        parse(ONE.format("1", ONE.format("2.1", "")))


def test_a_nested_path_begins_with_the_number_as_its_outline_has_it() -> None:
    inner = ONE.format("1.1", "").replace("<Path>1.1:", "<Path>1:")
    with pytest.raises(GrammarError, match=r"rule path-number: .*number '1\.1:'"):
        parse(ONE.format("1", inner))


def test_blocks_nest_64_deep() -> None:
    text = ""
    for _ in range(64):
        text = ONE.format("1", text)
    assert render(parse(text)) == text
    with pytest.raises(GrammarError, match="rule depth: blocks may nest 64 deep; found '<Parallel>'"):
        parse(ONE.format("1", text))


def test_blocks_behind_each_other_do_not_nest() -> None:
    text = ONE.format("1", "a") * 65
    assert render(parse(text)) == text


def test_text_that_opens_blocks_without_end_is_refused() -> None:
    with pytest.raises(GrammarError, match="rule depth"):
        parse("<Parallel><Goal><Outline>1:</Outline></Goal><Path>1:" * 5_000)


_TEXT = st.text(alphabet="ab1:. \n<>", max_size=6)
_SPACE = st.sampled_from(["", " ", "\n", "\n\t"])


@st.composite
def _block(draw: st.DrawFn, parent: str, depth: int) -> str:
    numbers = [f"{parent}{number}" for number in range(1, draw(st.integers(1, 3)) + 1)]
    outlines = "".join(f"{draw(_SPACE)}<Outline>{draw(_SPACE)}{n}:{draw(_TEXT)}</Outline>" for n in numbers)
    paths = "".join(f"{draw(_SPACE)}<Path>{draw(_SPACE)}{n}:{draw(_body(f'{n}.', depth - 1))}</Path>" for n in numbers)
    conclusion = f"{draw(_SPACE)}<Conclusion>{draw(_TEXT)}</Conclusion>{draw(_SPACE)}"
    return f"<Parallel>{draw(_SPACE)}<Goal>{outlines}{draw(_SPACE)}</Goal>{paths}{conclusion}</Parallel>"


@st.composite
def _body(draw: st.DrawFn, parent: str, depth: int) -> str:
    blocks = draw(st.integers(0, 2)) if depth else 0
    return "".join(draw(_TEXT) + draw(_block(parent, depth)) for _ in range(blocks)) + draw(_TEXT)


@given(_body("", 2))
def test_every_document_is_rendered_to_its_own_text(text: str) -> None:
    assert render(parse(text)) == text


@given(st.lists(st.sampled_from([*TAGS, "1:", " ", "a"]), max_size=12).map("".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert render(parse(text)) == text
    except GrammarError as error:
        assert text.split("\n")[error.line - 1][error.column - 1 :].startswith(error.found) or error.found == "the end"
