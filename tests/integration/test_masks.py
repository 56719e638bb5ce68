"""The rules of segments on a row of logits."""

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multiverse.models.manifest import Manifest
from multiverse.structure.tags import TAGS

pytestmark = pytest.mark.slow

TOKENS, ROWS = 20, 24
"""Ids 20 to 23 are padding."""
END, OTHER_END, CLOSER = 1, 2, 17


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    tag_ids = {tag: 8 + index for index, tag in enumerate(TAGS)}
    Manifest("test", tag_ids, (3,), TOKENS, ROWS, layout_version=1, trained=False, fingerprint="test").save(directory)
    return directory


@dataclass
class Asked:
    """A request of a batch: its tokens so far, and its rules."""

    output: list[int]
    masked: tuple[int, ...] = ()
    closer: int | None = None
    last: int = 100


def applied(checkpoint: Path, *asked: Asked, dtype: torch.dtype = torch.float32) -> list[list[float]]:
    """The rows after the rules; before, id i has the logit i / 10."""
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate

    from multiverse.engine.masks import Rules, SegmentRules

    config = SimpleNamespace(model_config=SimpleNamespace(model=str(checkpoint)))
    processor = SegmentRules(config, torch.device("cpu"), False)
    rules = [Rules(one.masked, one.closer, (END, OTHER_END), one.last) for one in asked]
    added = [
        (index, SamplingParams(extra_args=each.to_extra()), [7], one.output)
        for index, (one, each) in enumerate(zip(asked, rules, strict=True))
    ]
    processor.update_state(BatchUpdate(batch_size=len(added), removed=[], added=added, moved=[]))
    rows: list[list[float]] = processor.apply((torch.arange(ROWS) / 10).to(dtype).repeat(len(added), 1)).tolist()
    return rows


def possible(row: list[float]) -> set[int]:
    return {id for id, logit in enumerate(row) if logit != -math.inf}


def test_padding_is_never_sampled_and_all_else_keeps_its_logit(checkpoint: Path) -> None:
    (row,) = applied(checkpoint, Asked([]))
    assert possible(row) == set(range(TOKENS))
    assert row[:TOKENS] == pytest.approx([id / 10 for id in range(TOKENS)])


def test_masked_ids_are_never_sampled(checkpoint: Path) -> None:
    assert possible(applied(checkpoint, Asked([5], masked=(8, 10)))[0]) == set(range(TOKENS)) - {8, 10}


def test_end_of_sequence_means_the_closer(checkpoint: Path) -> None:
    (row,) = applied(checkpoint, Asked([5], closer=CLOSER))
    assert possible(row) == set(range(TOKENS)) - {END, OTHER_END}
    assert row[CLOSER] == pytest.approx(math.log(math.exp(0.1) + math.exp(0.2) + math.exp(1.7)))
    assert row[CLOSER + 1] == pytest.approx(1.8)


def test_the_sum_keeps_the_dtype_of_the_row(checkpoint: Path) -> None:
    (row,) = applied(checkpoint, Asked([5], closer=CLOSER), dtype=torch.bfloat16)
    assert row[CLOSER] == pytest.approx(math.log(math.exp(0.1) + math.exp(0.2) + math.exp(1.7)), abs=0.01)


@pytest.mark.parametrize(
    ("written", "allowed"), [(2, set(range(TOKENS)) - {END, OTHER_END}), (3, {CLOSER}), (4, {CLOSER})]
)
def test_the_closer_is_forced_as_the_last_token(checkpoint: Path, written: int, allowed: set[int]) -> None:
    assert possible(applied(checkpoint, Asked([5] * written, closer=CLOSER, last=4))[0]) == allowed


def test_after_the_closer_comes_the_end(checkpoint: Path) -> None:
    assert possible(applied(checkpoint, Asked([5, CLOSER], closer=CLOSER))[0]) == {END}
    assert possible(applied(checkpoint, Asked([5, 5, 5, CLOSER], closer=CLOSER, last=4))[0]) == {END}


def test_without_a_closer_nothing_is_forced(checkpoint: Path) -> None:
    assert possible(applied(checkpoint, Asked([CLOSER], last=1))[0]) == set(range(TOKENS))


def test_every_row_of_a_batch_has_its_own_rules(checkpoint: Path) -> None:
    every = set(range(TOKENS))
    rows = applied(
        checkpoint,
        Asked([5], masked=(8, 10)),
        Asked([5], closer=CLOSER),
        Asked([CLOSER], closer=CLOSER),
        Asked([]),
        Asked([5], masked=(8, 10), closer=CLOSER),
        Asked([5, 5], closer=CLOSER, last=3),
    )
    free = every - {END, OTHER_END}
    assert [possible(row) for row in rows] == [every - {8, 10}, free, {END}, every, free - {8, 10}, {CLOSER}]


def test_rows_follow_requests_that_move_and_forget_those_that_leave(checkpoint: Path) -> None:
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    from multiverse.engine.masks import Rules, SegmentRules

    config = SimpleNamespace(model_config=SimpleNamespace(model=str(checkpoint)))
    processor = SegmentRules(config, torch.device("cpu"), False)
    output: list[int] = [5]
    added = [
        (0, SamplingParams(extra_args=Rules(masked=(8,)).to_extra()), [7], [5]),
        (1, SamplingParams(extra_args=Rules((), CLOSER, (END, OTHER_END), 100).to_extra()), [7], output),
    ]
    processor.update_state(BatchUpdate(batch_size=2, removed=[], added=added, moved=[]))
    moved = [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]
    processor.update_state(BatchUpdate(batch_size=1, removed=[0], added=[], moved=moved))
    output.append(CLOSER)
    (row,) = processor.apply((torch.arange(ROWS) / 10)[None]).tolist()
    assert possible(row) == {END}


def test_rules_travel_with_the_sampling_parameters() -> None:
    from vllm import SamplingParams

    from multiverse.engine.masks import Rules

    rules = Rules(masked=(8, 10), closer=CLOSER, end_ids=(END, OTHER_END), last=7)
    assert Rules.of(SamplingParams(extra_args=rules.to_extra())) == rules
    assert Rules.of(SamplingParams()) == Rules(masked=(), closer=None, end_ids=(), last=0)
