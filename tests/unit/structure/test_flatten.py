"""The sequential chain inside a structured one."""

import pytest

from multiverse.structure.flatten import flatten, flatten_text
from multiverse.structure.grammar import GrammarError, parse

GOAL = "<Goal>\n<Outline>\n{0}1: x\n</Outline>\n<Outline>\n{0}2: y\n</Outline>\n</Goal>"
END = "<Conclusion>\nsum\n</Conclusion>\n</Parallel>"


def block(first: str, second: str, parent: str = "") -> str:
    paths = f"<Path>\n{parent}1: {first}\n</Path>\n<Path>\n{parent}2: {second}\n</Path>"
    return f"<Parallel>\n{GOAL.format(parent)}\n{paths}\n{END}"


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("", ""),
        ("Plain.\nText.\n", "Plain.\nText.\n"),
        ("<Think>\nA\n</Think>\nB", "A\nB"),
        ("A<Think>B</Think>C", "ABC"),
        (block("one.", "two."), "one.two."),
        (f"Look.\n{block('one.', 'two.')}\nDone.", "Look.one.two.Done."),
        (f"Look.\nLet's think in parallel.\n{block('one.', 'two.')}\nDone.", "Look.one.two.Done."),
        (f"Let's think in parallel.\n{block('one.', 'two.')}", "one.two."),
        (f"<Think>\nA\n{block('one.', 'two.')}\nB\n</Think>", "Aone.two.B"),
    ],
)
def test_what_is_left(text: str, chain: str) -> None:
    assert flatten_text(text) == chain


def test_line_breaks_and_spaces_of_the_source_stay() -> None:
    text = "Look. \n\n" + block(" one.\n", "\ntwo.\n\n") + "\n\nDone.\n"
    assert flatten_text(text) == "Look. \n one.\n\ntwo.\n\n\nDone.\n"


def test_nested_blocks_leave_their_source() -> None:
    inner = block("b ", "c ", parent="1.")
    first = f"a \nLet's think in parallel.\n{inner}\nd "
    text = f"Q\nLet's think in parallel.\n{block(first, 'e')}\nF"
    assert flatten_text(text) == "Qa b c d eF"


def test_the_lead_in_line_goes_only_before_a_block() -> None:
    assert flatten_text("Let's think in parallel.\nNo block.") == "Let's think in parallel.\nNo block."
    assert flatten_text(f"So: Let's think in parallel.\n{block('a', 'b')}") == "So: Let's think in parallel.ab"


def test_only_the_number_of_the_path_goes() -> None:
    assert flatten_text(block("1: one.", "12: two.")) == "1: one.12: two."


def test_flatten_of_a_document_is_flatten_of_its_text() -> None:
    text = f"Look.\n{block('one.', 'two.')}\nDone."
    assert flatten(parse(text)) == "Look.one.two.Done."


def test_damaged_text_is_refused() -> None:
    with pytest.raises(GrammarError, match=r"^line 2, column 3: rule goal-first: "):
        flatten_text("<Parallel>\n  </Parallel>")
