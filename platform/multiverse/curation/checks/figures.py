"""What one row's structure is like in figures. Tokens are words here, as in ``multiverse inspect``."""

from dataclasses import dataclass

from multiverse.structure.figures import Figures, figures
from multiverse.structure.flatten import flatten_text
from multiverse.structure.tags import split_words, word_kinds


@dataclass(frozen=True, slots=True)
class RowFigures:
    """structure: of the structured chain. chain_tokens: of the chain without its structure.

    shortening: chain_tokens / critical path, the limit of the speed-up against the chain itself. It is below 1 where
    outlines and conclusions are longer than what runs in parallel.
    """

    structure: Figures
    chain_tokens: int
    shortening: float


def row_figures(structured: str) -> RowFigures:
    """Figures of a structured chain. Raises GrammarError."""
    found = figures(word_kinds(split_words(structured)))
    chain_tokens = len(split_words(flatten_text(structured)))
    return RowFigures(found, chain_tokens, chain_tokens / found.critical_path if found.critical_path else 1.0)
