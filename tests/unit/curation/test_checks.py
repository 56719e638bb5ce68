"""What is found wrong with structured chains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curation.checks.distance import edit_distance, normalized_distance
from multiverse.curation.checks.figures import RowFigures, row_figures
from multiverse.curation.checks.findings import Finding, check_content, check_grammar, check_numbering, check_outlines
from multiverse.structure.figures import Figures
from multiverse.structure.grammar import parse


def block(outlines: list[str], paths: list[str], parent: str = "", conclusion: str = "Done.") -> str:
    goal = "".join(f"<Outline>{parent}{place}: {text}</Outline>" for place, text in enumerate(outlines, 1))
    body = "".join(f"<Path>{parent}{place}: {text}</Path>" for place, text in enumerate(paths, 1))
    return f"<Parallel><Goal>{goal}</Goal>{body}<Conclusion>{conclusion}</Conclusion></Parallel>"


def test_grammar() -> None:
    assert check_grammar(block(["a", "b"], ["c", "d"])) == []
    assert check_grammar("a</Path>") == [
        Finding(
            "grammar",
            "line 1, column 2: rule placement: this tag may not stand in text; found '</Path>'",
        )
    ]


def test_numbering_of_inner_blocks() -> None:
    inner = block(["c", "d"], ["e", "f"])
    assert check_numbering(parse(block(["a", "b"], ["x", inner]))) == [
        Finding("numbering", "outline 1 must have the number 2.1"),
        Finding("numbering", "outline 2 must have the number 2.2"),
    ]
    assert check_numbering(parse(f"<Think>{block(['a', 'b'], ['x', block(['c'], ['e'], '2.')])}</Think>")) == []


def test_empty_outlines_and_paths() -> None:
    assert check_numbering(parse(block(["a", " "], ["\n", "x"]))) == [
        Finding("numbering", "path 1 is empty"),
        Finding("numbering", "outline 2 is empty"),
    ]


@pytest.mark.parametrize(
    ("question", "text", "leaks"),
    [
        ("Q", block(["Compute the sum, 12.", "b"], ["5 + 7 = 12.", "x"]), [("1", "12")]),
        ("What is 12 less 5?", block(["Take 12.", "b"], ["12 - 5 = 7.", "x"]), []),
        ("Q", "There are 12. " + block(["Take 12.", "b"], ["12 - 5 = 7.", "x"]), []),
        ("Q", block(["Take 12.", "b"], ["Take it.", "12"]), []),
        ("Q 1,200 and 0.50", block(["Take 1200.00 and .5", "b"], ["1200, 0.5", "x"]), []),
        ("Q", block(["Find 1,200", "b"], ["1200.0", "x"]), [("1", "1200")]),
        ("Q", block(["Expand x^2 and a_1", "b"], ["x^2 + a_1", "x"]), []),
        ("Q", block(["Show $y = 2a$ holds", "b"], ["So $y = 2 a$.", "x"]), [("1", "2")]),
        ("Q: 2", block(["Show $y = 2a$ holds", "b"], ["So $y = 2 a$.", "x"]), [("1", "2a")]),
        ("Q: $y = 2a$", block(["Show $y = 2a$ holds", "b"], ["So $y = 2 a$.", "x"]), []),
        ("Q", block(["a", "b"], ["7", "x"]) + block(["Take 7", "b"], ["7 + 1", "x"]), []),
        ("Q", block(["a", "b"], ["7", block(["Take 7", "d"], ["7", "x"], "2.")]), [("2.1", "7")]),
        ("Q", block(["a", "b"], ["x", "Take 7. " + block(["Use 7", "d"], ["7", "x"], "2.")]), []),
    ],
)
def test_outlines_that_give_results_away(question: str, text: str, leaks: list[tuple[str, str]]) -> None:
    assert check_outlines(parse(text), question) == [
        Finding("outline-leak", f"outline {number} gives away {leak!r}, a result of its branch")
        for number, leak in leaks
    ]


def test_content() -> None:
    assert check_content([("one two\nthree", "one two three"), ("a" * 10, "a" * 8)]) == []
    assert check_content([("a" * 90, "a" * 90), ("a" * 10, "a" * 7)]) == [
        Finding("content", "step 2 differs from its source by 0.30: must be at most 0.2")
    ]
    assert [found.message for found in check_content([("abc", "xyz")])] == [
        "step 1 differs from its source by 1.00: must be at most 0.2",
        "the whole chain differs from its source by 1.00: must be at most 0.2",
    ]


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("a" * 100, "b" * 70, 100)],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_normalized_distance() -> None:
    assert (normalized_distance("", ""), normalized_distance("ab", "ax"), normalized_distance("", "a")) == (0, 0.5, 1)


_AB = st.text(alphabet="abc", max_size=12)


@given(_AB, _AB)
def test_edit_distance_is_that_of_the_table(one: str, other: str) -> None:
    row = list(range(len(other) + 1))
    for index, character in enumerate(one, start=1):
        above, row = row, [index]
        for at, against in enumerate(other):
            row.append(min(above[at + 1] + 1, row[at] + 1, above[at] + (character != against)))
    assert edit_distance(one, other) == row[-1]


def test_figures_of_a_row() -> None:
    text = "<Parallel><Goal><Outline>1:</Outline></Goal><Path>1: a b</Path><Conclusion></Conclusion></Parallel>"
    structure = Figures(blocks=1, widths=(1,), depth=1, tokens=16, critical_path=16, parallelism=1.0)
    assert row_figures(text) == RowFigures(structure, chain_tokens=3, shortening=3 / 16)
    assert row_figures("").shortening == 1.0
