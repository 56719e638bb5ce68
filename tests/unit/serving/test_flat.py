"""The flattened text of a stream."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.answer.content import FlatContent
from multiverse.structure.flatten import flatten_text
from multiverse.structure.tags import LEAD_IN
from tests.unit.serving.http_fakes import FIRST, HEAD, SECOND, TAG_IDS, TAIL, Words

TEXT = st.lists(
    st.sampled_from(["\n", " ", "a", "1:", "2. ", LEAD_IN, "\n" + LEAD_IN, LEAD_IN + "\n"]), max_size=4
).map("".join)


def block(parts: list[str]) -> str:
    outlines = "".join(f"\n<Outline>\n{number}: o\n</Outline>" for number in range(1, len(parts) + 1))
    paths = "".join(f"\n<Path>\n{number}:{part}</Path>" for number, part in enumerate(parts, start=1))
    return f"<Parallel>\n<Goal>{outlines}\n</Goal>{paths}\n<Conclusion>\nc\n</Conclusion>\n</Parallel>"


def bodies(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(TEXT | st.lists(inner, min_size=1, max_size=3).map(block), max_size=4).map("".join)


DOCUMENTS = st.tuples(TEXT, st.recursive(TEXT, bodies, max_leaves=12), TEXT).flatmap(
    lambda parts: st.sampled_from(["".join(parts), f"{parts[0]}<Think>{parts[1]}</Think>{parts[2]}"])
)


def flat(text: str, piece: int = 1000) -> str:
    """Flattened as a stream, ``piece`` characters at a time; tags are whole tokens."""
    words = Words()
    content = FlatContent(words, TAG_IDS)
    streamed = ""
    for id in words.structured(text):
        word = words.decode([id])
        size = len(word) if id < len(TAG_IDS) else piece
        for start in range(0, len(word), size):
            streamed += content.push(words.ids(word[start : start + size]))
    return streamed + content.finish()


@given(DOCUMENTS, st.integers(1, 40))
def test_well_formed_text_is_flattened_as_the_grammar_says(text: str, piece: int) -> None:
    assert flat(text, piece) == flatten_text(text)


def test_chains_of_the_paper_are_flattened_as_the_grammar_says(shared: Path) -> None:
    chains = sorted((shared / "data" / "chains").glob("*.xml"))
    texts = [path.read_text(encoding="utf-8") for path in chains]
    assert [flat(text, 7) for text in texts] == [flatten_text(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + FIRST + SECOND + TAIL, "Look.one.two.Done."),
        ("<Parallel>\n<Goal>\n</Goal>\nGoes on.", "\nGoes on."),
        ("<Parallel>Goes on.", "Goes on."),
        ("A</Path>B</Conclusion>", "AB"),
        (HEAD + "\n<Path>\n1: one", "Look.one"),
        (HEAD + "\n<Path>\n1: one<Parallel></Path>" + SECOND + TAIL, "Look.onetwo.Done."),
    ],
)
def test_damaged_text_keeps_all_but_tags_goals_and_conclusions(text: str, expected: str) -> None:
    assert flat(text, 1) == flat(text) == expected


def test_text_is_sent_as_soon_as_it_is_certain() -> None:
    words = Words()
    content = FlatContent(words, TAG_IDS)
    assert [content.push(words.ids(word)) for word in ("One", ".\n", "Let's ", "go")] == ["One", ".", "", "\nLet's go"]
