import pytest
import torch

from multiverse.models.tag_rows import padded, with_tag_rows


@pytest.mark.parametrize(("rows", "expected"), [(1, 64), (64, 64), (65, 128), (49164, 49216)])
def test_rows_are_padded_to_a_multiple_of_64(rows: int, expected: int) -> None:
    assert padded(rows) == expected


def test_a_tag_row_is_the_mean_of_its_pieces_but_for_a_little_noise() -> None:
    weight = _weight()
    grown = with_tag_rows(weight, {10: [2], 11: [3, 4]}, 64, torch.float32, seed=0)
    assert _relative(grown[10], weight[2]) == pytest.approx(0.02, rel=0.3)
    assert _relative(grown[11], (weight[3] + weight[4]) / 2) == pytest.approx(0.02, rel=0.3)


def test_tags_of_the_same_pieces_get_different_rows_even_in_bfloat16() -> None:
    grown = with_tag_rows(_weight(), {10: [2], 11: [2]}, 64, torch.bfloat16, seed=0)
    assert not torch.equal(grown[10], grown[11])
    assert not torch.equal(grown[10], grown[2])


def test_base_rows_stay_bit_for_bit_and_padding_is_their_mean() -> None:
    weight = _weight()
    grown = with_tag_rows(weight, {10: [2]}, 64, torch.float32, seed=0)
    assert torch.equal(grown[:10], weight)
    assert torch.equal(grown[11:], weight.mean(0).expand(53, -1))


def test_a_tag_inside_the_bases_own_padding_replaces_that_row() -> None:
    weight = _weight()
    grown = with_tag_rows(weight, {7: [2]}, 64, torch.float32, seed=0)
    assert _relative(grown[7], weight[2]) < 0.03
    assert torch.equal(grown[8], weight[8])


def test_the_seed_decides_the_noise() -> None:
    first, again, other = (with_tag_rows(_weight(), {10: [2]}, 64, torch.float32, seed)[10] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_equal_tag_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="two tags have equal rows"):
        with_tag_rows(torch.ones(10, 8), {10: [2], 11: [3]}, 64, torch.float32, seed=0)


def _weight() -> torch.Tensor:
    return torch.randn(10, 512, generator=torch.Generator().manual_seed(5))


def _relative(row: torch.Tensor, base: torch.Tensor) -> float:
    return float((row - base).std() / _weight().std())
