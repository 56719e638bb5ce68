"""Where documents that are replayed are cut, and where they are continued."""

import pytest

from multiverse.evaluation.documents import DocumentWriter
from multiverse.evaluation.replay import Document, Probe, whole_blocks
from multiverse.structure.tags import TAGS, Vocabulary

VOCABULARY = Vocabulary({tag: number for number, tag in enumerate(TAGS, 1)}, frozenset({20}), 1000)


def block() -> list[int]:
    write = DocumentWriter(VOCABULARY)
    return write.block([write.text(2), write.text(4)])


def ends(tokens: list[int], tag: str) -> list[int]:
    return [index + 1 for index, id in enumerate(tokens) if id == VOCABULARY.id(tag)]


def test_a_document_that_fits_stays_whole() -> None:
    tokens = [500, *block(), 501]
    assert whole_blocks(tokens, VOCABULARY, len(tokens)) == tokens


def test_a_longer_one_ends_behind_the_last_block_that_fits() -> None:
    tokens = [500, *block(), 501, *block()]
    first, _ = ends(tokens, "</Parallel>")
    assert whole_blocks(tokens, VOCABULARY, len(tokens) - 1) == tokens[:first]


def test_where_no_block_fits_it_ends_behind_the_last_branch_that_does() -> None:
    tokens = [500, *block()]
    first, second = ends(tokens, "</Path>")
    assert whole_blocks(tokens, VOCABULARY, second - 1) == tokens[:first]


def test_where_no_branch_fits_it_is_refused() -> None:
    tokens = [500, *block()]
    first, _ = ends(tokens, "</Path>")
    with pytest.raises(ValueError, match="no branch ends within the first"):
        whole_blocks(tokens, VOCABULARY, first - 1)


def test_a_branch_that_is_cut_short_is_not_continued() -> None:
    tokens = [500, *block()]
    first, second = ends(tokens, "</Path>")
    document = Document.of("cut", tokens[: second - 2], VOCABULARY, header=1)
    path = tokens.index(VOCABULARY.id("<Path>"))
    assert document.probes == (Probe("branch", path + 1),)
    assert first > path
