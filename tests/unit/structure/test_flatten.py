"""The sequential chain inside a structured one."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


INNER = block("c", "d\n", parent="2.")
BREAKS = block("\na", "b\n")


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        (block("a", f"b\n{INNER}"), "abcd\n"),
        (block("a", f"b\n{INNER}\n"), "abcd\n"),
        (block(f"{block(' a', 'b', parent='1.')}", "c"), " abc"),
        (f"<Think>\n{BREAKS}\n</Think>", "\nab\n"),
        (f"<Think>{BREAKS}</Think>", "\nab\n"),
        (block(f"Let's think in parallel.\n{block('a', 'b', parent='1.')}", "c"), "abc"),
    ],
)
def test_what_inner_blocks_keep_stays(text: str, chain: str) -> None:
    """A path or <Think> loses what adjoins its own tags, never the first or last character of a block in it."""
    assert flatten_text(text) == chain


@dataclass(frozen=True)
class Tree:
    """A block of a chain: ``parts`` are its paths, ``announced``: the lead-in line comes before it."""

    parts: tuple[tuple["str | Tree", ...], ...]
    announced: bool


Chain = tuple["str | Tree", ...]
_SOURCE = st.sampled_from(["", "a", "a\n", "\n", " a ", "\n\na\n\n"])


def _parts(inner: st.SearchStrategy[Chain]) -> st.SearchStrategy[Chain]:
    tree = st.builds(Tree, st.lists(inner, min_size=1, max_size=3).map(tuple), st.booleans())
    return st.tuples(_SOURCE, tree, _SOURCE) | st.tuples(_SOURCE, tree, _SOURCE, tree, _SOURCE)


CHAINS: st.SearchStrategy[Chain] = st.recursive(_SOURCE.map(lambda text: (text,)), _parts, max_leaves=6)


def source(chain: Chain) -> str:
    return "".join(item if isinstance(item, str) else "".join(map(source, item.parts)) for item in chain)


def structured(chain: Chain, parent: str = "") -> str:
    """The chain with its structure, every line break where the module says."""
    pieces = []
    for item in chain:
        if isinstance(item, str):
            pieces.append(item)
            continue
        numbers = [f"{parent}{number}" for number in range(1, len(item.parts) + 1)]
        outlines = "".join(f"<Outline>\n{number}: x\n</Outline>\n" for number in numbers)
        paths = "".join(
            f"<Path>\n{number}: {structured(part, f'{number}.')}\n</Path>\n"
            for number, part in zip(numbers, item.parts, strict=True)
        )
        lead_in = "\nLet's think in parallel." if item.announced else ""
        pieces.append(f"{lead_in}\n<Parallel>\n<Goal>\n{outlines}</Goal>\n{paths}{END}\n")
    return "".join(pieces)


@settings(deadline=None)
@given(CHAINS)
def test_the_source_chain_is_left_byte_for_byte(chain: Chain) -> None:
    assert flatten_text(structured(chain)) == source(chain)
    assert flatten_text(f"<Think>\n{structured(chain)}\n</Think>\n") == source(chain) + "\n"
