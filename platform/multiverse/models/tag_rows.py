"""Embedding and output rows of the tags: means of the sub-tokens of the bare words (paper, released training code).

row index   0 ........ base ....... tokens .......... vocab_size
            | base rows |  tag rows  |  mean of the base |     (a tag's id may also lie below ``base``: there
                                                                the base itself pads its vocabulary)
"""

from collections.abc import Mapping, Sequence

import torch

NOISE = 0.02
"""Standard deviation of the noise relative to the rows' own. `Goal`, `Path` and others are single tokens of many
vocabularies: without noise their tags would be exact copies, which a tied model never learns to tell apart."""

ROW_MULTIPLE = 64


def padded(rows: int) -> int:
    """``rows`` rounded up to a multiple of 64: what tensor parallel shards and GPU kernels like."""
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def with_tag_rows(
    weight: torch.Tensor, pieces: Mapping[int, Sequence[int]], vocab_size: int, dtype: torch.dtype, seed: int
) -> torch.Tensor:
    """``weight`` [base, hidden] grown to [vocab_size, hidden] ``dtype``, with a new row for every id in ``pieces``.

    pieces: tag id -> ids of the sub-tokens whose mean becomes its row. Rows that are neither base nor tag get the mean
    of all base rows, so that an engine which does not mask them gives none more than an average token's logit.
    Raises ValueError if two tag rows are equal in ``dtype``.
    """
    source = weight.float()
    grown = source.mean(0, keepdim=True).repeat(vocab_size, 1)
    grown[: len(source)] = source
    scale = NOISE * source.std()
    generator = torch.Generator().manual_seed(seed)
    for row, ids in sorted(pieces.items()):
        noise = torch.randn(source.shape[1], generator=generator)
        grown[row] = source[list(ids)].mean(0) + scale * noise
    grown = grown.to(dtype)
    if pieces and len(torch.unique(grown[sorted(pieces)], dim=0)) != len(pieces):
        raise ValueError(f"two tags have equal rows in {dtype}: the base's rows have no variance to draw noise from")
    return grown
