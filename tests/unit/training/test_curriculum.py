"""The order of rows and their forms."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from multiverse.training.curriculum import Curriculum


def shares(curriculum: Curriculum) -> list[int]:
    """Rows in the Multiverse form, by pass."""
    sequence = list(curriculum.between(0, len(curriculum)))
    return [sum(form == "multiverse" for _, form in sequence[part]) for part in curriculum.pass_slices()]


def structured(curriculum: Curriculum, number: int) -> set[int]:
    part = curriculum.pass_slices()[number]
    return {row for row, form in curriculum.between(part.start, part.stop) if form == "multiverse"}


def test_the_papers_eight_passes() -> None:
    assert shares(Curriculum(rows=1000, seed=0)) == [0, 0, 100, 500, 500, 900, 1000, 1000]


def test_every_pass_has_every_row_once_in_an_order_of_its_own() -> None:
    curriculum = Curriculum(rows=100, seed=0)
    passes = [[row for row, _ in curriculum.between(part.start, part.stop)] for part in curriculum.pass_slices()]
    assert [sorted(rows) for rows in passes] == [list(range(100))] * 8
    assert len(set(map(tuple, passes))) == 8
    assert list(range(100)) not in passes


def test_the_fifth_pass_has_the_other_half() -> None:
    curriculum = Curriculum(rows=101, seed=3)
    assert structured(curriculum, 3) | structured(curriculum, 4) == set(range(101))
    assert structured(curriculum, 3) & structured(curriculum, 4) == set()


def test_every_row_comes_four_times_in_each_form() -> None:
    curriculum = Curriculum(rows=57, seed=1)
    counts = Counter(curriculum.between(0, len(curriculum)))
    assert counts == {(row, form): 4 for row in range(57) for form in ("ar", "multiverse")}


def test_linear_mixture_rises_in_equal_steps_and_rows_keep_their_form() -> None:
    curriculum = Curriculum(rows=80, seed=0, kind="linear", passes=5)
    assert shares(curriculum) == [0, 20, 40, 60, 80]
    chosen = [structured(curriculum, number) for number in range(5)]
    assert all(before < behind for before, behind in pairwise(chosen))


@pytest.mark.parametrize("kind", ["ar", "multiverse"])
def test_a_single_stage_has_one_form(kind: str) -> None:
    curriculum = Curriculum(rows=10, seed=0, kind=kind, passes=3)  # type: ignore[arg-type]
    assert {form for _, form in curriculum.between(0, 30)} == {kind}


def test_the_baseline_has_the_same_rows_at_the_same_positions() -> None:
    paper, baseline = Curriculum(rows=40, seed=7), Curriculum(rows=40, seed=7, kind="ar")
    assert len(baseline) == len(paper) == 320
    assert [row for row, _ in baseline.between(0, 320)] == [row for row, _ in paper.between(0, 320)]


def test_resumed_anywhere_it_goes_on_as_it_would_have() -> None:
    whole = list(Curriculum(rows=30, seed=5).between(0, 240))
    assert list(Curriculum(rows=30, seed=5).between(101, 240)) == whole[101:]
    assert [Curriculum(rows=30, seed=5)[position] for position in (0, 59, 239)] == [whole[0], whole[59], whole[239]]


def test_another_seed_is_another_order() -> None:
    assert list(Curriculum(30, seed=5).between(0, 30)) != list(Curriculum(30, seed=6).between(0, 30))


def test_the_order_of_a_seed_does_not_change_between_versions() -> None:
    fourth = [(3, "ar"), (5, "multiverse"), (0, "ar"), (2, "multiverse"), (4, "multiverse"), (1, "ar")]
    assert list(Curriculum(rows=6, seed=0).between(18, 24)) == fourth


def test_between_ends_with_the_curriculum() -> None:
    assert len(list(Curriculum(rows=3, seed=0).between(20, 100))) == 4


@pytest.mark.parametrize("position", [-1, 24])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(IndexError, match=f"position {position} of a curriculum of 24"):
        Curriculum(rows=3, seed=0)[position]


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="needs rows, not 0"):
        Curriculum(rows=0, seed=0)
    with pytest.raises(ValueError, match="3 passes: the curriculum 'paper' has 8"):
        Curriculum(rows=1, seed=0, passes=3)
    with pytest.raises(ValueError, match="0 passes: the curriculum 'ar' needs at least 1"):
        Curriculum(rows=1, seed=0, kind="ar", passes=0)


def test_it_is_plain_python(root: Path) -> None:
    code = "import sys, multiverse.training.curriculum; print({'torch', 'numpy', 'ray'} & sys.modules.keys())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root / "platform")}, capture_output=True, text=True
    )
    assert run.stdout == "set()\n"
