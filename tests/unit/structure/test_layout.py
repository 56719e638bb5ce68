import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from multiverse.structure.layout import Block, Layout, Span, layout
from multiverse.structure.tags import word_kinds
from tests.unit.structure.documents import DOCUMENTS, PATIENT, SOUP, Placed


def words(text: str) -> list[str]:
    """Split at single spaces: a line break is a word."""
    return text.split(" ")


GOAL_OF_TWO = words("<Parallel> <Goal> <Outline> </Outline> <Outline> </Outline> </Goal>")
"""Seven tokens: the fork point is 7."""

DESIGN = [
    *words("Q <Parallel> \n <Goal> \n <Outline> \n 1: g \n </Outline> \n <Outline> \n 2: g \n </Outline> \n </Goal>"),
    *words("\n <Path> a b c </Path>"),
    *words("\n <Path> d </Path>"),
    *words("\n <Conclusion> z </Conclusion> </Parallel> T"),
]
NESTED = [
    *DESIGN[:20],
    *words("\n <Path> b"),
    *DESIGN[1:20],
    *words("\n <Path> u v w </Path>"),
    *words("\n <Path> y </Path>"),
    *words("\n <Conclusion> c </Conclusion> </Parallel> e </Path>"),
    *words("\n <Path> d </Path>"),
    *words("\n <Conclusion>"),
]


def of(tokens: list[str]) -> Layout:
    return layout(word_kinds(tokens))


def visible(hidden: list[list[tuple[int, int]]]) -> list[str]:
    rows = []
    for query, intervals in enumerate(hidden):
        row = ["1"] * (query + 1)
        for low, high in intervals:
            row[low:high] = "0" * (high - low)
        rows.append("".join(row))
    return rows


def visible_by_token(placed: Layout) -> list[str]:
    return visible([list(placed.hidden(query)) for query in range(len(placed.positions))])


def visible_by_array(placed: Layout) -> list[str]:
    return visible([[(low, high) for low, high in row] for row in placed.hidden_intervals().tolist()])


def agrees(tokens: list[str], positions: list[int], next_position: int, rows: list[str]) -> None:
    placed = of(tokens)
    assert placed.positions.dtype == np.int32
    assert placed.positions.tolist() == positions
    assert placed.next_position == next_position
    assert visible_by_token(placed) == rows
    assert visible_by_array(placed) == rows


@pytest.mark.parametrize("line", range(24))
def test_golden_documents(shared: Path, line: int) -> None:
    case = json.loads((shared / "golden" / "layout_cases.jsonl").read_text(encoding="utf-8").splitlines()[line])
    agrees(case["tokens"], case["positions"], case["next_position"], case["visible"])
    assert of(case["tokens"]).parallelism == pytest.approx(case["parallelism"], abs=1e-6)


@pytest.mark.parametrize("line", range(24))
def test_golden_soup(shared: Path, line: int) -> None:
    case = json.loads((shared / "golden" / "layout_soup.jsonl").read_text(encoding="utf-8").splitlines()[line])
    agrees(case["tokens"], case["positions"], case["next_position"], case["visible"])


def test_positions_of_a_block() -> None:
    branches = [20, 21, 22, 23, 24, 25, 20, 21, 22, 23]
    assert of(DESIGN).positions.tolist() == [*range(20), *branches, *range(26, 32)]


def test_positions_of_a_nested_block() -> None:
    inner = [42, 43, 44, 45, 46, 47, 42, 43, 44, 45]
    expected = [*range(20), 20, 21, 22, *range(23, 42), *inner, *range(48, 55), 20, 21, 22, 23, 55, 56]
    assert of(NESTED).positions.tolist() == expected


def test_a_block_says_where_it_forks_joins_and_how_wide_it_is() -> None:
    spans = (Span(20, 26, 20, 1, True), Span(26, 30, 20, 1, True))
    assert of(DESIGN).blocks == (Block(fork=20, fork_position=20, width=2, spans=spans, end=30, depth=1),)


def test_hidden_keys_are_the_siblings_outermost_first() -> None:
    placed = of(
        ["Q", *GOAL_OF_TWO, "<Path>", "a", "</Path>", "<Path>", *GOAL_OF_TWO, "<Path>", "</Path>", "<Path>", "x"]
    )
    assert placed.hidden(9) == ()
    assert placed.hidden(11) == ((8, 11),)
    assert placed.hidden(19) == ((8, 11),)
    assert placed.hidden(22) == ((8, 11), (19, 21))
    assert placed.hidden_intervals()[22].tolist() == [[8, 11], [19, 21]]


def test_blocks_are_in_the_order_of_their_forks() -> None:
    assert [(block.fork, block.depth) for block in of(NESTED).blocks] == [(20, 1), (42, 2)]


def test_guarded_ends_behind_the_last_token_with_hidden_keys() -> None:
    assert of(DESIGN).guarded == 30
    assert of(DESIGN[:28]).guarded == 28
    assert of(DESIGN[:26]).guarded == 0


def test_no_tokens() -> None:
    placed = of([])
    assert (placed.critical_path, placed.parallelism, placed.next_position, placed.guarded) == (0, 1.0, 0, 0)
    assert placed.hidden_intervals().shape == (0, 0, 2)


def test_parallelism_is_tokens_per_position() -> None:
    assert of(DESIGN).critical_path == 32
    assert of(DESIGN).parallelism == 36 / 32


@pytest.mark.parametrize(("length", "position"), [(20, 20), (26, 20), (27, 21), (30, 26), (36, 32)])
def test_next_position_before_a_branch_is_the_fork_point(length: int, position: int) -> None:
    assert of(DESIGN[:length]).next_position == position


def test_white_space_at_the_end_belongs_to_the_branch_that_is_due() -> None:
    first, second = of([*GOAL_OF_TWO, "\n", "\n"]), of([*GOAL_OF_TWO, "<Path>", "a", "</Path>", "\n", "\n"])
    assert (first.positions[7:].tolist(), first.next_position) == ([7, 8], 9)
    assert (second.positions[7:].tolist(), second.next_position) == ([7, 8, 9, 7, 8], 9)
    assert [second.hidden(query) for query in (9, 10, 11)] == [(), ((7, 10),), ((7, 10),)]


@pytest.mark.parametrize(
    "text",
    [
        "<Parallel> a <Goal> <Outline> </Goal> <Path>",
        "<Parallel> <Goal> </Goal> <Path> </Path> a",
        "<Parallel> <Goal> </Outline> </Path> </Goal> <Path>",
        "<Goal> <Outline> </Outline> </Goal> <Path>",
        "<Path> a </Path> <Path> b </Path>",
        "</Path> </Goal> </Parallel> </Think> </Conclusion> </Outline>",
        "<Parallel> <Parallel> a",
        "<Parallel> <Goal> <Outline> <Parallel> <Goal> <Path> a </Path>",
    ],
)
def test_tags_out_of_place_are_ordinary_tokens(text: str) -> None:
    tokens = text.split()
    placed = of(tokens)
    assert placed.blocks == ()
    assert placed.positions.tolist() == list(range(len(tokens)))


def test_white_space_may_stand_between_parallel_and_goal() -> None:
    assert of(["<Parallel>", " ", "\n", *GOAL_OF_TWO[1:]]).blocks[0].fork == 9


def test_a_goal_behind_a_second_parallel_forks() -> None:
    assert of(["<Parallel>", *GOAL_OF_TWO]).blocks[0].fork == 8


def test_inside_a_goal_only_outline_and_the_closer_mean_anything() -> None:
    placed = of(words("<Parallel> <Goal> <Outline> <Outline> <Goal> <Path> </Path> <Parallel> </Parallel> </Goal>"))
    assert [(block.fork, block.width) for block in placed.blocks] == [(10, 2)]


@pytest.mark.parametrize("word", ["a", "<Conclusion>", "<Parallel>", "</Path>"])
def test_a_block_without_branches_goes_on_at_the_fork_point(word: str) -> None:
    placed = of([*GOAL_OF_TWO, "\n", "\n", word, "b"])
    assert placed.positions.tolist() == [*range(7), 7, 8, 7, 8]
    assert placed.blocks == (Block(7, 7, 2, (Span(7, 9, 7, 1, False),), 9, 1),)


def test_a_block_cut_short_goes_on_at_the_join_of_its_closed_branches() -> None:
    placed = of([*GOAL_OF_TWO, "<Path>", "a", "</Path>", "\n", "x", "y"])
    assert placed.positions.tolist() == [*range(7), 7, 8, 9, 7, 10, 11]
    assert [placed.hidden(query) for query in (10, 11)] == [((7, 10),), ()]
    assert placed.blocks[0].end == 11


def test_a_cut_without_white_space_leaves_no_empty_span() -> None:
    assert of([*GOAL_OF_TWO, "x"]).blocks == (Block(7, 7, 2, (), 7, 1),)


def test_an_inner_block_that_is_cut_short_leaves_its_branch_open() -> None:
    placed = of([*GOAL_OF_TWO, "<Path>", *GOAL_OF_TWO, "</Path>", "<Path>"])
    assert [(block.fork, block.end, len(block.spans)) for block in placed.blocks] == [(7, None, 2), (15, 15, 0)]
    assert placed.positions[-2:].tolist() == [15, 7]


def test_a_path_too_many_is_an_ordinary_token() -> None:
    placed = of(["<Parallel>", "<Goal>", "<Outline>", "</Goal>", "<Path>", "</Path>", "<Path>", "a", "</Path>"])
    assert placed.positions.tolist() == list(range(9))
    assert placed.guarded == 0


@PATIENT
@given(DOCUMENTS)
def test_whole_documents_are_placed_as_recursion_on_their_tree_places_them(document: Placed) -> None:
    agrees(document.words, document.positions, document.next_position, document.visible())
    assert [block.width for block in of(document.words).blocks] == document.widths


@PATIENT
@given(SOUP)
def test_layout_is_a_function_of_the_past_only(tokens: list[str]) -> None:
    whole = of(tokens)
    for length in range(len(tokens)):
        begun = of(tokens[:length])
        assert begun.positions.tolist() == whole.positions[:length].tolist()
        assert [begun.hidden(query) for query in range(length)] == [whole.hidden(query) for query in range(length)]


@PATIENT
@given(SOUP)
def test_hidden_intervals_are_those_of_each_token(tokens: list[str]) -> None:
    placed = of(tokens)
    assert visible_by_array(placed) == visible_by_token(placed)


@PATIENT
@given(SOUP)
def test_from_guarded_on_nothing_is_hidden(tokens: list[str]) -> None:
    placed = of(tokens)
    hiding = [query for query in range(len(tokens)) if placed.hidden(query)]
    assert placed.guarded == (hiding[-1] + 1 if hiding else 0)


@PATIENT
@given(SOUP)
def test_a_token_stands_behind_all_it_sees_but_white_space_of_a_branch_that_never_came(tokens: list[str]) -> None:
    placed = of(tokens)
    spans = [span for block in placed.blocks for span in block.spans if block.end is not None and not span.closed]
    dangling = {index for span in spans for index in range(span.start, span.end)}
    for query, row in enumerate(visible_by_token(placed)):
        seen = [key for key in range(query) if row[key] == "1" and key not in dangling]
        assert all(placed.positions[key] < placed.positions[query] for key in seen)


@PATIENT
@given(SOUP)
def test_every_branch_begins_at_its_fork_point(tokens: list[str]) -> None:
    placed = of(tokens)
    for block in placed.blocks:
        assert {int(placed.positions[span.start]) for span in block.spans} <= {block.fork_position}


def test_a_chain_of_32768_tokens_takes_less_than_50_ms() -> None:
    branch = ["\n", "<Path>", *["a"] * 100, "</Path>"]
    tokens = [*["a"] * 300, *GOAL_OF_TWO, *branch, *branch, "\n", "<Conclusion>", "a", "</Conclusion>", "</Parallel>"]
    kinds = np.tile(word_kinds(tokens), 64)[:32768]
    assert len(kinds) == 32768
    times = []
    for _ in range(5):
        start = time.perf_counter()
        layout(kinds)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.050
