"""Blocks whose branches lean on each other, found by a language model and made sequential again."""

from collections.abc import Sequence
from typing import Protocol

from multiverse.curation.chain.groups import Body, blocks, first_sentence, last_sentence, merge
from multiverse.curation.chain.sentences import Sentence
from multiverse.curation.llm.calls import EndpointError, LLMError
from multiverse.curation.stages.outcome import RowRejectedError


class Scorer(Protocol):
    """The independence check's language model."""

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float | None:
        """Nats per token by which the branches are predicted worse if they do not see those before them: their mean.

        question, before: what all of them see. None: too long to be measured. Raises LLMError.
        """
        ...


async def independent(
    question: str, sentences: Sequence[Sentence], body: Body, scorer: Scorer | None, max_gap: float
) -> tuple[Body, dict[str, float | None], int]:
    """``body`` without the blocks whose branches lean on each other; the gaps by sentences (``"4-9"``); how many went.

    Without a scorer all stay. Raises RowRejectedError, and EndpointError if the scorer's model is gone.
    """
    gaps: dict[str, float | None] = {}
    if scorer is None:
        return body, gaps, 0
    dependent = []
    for block in blocks(body):
        ranges = [(first_sentence(branch.body), last_sentence(branch.body)) for branch in block.branches]
        texts = ["".join(one.text for one in sentences[begin:end]) for begin, end in ranges]
        before = "".join(one.text for one in sentences[: ranges[0][0]])
        try:
            gap = await scorer.gap(question, before, texts)
        except EndpointError:
            raise
        except LLMError as error:
            raise RowRejectedError("independence", str(error), error.retryable) from error
        gaps[f"{ranges[0][0] + 1}-{ranges[-1][1]}"] = gap
        if gap is not None and gap > max_gap:
            dependent.append(block)
    return merge(body, dependent), gaps, len(dependent)
