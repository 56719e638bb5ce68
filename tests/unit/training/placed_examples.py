"""Examples of words, with what each word sees told apart from the layout's own answer."""

from collections.abc import Sequence
from zlib import crc32

import torch

from multiverse.structure.tags import word_kinds
from multiverse.training.examples import Example
from multiverse.training.writing import Part

VOCABULARY = 97


def example(words: Sequence[str]) -> Example:
    """Every word is a token and asked for."""
    ids = [crc32(f"{place % 7} {word}".encode()) % VOCABULARY for place, word in enumerate(words)]
    return Example.of(ids, word_kinds(words), [True] * len(ids), [Part.TEXT] * len(ids))


def matrix(*documents: Sequence[str]) -> torch.Tensor:
    """[num_tokens, num_tokens] bool of documents behind each other. Row q of each: "1" where word q sees word k."""
    blocks = []
    for rows in documents:
        seen = torch.zeros(len(rows), len(rows), dtype=torch.bool)
        for query, row in enumerate(rows):
            seen[query, : len(row)] = torch.tensor([int(cell) for cell in row], dtype=torch.bool)
        blocks.append(seen)
    return torch.block_diag(*blocks).bool()
