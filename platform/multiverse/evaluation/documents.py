"""Structured token documents for measurements: random text in real structure, with lengths chosen where errors hide."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from multiverse.structure.tags import Vocabulary


@dataclass(slots=True)
class DocumentWriter:
    """Writes structured documents of random ordinary tokens. Deterministic for a seed."""

    vocabulary: Vocabulary
    seed: int = 0
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def text(self, count: int) -> list[int]:
        return self._draw.choices(self.vocabulary.ordinary_ids, k=count)

    @property
    def _space(self) -> int:
        return min(self.vocabulary.space_ids)

    def block(self, branches: Sequence[Sequence[int]]) -> list[int]:
        """A whole block over given branch bodies (without ``<Path>`` and ``</Path>``)."""
        tag, space = self.vocabulary.id, self._space
        tokens = [tag("<Parallel>"), space, tag("<Goal>"), space]
        for _ in branches:
            tokens += [tag("<Outline>"), space, *self.text(3), space, tag("</Outline>"), space]
        tokens.append(tag("</Goal>"))
        for body in branches:
            tokens += [space, tag("<Path>"), *body, tag("</Path>")]
        tokens += [space, tag("<Conclusion>"), *self.text(4), tag("</Conclusion>"), space, tag("</Parallel>")]
        return tokens

    def bodies(self, lengths: Sequence[int]) -> list[list[int]]:
        return [self.text(length) for length in lengths]


def border_documents(vocabulary: Vocabulary, block_size: int, seed: int = 0) -> dict[str, list[int]]:
    """Documents by name: 1 to 8 branches, nested and consecutive blocks, two blocks inside one KV block, and branches
    whose ends lie one token before, on and after a KV block border."""
    write = DocumentWriter(vocabulary, seed)
    documents = {}
    for width in range(1, 9):
        lengths = [8 + 5 * branch for branch in range(width)]
        documents[f"width-{width}"] = [*write.text(40), *write.block(write.bodies(lengths)), *write.text(6)]
    for by in (-1, 0, 1):
        # Every span is body + 3 tokens (white space, <Path>, </Path>); the prefix is made to end `by` past a border.
        header = len(write.block([[]] * 3)) - 3 * 3 - 8
        prefix = 2 * block_size + by - header % block_size
        lengths = [block_size - 3, 2 * block_size - 3 + by, block_size - 3 - by]
        documents[f"border{by:+d}"] = [*write.text(prefix), *write.block(write.bodies(lengths)), *write.text(6)]
    nested = [*write.text(9), *write.block(write.bodies([12, 7, 20])), *write.text(5)]
    twice = [*write.text(4), *write.block(write.bodies([6, 6])), *write.text(3), *write.block(write.bodies([11, 5]))]
    documents["nested"] = [*write.text(50), *write.block([nested, write.text(25), twice]), *write.text(6)]
    documents["consecutive"] = [
        *write.text(30),
        *write.block(write.bodies([40, 22])),
        *write.text(50),
        *write.block(write.bodies([15, 33, 18])),
        *write.text(6),
    ]
    documents["close"] = [
        *write.text(20),
        *write.block([[], write.text(1)]),
        *write.block([write.text(2), []]),
        *write.text(6),
    ]
    return documents
