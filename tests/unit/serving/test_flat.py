"""The flattened text of a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.content import FlatContent
from tests.unit.serving.http_fakes import FIRST, HEAD, SECOND, TAG_IDS, TAIL, Words

NESTED = (
    "Look.\n"
    + HEAD.removeprefix("Look.\n")
    + FIRST.replace(
        "one.\n",
        "one.\n\n<Parallel>\n<Goal>\n<Outline>\n1.1: x\n</Outline>\n</Goal>\n<Path>\n1.1: deep\n</Path>\n<Conclusion>\nc\n</Conclusion>\n</Parallel>\nafter\n",
    )
    + SECOND
    + TAIL
)


def flat(text: str, cuts: tuple[int, ...] = ()) -> str:
    words = Words()
    content = FlatContent(words, TAG_IDS)
    pieces = []
    for id in words.structured(text):
        piece = words.decode([id])
        # Tags are whole tokens; everything else may come in any pieces.
        parts = [piece] if id < len(TAG_IDS) else [piece[a:b] for a, b in zip((0, *cuts), (*cuts, None), strict=True)]
        pieces += [content.push(words.ids(part)) for part in parts if part]
    return "".join(pieces) + content.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain.\nText\n", "Plain.\nText\n"),
        ("<Think>\nA\n</Think>\nB", "AB"),
        (HEAD + FIRST + SECOND + TAIL, "Look.one.two.Done."),
        ("Let's think in parallel.\nNo block.", "Let's think in parallel.\nNo block."),
        ("Let's think in parallel", "Let's think in parallel"),
    ],
)
def test_flattened(text: str, expected: str) -> None:
    assert flat(text) == expected


@given(st.lists(st.integers(1, 30), max_size=4).map(sorted).map(tuple))
def test_text_does_not_depend_on_how_it_is_cut_into_tokens(cuts: tuple[int, ...]) -> None:
    assert flat(NESTED, cuts) == flat(NESTED)
