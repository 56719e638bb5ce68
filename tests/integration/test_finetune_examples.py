"""What the fine-tune of the tests is given: texts of the grammar, tokenized as they come about when serving."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from multiverse.engine.segment import Sampling, Segment
from multiverse.serving.events import Finished, TokensAdded
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.pieces import encode
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.grammar import Block, parse
from tests.integration.sums import CHAINED, SPLITTING, TRAINING, Task
from tests.unit.serving.fake_engine import FakeEngine


def test_every_answer_is_in_the_grammar_with_a_branch_per_sum() -> None:
    for task in (*TRAINING, *SPLITTING, *CHAINED):
        blocks = [node for node in parse(task.text).body if isinstance(node, Block)]
        assert [len(block.paths) for block in blocks] == ([task.width] if task.width else [])


def test_no_question_comes_twice() -> None:
    assert len({task.question for task in (*TRAINING, *SPLITTING, *CHAINED)}) == 470 + 40 + 20


@pytest.mark.parametrize("task", [SPLITTING[0], CHAINED[0]], ids=["splitting", "chained"])
async def test_training_tokens_are_those_of_serving(builtin_model: Path, task: Task) -> None:
    from multiverse.models.tokens import Tokens
    from tests.integration.finetune import to_example

    tokens = Tokens.load(builtin_model)
    example = to_example(tokens, task)
    prompt = example.ids[: example.sampled.index(True)]

    def model(segment: Segment) -> Iterator[int]:
        """Goes on as the task's answer does behind what the engine has written."""
        for written, following in pairwise(((), *task.answer)):
            ids = prompt if written == () else encode(tokens, written)
            if isinstance(following, str) and list(segment.tokens[-len(ids) :]) == ids:
                return iter(tokens.encode_structured(following))
        raise AssertionError(f"the engine wrote something else: {tokens.decode(segment.tokens)!r}")

    sequencer = Sequencer(FakeEngine(tokens, model), tokens, EngineLimits(max_model_len=2048, trained=True))
    request = GenerationRequest("one", tuple(prompt), Sampling(max_tokens=1000), ParallelOptions(mode="auto"))
    events = [event async for event in sequencer.generate(request)]
    assert isinstance(events[-1], Finished)
    assert [*events[-1].result.tokens, tokens.eos_ids[0]] == example.ids[len(prompt) :]
    written = sum(len(event.tokens) for event in events if isinstance(event, TokensAdded) and event.written)
    assert written == example.sampled[len(prompt) :].count(False)
