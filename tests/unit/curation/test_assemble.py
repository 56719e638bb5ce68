"""Structured chains put together, and the chain that is left of them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.curation.chain.assemble import AssemblyError, assemble, check_chain
from multiverse.curation.chain.groups import Body, Span, blocks, group
from multiverse.curation.chain.plan import BlockTexts, Opening, read_dependencies, read_steps
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.curation.checks.findings import check_numbering
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import parse
from tests.unit.curation.plans import block, random_replies, texts_for

CHAIN = "Look. Add one. Similarly, add two. Done.\n"
BODY: Body = (Span(0, 1), block((Span(1, 2),), (Span(2, 3),)), Span(3, 4))
TEXTS = BlockTexts(("Add the first.", "Add the second."), "Both are added.", (None, None))


def built(chain: str, body: Body, *texts: BlockTexts) -> str:
    return assemble(chain, split(chain), body, texts)


def test_a_block_as_text() -> None:
    assert built(CHAIN, BODY, TEXTS) == (
        "Look. \nLet's think in parallel.\n<Parallel>\n<Goal>\n<Outline>\n1: Add the first.\n</Outline>\n"
        "<Outline>\n2: Add the second.\n</Outline>\n</Goal>\n<Path>\n1: Add one. \n</Path>\n<Path>\n"
        "2: Similarly, add two. \n</Path>\n<Conclusion>\nBoth are added.\n</Conclusion>\n</Parallel>\nDone.\n"
    )


def test_a_chain_without_blocks_is_itself() -> None:
    assert built(CHAIN, (Span(0, 4),)) == CHAIN


def test_nothing_is_itself() -> None:
    assert built("", ()) == ""


def test_an_inner_block_at_the_beginning_of_its_path_and_the_end_of_it() -> None:
    chain = "A.\nB.\nC.\nD.\n"
    body: Body = (block((block((Span(0, 1),), (Span(1, 2),)),), (Span(2, 3), block((Span(3, 4),), (Span(4, 5),)))),)
    text = built(f"{chain}E.\n", body, *texts_for(list(blocks(body))))
    assert "\n<Path>\n1: Let's think in parallel.\n<Parallel>\n<Goal>\n<Outline>\n1.1: branch 0 of block 1\n" in text
    assert "</Conclusion>\n</Parallel>\n</Path>\n<Path>\n2: C.\n\nLet's think in parallel.\n<Parallel>\n" in text
    assert flatten_text(text) == f"{chain}E.\n"
    assert check_numbering(parse(text)) == []


@pytest.mark.parametrize(
    "pieces",
    [
        ["  Leading space.", " B.", "\n\n", "D"],
        ["A.\r\n", "B.\r\n", "C.\r\n", "D.\r\n"],
        ["1: A.", "2: B.", "12: C.", " 3: D."],
        ["\n", "\n", "\n", "\n"],
        [" ", "  ", "   ", "\t"],
        ["A", "B", "C", "D"],
        ["Let's think in parallel.", "Let's think in parallel.\n", "\nLet's think in parallel.", "x"],
        ["Let's think in parallel.\n"] * 4,
        ["\nLet's think in parallel.\n"] * 4,
        ["<", "Path>", "< Path>", "</path>"],
        ["\u2028", "\x85", "\x00", "\ufeff"],
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        BODY,
        (block((Span(0, 2),), (Span(2, 4),)),),
        (block((Span(0, 1),), (Span(1, 2),)), block((Span(2, 3),), (Span(3, 4),))),
        (block((block((Span(0, 1),), (Span(1, 2),)),), (Span(2, 4),)),),
        (block((Span(0, 1),), (Span(1, 2), block((Span(2, 3),), (Span(3, 4),)))),),
        (block((block((Span(0, 1),), (Span(1, 2),)), Span(2, 3)), (Span(3, 4),)),),
    ],
)
def test_awkward_chains_are_restored(pieces: list[str], body: Body) -> None:
    sentences, start = [], 0
    for piece in pieces:
        sentences.append(Sentence(start, start + len(piece), piece))
        start += len(piece)
    chain = "".join(pieces)
    if "<Path>" in chain:
        with pytest.raises(AssemblyError, match=r"^the chain holds the tag <Path> at character 0$"):
            assemble(chain, sentences, body, texts_for(list(blocks(body))))
    else:
        assert flatten_text(assemble(chain, sentences, body, texts_for(list(blocks(body))))) == chain


def test_first_words_are_rewritten() -> None:
    texts = BlockTexts(TEXTS.outlines, TEXTS.conclusion, (None, Opening("Similarly, add", "Now add")))
    found = built(CHAIN, BODY, texts)
    assert "2: Now add two. \n</Path>" in found
    assert flatten_text(found) == "Look. Add one. Now add two. Done.\n"


def test_several_openings_of_different_lengths() -> None:
    texts = BlockTexts(TEXTS.outlines, TEXTS.conclusion, (Opening("Add", "We take"), Opening("Similarly, add", "Add")))
    assert flatten_text(built(CHAIN, BODY, texts)) == "Look. We take one. Add two. Done.\n"


@pytest.mark.parametrize(
    ("openings", "message"),
    [
        ((Opening("Next", "So"), None), "sentence 2 does not begin with 'Next', which is to be rewritten"),
        ((Opening("Add one. ", "<Path>"), None), "the chain holds the tag <Path> at character 6"),
    ],
)
def test_refused_openings(openings: tuple[Opening | None, ...], message: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        built(CHAIN, BODY, BlockTexts(TEXTS.outlines, TEXTS.conclusion, openings))
    assert str(refused.value) == message


def test_a_sentence_is_rewritten_once() -> None:
    body: Body = (block((block((Span(0, 1),), (Span(1, 2),)),), (Span(2, 4),)),)
    opening = BlockTexts(("a", "b"), "c", (Opening("Look", "See"), None))
    with pytest.raises(AssemblyError, match=r"^the first words of sentence 1 are to be rewritten twice$"):
        built(CHAIN, body, opening, opening)


@pytest.mark.parametrize(
    ("body", "texts", "message"),
    [
        (BODY, (), "there are blocks of [2] branches, but outlines for []"),
        ((Span(0, 4),), (TEXTS,), "there are blocks of [] branches, but outlines for [2]"),
        (
            BODY[:2],
            (TEXTS,),
            "the chain is not restored: from character 35 on there is '' instead of 'Done.\\n'",
        ),
        (
            (Span(0, 1), Span(2, 4)),
            (),
            "the chain is not restored: from character 6 on there is 'Similarly, add two. Done.\\n' instead of "
            "'Add one. Similarly, add two. Done.\\n'",
        ),
        (
            BODY,
            (BlockTexts(("a", "b</Path>"), "c", (None, None)),),
            "the structured chain is not valid: line 9, column 5: rule outline-closed: an <Outline> may hold "
            "text only, then </Outline>; found '</Path>'",
        ),
    ],
)
def test_refused_plans(body: Body, texts: tuple[BlockTexts, ...], message: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        built(CHAIN, body, *texts)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("A <Think>b</Think>", "the chain holds the tag <Think> at character 2"),
        ("A \ud800", "the chain is no UTF-8: a lone surrogate at character 2"),
    ],
)
def test_chains_that_cannot_be_structured(chain: str, message: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        check_chain(chain)
    assert str(refused.value) == message


_PIECES = [
    "a. ",
    "Then b.\n",
    "\n",
    " ",
    "1: ",
    "12",
    "Let's think in parallel.",
    "\r\n",
    "$x$ ",
    "<Pa",
    "<",
    "th>",
    ".",
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=30).map("".join) | st.text(min_size=1),
    st.randoms(use_true_random=False),
)
def test_any_plan_restores_any_chain(chain: str, draw: random.Random) -> None:
    sentences = split(chain)
    replies = random_replies(draw, len(sentences))
    steps = read_steps(replies[0], len(sentences))
    body = group(sentences, steps, read_dependencies(replies[1], steps))
    try:
        text = assemble(chain, sentences, body, texts_for(list(blocks(body))))
    except AssemblyError as error:
        assert str(error).startswith(("the chain holds the tag", "the chain is no UTF-8"))
        return
    assert flatten_text(text).encode() == chain.encode()
    assert text.count("<Parallel>") == len(list(blocks(body)))
