"""What a structured chain is like in figures."""

from dataclasses import dataclass

import numpy as np

from multiverse.structure.layout import layout


@dataclass(frozen=True, slots=True)
class Figures:
    """blocks: parallel blocks at all depths, with their widths in the order of their forks.

    depth: of the deepest block, 0 for a sequential chain. critical_path: positions from start to end.
    parallelism: tokens / critical path.
    """

    blocks: int
    widths: tuple[int, ...]
    depth: int
    tokens: int
    critical_path: int
    parallelism: float


def figures(kinds: np.ndarray) -> Figures:
    """Figures of tokens of these `Kind` s, [num_tokens] uint8."""
    placed = layout(kinds)
    return Figures(
        blocks=len(placed.blocks),
        widths=tuple(block.width for block in placed.blocks),
        depth=max((block.depth for block in placed.blocks), default=0),
        tokens=len(kinds),
        critical_path=placed.critical_path,
        parallelism=placed.parallelism,
    )
