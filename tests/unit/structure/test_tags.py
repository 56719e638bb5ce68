import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.structure.tags import TAGS, Kind, Vocabulary, split_words, word_kinds

VOCABULARY = Vocabulary(
    tag_ids={tag: 100 + index for index, tag in enumerate(TAGS)}, space_ids=frozenset({3, 5}), size=112
)


def test_the_tags_are_the_twelve_of_the_grammar() -> None:
    assert list(TAGS.items()) == [
        ("<Think>", Kind.THINK),
        ("</Think>", Kind.THINK_END),
        ("<Parallel>", Kind.PARALLEL),
        ("</Parallel>", Kind.PARALLEL_END),
        ("<Goal>", Kind.GOAL),
        ("</Goal>", Kind.GOAL_END),
        ("<Outline>", Kind.OUTLINE),
        ("</Outline>", Kind.OUTLINE_END),
        ("<Path>", Kind.PATH),
        ("</Path>", Kind.PATH_END),
        ("<Conclusion>", Kind.CONCLUSION),
        ("</Conclusion>", Kind.CONCLUSION_END),
    ]


def test_kinds_of_ids() -> None:
    kinds = VOCABULARY.kinds([0, 3, 5, 100, 101, 111])
    assert kinds.dtype == np.uint8
    assert kinds.tolist() == [Kind.TEXT, Kind.SPACE, Kind.SPACE, Kind.THINK, Kind.THINK_END, Kind.CONCLUSION_END]


def test_ids_past_the_vocabulary_are_text() -> None:
    assert VOCABULARY.kinds(np.array([112, 113, 1 << 40])).tolist() == [Kind.TEXT] * 3
    assert VOCABULARY.kind(112) is Kind.TEXT


@given(st.integers(0, 200))
def test_kind_of_one_id_is_that_of_many(token_id: int) -> None:
    assert [VOCABULARY.kind(token_id)] == VOCABULARY.kinds([token_id]).tolist()


def test_no_ids_have_no_kinds() -> None:
    assert VOCABULARY.kinds([]).shape == (0,)


def test_id_of_a_tag() -> None:
    assert VOCABULARY.id("<Path>") == 108


def test_words_are_tags_runs_of_white_space_and_other_runs() -> None:
    text = "a bc\n\n<Path>\n1:<Outline>x</Nothing> <path>"
    words = ["a", " ", "bc", "\n\n", "<Path>", "\n", "1:", "<Outline>", "x</Nothing>", " ", "<path>"]
    assert split_words(text) == words
    assert word_kinds(words).tolist() == [0, 1, 0, 1, Kind.PATH, 1, 0, Kind.OUTLINE, 0, 1, 0]


def test_an_empty_word_is_text() -> None:
    assert word_kinds([""]).tolist() == [Kind.TEXT]


@given(st.text() | st.lists(st.sampled_from([*TAGS, "<", ">", " ", "\n", "Path", "\u2003", "x"])).map("".join))
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text


@pytest.mark.parametrize("kind", Kind)
def test_every_closer_follows_its_opener(kind: Kind) -> None:
    assert kind.is_closer == kind.name.endswith("_END")
    if kind.is_closer:
        assert kind.name == f"{Kind(kind - 1).name}_END"
