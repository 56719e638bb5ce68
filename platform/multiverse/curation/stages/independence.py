"""Blocks whose branches lean on each other, found by a language model and made sequential again."""

from collections.abc import Sequence
from typing import Protocol

from multiverse.curation.chain.groups import Body, blocks, first_sentence, last_sentence, merge
from multiverse.curation.chain.sentences import Sentence


class Scorer(Protocol):
    """The independence check's language model."""

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float:
        """Nats per token by which the branches are predicted worse if they do not see those before them: their mean.

        question, before: what all of them see.
        """
        ...


async def independent(
    question: str, sentences: Sequence[Sentence], body: Body, scorer: Scorer | None, max_gap: float
) -> tuple[Body, dict[str, float], int]:
    """``body`` without the blocks whose branches lean on each other; the gaps by sentences (``"4-9"``); how many went.

    Without a scorer all stay.
    """
    gaps: dict[str, float] = {}
    if scorer is None:
        return body, gaps, 0
    dependent = []
    for block in blocks(body):
        ranges = [(first_sentence(branch.body), last_sentence(branch.body)) for branch in block.branches]
        texts = ["".join(one.text for one in sentences[begin:end]) for begin, end in ranges]
        before = "".join(one.text for one in sentences[: ranges[0][0]])
        gap = gaps[f"{ranges[0][0] + 1}-{ranges[-1][1]}"] = await scorer.gap(question, before, texts)
        if gap > max_gap:
            dependent.append(block)
    return merge(body, dependent), gaps, len(dependent)
