"""How much the branches of a block lean on each other, by what a language model makes of them.

    seen     question | before | branch 1 | branch 2 | branch 3      one forward for all of them
    hidden   question | before | branch 2
             question | before | branch 3

A branch that uses what a sibling found is predicted worse without it. Both are plain causal texts.
"""

import asyncio
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean

from multiverse.curation.llm.local import LocalEngine


class IndependenceScorer:
    """A `Scorer`. ``engine`` is its owner's to stop."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float | None:
        """Per branch from the second on, the mean of log p(seen) - log p(hidden) over its tokens; of these the mean.

        Negative where the siblings mislead the model. What is too long for the model's context loses the beginning of
        ``before``, in all texts alike; None where question and branches are too long by themselves.
        Raises LLMError as `LocalEngine.run` does.
        """
        tokens = self._engine.tokens
        chat = tokens.chat([{"role": "user", "content": question}])
        # Tokenized apart: a branch is the same tokens whatever stands before it.
        parts = [tokens.encode_plain(branch) for branch in branches]
        ends = list(accumulate(map(len, parts)))
        room = self._engine.max_model_len - 1 - len(chat) - ends[-1]
        if room < 0:
            return None
        context = tokens.encode_plain(before)
        prefix = [*chat, *context[max(0, len(context) - room) :]]
        everything = [*prefix, *(id for part in parts for id in part)]
        seen, *hidden = await asyncio.gather(
            self._engine.logprobs(everything, len(prefix) + ends[0]),
            *(self._engine.logprobs([*prefix, *part], len(prefix)) for part in parts[1:]),
        )
        starts = [end - ends[0] for end in ends[:-1]]  # in ``seen``, which begins with the second branch
        return fmean(
            fmean(seen[start : start + len(alone)]) - fmean(alone) for start, alone in zip(starts, hidden, strict=True)
        )
