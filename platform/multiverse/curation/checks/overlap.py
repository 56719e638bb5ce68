"""Texts that have too much in common: with evaluation questions, and with each other.

Words are compared: runs of letters and digits, in lower case.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import xxhash

NGRAM = 13
"""Words in a row that a row may not share with an evaluation question."""
SHINGLE = 5
"""Words in a row by which rows are compared with each other."""
NEAR_DUPLICATE = 0.8
"""Share of their shingles that two rows have in common, from which on they are near-duplicates."""

_WORD = re.compile(r"[^\W_]+")
_BANDS, _ROWS = 32, 4
"""Hashes of a signature: rows are compared if one band is equal, which at a share of 0.8 is all but certain."""
_FACTORS, _OFFSETS = np.random.default_rng(0).integers(1, 2**63, size=(2, _BANDS * _ROWS, 1), dtype=np.uint64)


def words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


class EvaluationQuestions:
    """Finds evaluation questions in rows by their n-grams; shorter ones where they are all of a question or chain."""

    def __init__(self, questions: Mapping[str, str]) -> None:
        """questions: by their names, for instance ``"aime24/3"``."""
        self._names: dict[str, str] = {}
        for name, question in questions.items():
            for ngram in _ngrams(words(question), NGRAM):
                self._names.setdefault(ngram, name)
        self._names.pop("", None)

    def find(self, question: str, chain: str) -> str | None:
        """The name of a question that a row's question or chain shares 13 words in a row with."""
        found = (
            self._names[ngram]
            for text in (question, chain)
            for ngram in _ngrams(words(text), NGRAM)
            if ngram in self._names
        )
        return next(found, None)


class Duplicates:
    """Finds rows that are almost an earlier one (MinHash over shingles, banded). The same on every machine."""

    def __init__(self) -> None:
        self._signatures: dict[str, np.ndarray] = {}
        self._bands: dict[bytes, list[str]] = {}

    def add(self, row_id: str, text: str) -> str | None:
        """The id of an earlier row that ``text`` duplicates; None if there is none, and the row is then remembered."""
        signature = _signature(_ngrams(words(text), SHINGLE))
        keys = [bytes([band]) + part.tobytes() for band, part in enumerate(np.split(signature, _BANDS))]
        candidates = dict.fromkeys(other for key in keys for other in self._bands.get(key, ()))
        for other in candidates:
            if np.mean(self._signatures[other] == signature) >= NEAR_DUPLICATE:
                return other
        self._signatures[row_id] = signature
        for key in keys:
            self._bands.setdefault(key, []).append(row_id)
        return None


def _ngrams(found: list[str], length: int) -> Iterable[str]:
    """Words in a row as one text; all of them where there are fewer."""
    return [" ".join(found[at : at + length]) for at in range(max(1, len(found) - length + 1))]


def _signature(shingles: Iterable[str]) -> np.ndarray:
    """[bands * rows] uint64: per hash function the least over the shingles."""
    hashes = np.array([xxhash.xxh3_64_intdigest(shingle.encode("utf-8")) for shingle in shingles], dtype=np.uint64)
    # Products wrap around; their upper bits are what is random about them.
    mixed: np.ndarray = ((hashes * (_FACTORS | np.uint64(1)) + _OFFSETS) >> np.uint64(16)).min(axis=1)
    return mixed
