"""The tags, and what each token is to the layout: a tag, white space, or ordinary text (see docs/structures.md)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

LAYOUT_VERSION = 1
"""Raised when the same token ids would get other positions or another visibility: caches must not be shared."""

LEAD_IN = "Let's think in parallel."
"""The optional line before a block that announces it."""


class Kind(IntEnum):
    TEXT = 0
    SPACE = 1
    THINK = 2
    THINK_END = 3
    PARALLEL = 4
    PARALLEL_END = 5
    GOAL = 6
    GOAL_END = 7
    OUTLINE = 8
    OUTLINE_END = 9
    PATH = 10
    PATH_END = 11
    CONCLUSION = 12
    CONCLUSION_END = 13

    @property
    def is_tag(self) -> bool:
        return self > Kind.SPACE

    @property
    def is_closer(self) -> bool:
        return self.is_tag and self % 2 == 1


def _name(kind: Kind) -> str:
    return f"<{'/' if kind.is_closer else ''}{kind.name.removesuffix('_END').title()}>"


TAGS: dict[str, Kind] = {_name(kind): kind for kind in Kind if kind.is_tag}
"""Tag strings in the order of their kinds: ``"<Think>" -> Kind.THINK`` and so on."""

NAMES: dict[Kind, str] = {kind: name for name, kind in TAGS.items()}

TAG_PATTERN = re.compile("|".join(map(re.escape, TAGS)))


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's ids are. ``space_ids``: ids whose text is white space only; ids from ``size`` on are text."""

    tag_ids: Mapping[str, int]
    space_ids: frozenset[int]
    size: int

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(self.size + 1, Kind.TEXT, dtype=np.uint8)
        table[list(self.space_ids)] = Kind.SPACE
        for tag, id in self.tag_ids.items():
            table[id] = TAGS[tag]
        return table

    @cached_property
    def ordinary_ids(self) -> list[int]:
        """Ids of text, in which neither tags nor white space are; without the lowest, which are bytes and control."""
        special = set(self.tag_ids.values()) | self.space_ids
        return [id for id in range(min(300, self.size // 2), self.size) if id not in special]

    def kinds(self, token_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[num_tokens] uint8 of `Kind`."""
        ids = np.asarray(token_ids, dtype=np.int64)
        kinds: np.ndarray = self._table[np.minimum(ids, self.size)]
        return kinds

    def kind(self, token_id: int) -> Kind:
        return Kind(int(self._table[min(token_id, self.size)]))

    def id(self, tag: str) -> int:
        """The token id of a tag, ``"<Path>"`` for instance."""
        return self.tag_ids[tag]


def split_words(text: str) -> list[str]:
    """Words of a text: each tag, each run of white space, each other run of characters. Joined they are the text."""
    words: list[str] = []
    for piece in re.split(f"({TAG_PATTERN.pattern})", text):
        words += [piece] if piece in TAGS else re.findall(r"\s+|\S+", piece)
    return words


def word_kinds(words: Sequence[str]) -> np.ndarray:
    """[num_words] uint8 of `Kind`, for tokens that are words: tags, words of white space only (SPACE) and all else."""
    return np.array([TAGS.get(word, Kind.SPACE if word.isspace() else Kind.TEXT) for word in words], dtype=np.uint8)
