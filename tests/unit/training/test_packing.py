"""Examples behind each other, and what each token is asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multiverse.training.examples import Example
from multiverse.training.packing import NO_LABEL, Batch, pack, plan
from tests.unit.structure.documents import DOCUMENTS, PATIENT, Placed
from tests.unit.training.placed_examples import example

GOAL = ["<Parallel>", "<Goal>", "<Outline>", "</Outline>", "<Outline>", "</Outline>", "</Goal>"]
FIRST, SECOND = ["\n", "<Path>", "a", "</Path>"], ["\n", "<Path>", "b", "</Path>"]
TWO = ["q", *GOAL, *FIRST, *SECOND, "\n", "<Conclusion>", "</Conclusion>"]


def test_positions_and_starts_begin_anew_with_each_example() -> None:
    batch = Batch.of([example(["a"] * 3), example(["b"] * 2)])
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.starts.tolist() == [0, 0, 0, 3, 3]
    assert [tensor.dtype for tensor in (batch.ids, batch.positions, batch.labels)] == [torch.int64] * 3
    assert [tensor.dtype for tensor in (batch.starts, batch.hidden, batch.parts)] == [
        torch.int32,
        torch.int32,
        torch.uint8,
    ]


def test_hidden_keys_are_those_of_the_packed_sequence() -> None:
    batch = Batch.of([example(["a"] * 5), example(TWO)])
    assert batch.hidden.shape == (5 + len(TWO), 1, 2)
    assert batch.hidden[:, 0].tolist() == [[0, 0]] * 17 + [[13, 17]] * 4 + [[0, 0]] * 3


def test_memory_goes_by_tokens_and_depth() -> None:
    batch = Batch.of([example(TWO)] * 10)
    size = sum(getattr(batch, name).nbytes for name in batch.__slots__)
    assert size == len(batch) * (8 + 8 + 4 + 8 * 1 + 8 + 1)


def test_a_label_is_the_next_token_in_the_tokens_own_visible_order() -> None:
    batch = Batch.of([example(TWO)])
    ids = batch.ids.tolist()
    closer = TWO.index("</Path>")
    assert batch.labels[closer] == NO_LABEL  # behind it stands a sibling
    assert batch.labels[7] == ids[8]  # both branches begin behind </Goal>: the first one's beginning
    assert batch.labels[15] == ids[16]  # the last sibling's closer, and the join
    others = [index for index in range(len(ids) - 1) if index not in (7, closer, 15)]
    assert [batch.labels[index] for index in others] == [ids[index + 1] for index in others]


def test_a_label_is_never_of_another_example() -> None:
    batch = Batch.of([example(["a", "b"]), example(["c", "d"])])
    ids = batch.ids.tolist()
    assert batch.labels.tolist() == [ids[1], NO_LABEL, ids[3], NO_LABEL]


@PATIENT
@given(DOCUMENTS)
def test_predecessor_is_the_last_token_seen_before(document: Placed) -> None:
    if document.words:
        rows = document.visible()
        expected = [row[:-1].rfind("1") for row in rows]
        assert example(document.words).predecessors().tolist() == expected


def test_the_label_has_the_part_of_its_target() -> None:
    plain = example(["a", "b", "c"])
    parts = np.array([0, 1, 2], dtype=np.uint8)
    batch = Batch.of([Example(plain.ids, plain.positions, plain.hidden, np.array([False, True, True]), parts)])
    assert batch.parts.tolist() == [1, 2, 0]


def test_first_fit_the_longest_first() -> None:
    assert plan([3, 7, 5, 2, 6, 3], max_tokens=10) == [[0, 1], [2, 3], [4, 5]]


def test_what_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="example 1 has 11 tokens, a sequence may have 10"):
        plan([3, 11], max_tokens=10)


@given(st.lists(st.integers(1, 20), max_size=40))
def test_a_plan_holds_each_once_within_the_limit(lengths: list[int]) -> None:
    bins = plan(lengths, max_tokens=20)
    assert sorted(index for chosen in bins for index in chosen) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in chosen) <= 20 for chosen in bins)
    assert sum(2 * sum(lengths[index] for index in chosen) <= 20 for chosen in bins) <= 1


def test_only_examples_of_a_window_go_together() -> None:
    batches = list(pack([example(["a"] * 4)] * 5, max_tokens=100, window=2))
    assert [len(batch) for batch in batches] == [8, 8, 4]
