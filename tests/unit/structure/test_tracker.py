import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.structure.layout import layout
from multiverse.structure.tags import word_kinds
from multiverse.structure.tracker import (
    BlockClosed,
    BlockOpened,
    BranchClosed,
    BranchOpened,
    Event,
    Joined,
    Malformed,
    MalformedReason,
    OutlinesKnown,
    Tracker,
)
from tests.unit.structure.documents import DOCUMENTS, PATIENT, SOUP, VOCABULARY, Placed

GOAL = ["<Parallel>", "<Goal>", "<Outline>", "1:", "a", "</Outline>", "<Outline>", "2:", "</Outline>", "</Goal>"]
PATHS = ["<Path>", "x", "y", "</Path>", "<Path>", "</Path>"]
JOINED = "<Parallel> <Goal> <Outline> </Outline> </Goal> <Path> </Path>"
BLOCK = [*GOAL, *PATHS, "<Conclusion>", "c", "</Conclusion>", "</Parallel>"]


def ids(words: list[str]) -> list[int]:
    return word_kinds(words).tolist()


def after(words: list[str]) -> Tracker:
    tracker = Tracker(VOCABULARY)
    tracker.push_all(ids(words))
    return tracker


def events(words: list[str]) -> tuple[Event, ...]:
    tracker = Tracker(VOCABULARY)
    return tracker.push_all(ids(words)) + tracker.finish()


def test_events_of_a_block() -> None:
    assert events(["q", *BLOCK, "t"]) == (
        BlockOpened(index=2),
        OutlinesKnown(index=10, width=2, outlines=((4, 6), (8, 9))),
        BranchOpened(index=11, branch=1),
        BranchClosed(index=14, branch=1, end_position=14),
        BranchOpened(index=15, branch=2),
        BranchClosed(index=16, branch=2, end_position=12),
        Joined(index=16, position=15),
        BlockClosed(index=20),
    )


def test_events_of_a_nested_block() -> None:
    words = ["<Parallel>", "<Goal>", "<Outline>", "</Outline>", "</Goal>", "<Path>", *BLOCK, "</Path>", "<Conclusion>"]
    assert events(words)[2:-1] == (
        BranchOpened(index=5, branch=1),
        BlockOpened(index=7),
        OutlinesKnown(index=15, width=2, outlines=((9, 11), (13, 14))),
        BranchOpened(index=16, branch=1),
        BranchClosed(index=19, branch=1, end_position=19),
        BranchOpened(index=20, branch=2),
        BranchClosed(index=21, branch=2, end_position=17),
        Joined(index=21, position=20),
        BlockClosed(index=25),
        BranchClosed(index=26, branch=1, end_position=24),
        Joined(index=26, position=25),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<Parallel> a", [(1, "no_goal", "")]),
        ("<Parallel> <Path> a", [(1, "no_goal", "<Path>"), (1, "stray_tag", "<Path>")]),
        ("<Parallel> <Goal> 1: </Goal>", [(3, "no_outlines", "</Goal>")]),
        ("<Parallel> <Goal> <Outline> </Outline> </Goal> a", [(5, "missing_path", "")]),
        (
            "<Parallel> <Goal> <Outline> </Outline> <Outline> </Outline> </Goal> <Path> </Path> <Conclusion>",
            [(9, "missing_path", "<Conclusion>"), (9, "stray_tag", "<Conclusion>")],
        ),
        ("a </Path>", [(1, "stray_tag", "</Path>")]),
        ("<Path> a", [(0, "stray_tag", "<Path>")]),
        ("<Goal> a", [(0, "stray_tag", "<Goal>")]),
        ("<Think> <Think> a </Think>", [(1, "stray_tag", "<Think>")]),
        (
            "<Parallel> <Goal> <Path> <Outline> </Outline> </Goal>",
            [(2, "stray_tag", "<Path>"), (6, "unclosed", "<Parallel>")],
        ),
        (
            "<Parallel> <Goal> <Outline> <Outline> </Outline> </Goal>",
            [(3, "stray_tag", "<Outline>"), (6, "unclosed", "<Parallel>")],
        ),
        (
            "<Parallel> <Goal> <Outline> </Goal>",
            [(3, "stray_tag", "</Goal>"), (4, "unclosed", "<Parallel>")],
        ),
        ("<Think> a", [(2, "unclosed", "<Think>")]),
        ("<Parallel>", [(1, "unclosed", "<Parallel>")]),
        ("<Parallel> <Goal> <Outline> 1:", [(4, "unclosed", "<Outline>")]),
        ("<Parallel> <Goal> <Outline> </Outline> </Goal> <Path> a", [(7, "unclosed", "<Path>")]),
        (f"{JOINED} <Conclusion> </Conclusion> <Conclusion> </Parallel>", [(9, "stray_tag", "<Conclusion>")]),
        (f"{JOINED} </Parallel>", [(7, "stray_tag", "</Parallel>")]),
        (f"{JOINED} a b <Conclusion> c </Conclusion> </Parallel>", [(7, "stray_text", "")]),
        (f"{JOINED} <Conclusion> c </Conclusion> a b </Parallel>", [(10, "stray_text", "")]),
    ],
)
def test_tags_out_of_place_are_reported_with_their_reason(text: str, expected: list[tuple[int, str, str]]) -> None:
    malformed = [event for event in events(text.split()) if isinstance(event, Malformed)]
    assert malformed == [Malformed(index, MalformedReason(reason), tag) for index, reason, tag in expected]


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        (["<Think>"], ("<Think>",)),
        (["<Think>", *BLOCK[:3]], ("<Think>", "<Parallel>", "<Goal>", "<Outline>")),
        (BLOCK[:9], ("<Parallel>", "<Goal>")),
        (BLOCK[:10], ("<Parallel>",)),
        (BLOCK[:12], ("<Parallel>", "<Path>")),
        (BLOCK[:14], ("<Parallel>",)),
        (BLOCK[:17], ("<Parallel>", "<Conclusion>")),
        (BLOCK, ()),
        ([*BLOCK[:10], "a"], ()),
        (["<Parallel>", "a"], ()),
        (["<Parallel>", "<Goal>", "</Goal>"], ()),
        (["</Path>", "<Path>"], ()),
        ([*BLOCK[:11], *BLOCK[:10], "a"], ("<Parallel>", "<Path>")),
    ],
)
def test_open_tags_wait_for_their_closers_outermost_first(words: list[str], tags: tuple[str, ...]) -> None:
    assert after(words).open_tags == tags


def test_open_tags_are_those_that_finish_reports() -> None:
    tracker = after(BLOCK[:3])
    assert tracker.finish() == (Malformed(3, MalformedReason.UNCLOSED, "<Outline>"),)


@pytest.mark.parametrize(("length", "depth"), [(10, 0), (11, 1), (14, 0), (15, 1), (16, 0)])
def test_depth_counts_the_blocks_whose_branch_the_next_token_is_in(length: int, depth: int) -> None:
    assert after(BLOCK[:length]).depth == depth
    assert after([*BLOCK[:11], *BLOCK[:length]]).depth == depth + 1


def test_a_copy_goes_its_own_way() -> None:
    tracker = after(BLOCK[:7])
    twin = tracker.copy()
    assert twin.push_all(ids(BLOCK[7:10])) == (OutlinesKnown(index=9, width=2, outlines=((3, 5), (7, 8))),)
    assert (tracker.count, tracker.open_tags) == (7, ("<Parallel>", "<Goal>", "<Outline>"))
    assert tracker.push_all(ids(BLOCK[8:10])) == (OutlinesKnown(index=8, width=2, outlines=((3, 5), (7, 7))),)


@PATIENT
@given(SOUP, st.integers(0, 40))
def test_a_copy_says_what_the_tracker_says(words: list[str], length: int) -> None:
    tracker = after(words[:length])
    twin = tracker.copy()
    rest = ids(words[length:])
    assert twin.push_all(rest) + twin.finish() == tracker.push_all(rest) + tracker.finish()
    assert (twin.next_position, twin.open_tags, twin.count) == (tracker.next_position, tracker.open_tags, tracker.count)


@PATIENT
@given(DOCUMENTS.map(lambda document: document.words) | SOUP)
def test_positions_are_the_layouts_after_every_token(words: list[str]) -> None:
    tracker, kinds = Tracker(VOCABULARY), word_kinds(words)
    for length in range(len(words) + 1):
        assert tracker.next_position == layout(kinds[:length]).next_position
        tracker.push_all(kinds[length : length + 1].tolist())


@PATIENT
@given(SOUP)
def test_events_tell_the_layouts_blocks_and_branches(words: list[str]) -> None:
    placed, seen = layout(word_kinds(words)), events(words)
    forks = [(event.index + 1, event.width) for event in seen if isinstance(event, OutlinesKnown)]
    closed = {(event.index + 1, event.end_position) for event in seen if isinstance(event, BranchClosed)}
    joined = {event.index + 1 for event in seen if isinstance(event, Joined)}
    spans = [span for block in placed.blocks for span in block.spans if span.closed]
    assert forks == [(block.fork, block.width) for block in placed.blocks]
    assert closed == {(span.end, int(placed.positions[span.end - 1])) for span in spans}
    assert joined == {block.end for block in placed.blocks if len([s for s in block.spans if s.closed]) == block.width}


@PATIENT
@given(DOCUMENTS)
def test_whole_documents_are_never_malformed(document: Placed) -> None:
    seen = events(document.words)
    assert not [event for event in seen if isinstance(event, Malformed)]
    assert [event.width for event in seen if isinstance(event, OutlinesKnown)] == document.widths
