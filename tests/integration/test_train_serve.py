"""Training and serving are the same: ids, and log-probabilities in float32."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from multiverse.evaluation.free import reading_order
from multiverse.models.tokens import Tokens
from multiverse.serving.sequencing.pieces import encode
from multiverse.structure.tags import Kind
from multiverse.training.examples import Example, ExampleSettings, build_examples
from multiverse.training.packing import Batch
from multiverse.training.rows import Row

if TYPE_CHECKING:
    from tests.integration.engine_harness import Harness

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

LOSSLESS = 1e-4
"""Largest |difference of log-probabilities| in float32."""
QUESTION = "Name a fruit and a colour."


def goal(*outlines: str) -> str:
    inner = "".join(f"<Outline>\n{outline}\n</Outline>\n" for outline in outlines)
    return f"<Parallel>\n<Goal>\n{inner}</Goal>"


OPENING = f"Let's think in parallel.\n{goal('1: a fruit', '2: a colour')}"
FIRST = f" Fruits of two colours.\n{goal('1.1: red fruit', '1.2: green fruit')}"
RED, GREEN = " A ripe cherry is red, and so is a strawberry.\n</Path>", " The lime stays green.\n</Path>"
BOTH = "\nThere are both.\n</Conclusion>\n</Parallel>\nSo let us take a cherry.\n</Path>"
COLOUR = " Blue is the colour of a clear sky at noon.\n</Path>"
CLOSING = "\nA cherry and blue.\n</Conclusion>\n</Parallel>\nThese are the two that were asked for."
HEAD, CONCLUSION = ("\n", "<Path>", "\n"), ("\n", "<Conclusion>")
CHAIN = (
    f"{OPENING}\n<Path>\n1:{FIRST}\n<Path>\n1.1:{RED}\n<Path>\n1.2:{GREEN}\n<Conclusion>{BOTH}"
    f"\n<Path>\n2:{COLOUR}\n<Conclusion>{CLOSING}"
)


@pytest.fixture
def training_model(reference: Any) -> Iterator[Any]:
    """The reference with the attention of training."""
    from multiverse.training.attention import NAME

    reference.set_attn_implementation(NAME)
    yield reference
    reference.set_attn_implementation("sdpa")


def examples(tokens: Tokens) -> tuple[Example, Example]:
    """Another example to be packed with, and that of `CHAIN`."""
    other = CHAIN.replace("cherry", "plum").replace("Blue", "Violet").replace(" A ripe plum is red, and so", " So")
    rows = [Row("other", QUESTION, other, ""), Row("one", QUESTION, CHAIN, "Answer: a cherry, blue.")]
    (before, one), _ = build_examples(rows, tokens, ExampleSettings(max_tokens=1000, invalid="fail"))
    return before.multiverse, one.multiverse


def dictate(engine: "Harness", prompt: tuple[int, ...]) -> None:
    """Have the model write `CHAIN` in tokens as training has them."""
    tokens = engine.engine.tokens
    written = [
        (list(prompt), OPENING),
        (encode(tokens, (*HEAD, "1:")), FIRST),
        (encode(tokens, (*HEAD, "1.1:")), RED),
        (encode(tokens, (*HEAD, "1.2:")), GREEN),
        ([*tokens.encode_structured(GREEN), *encode(tokens, CONCLUSION)], BOTH),
        (encode(tokens, (*HEAD, "2:")), COLOUR),
        ([*tokens.encode_structured(COLOUR), *encode(tokens, CONCLUSION)], f"{CLOSING}\nAnswer: a cherry, blue."),
    ]
    script = [(marker, tokens.encode_structured(text)) for marker, text in written]
    script[-1][1].append(tokens.eos_ids[0])
    Path(engine.script).write_text(json.dumps(script), encoding="utf-8")


async def test_training_computes_what_the_engine_does_for_the_same_tokens(
    engine: "Harness", training_model: Any
) -> None:
    from multiverse.training.attention import inputs

    tokens = engine.engine.tokens
    other, example = examples(tokens)
    prompt = engine.chat(QUESTION)
    dictate(engine, prompt)
    run = await engine.run(prompt, mode="auto")
    assert (run.result.finish, run.result.fallbacks) == ("stop", ())
    assert [*prompt, *run.result.tokens, tokens.eos_ids[0]] == example.ids.tolist()

    batch = Batch.of([other, example])
    with torch.inference_mode():
        logprobs = torch.log_softmax(training_model(**inputs(batch)).logits[0].float(), -1)
    answer = reading_order(prompt, run.events)
    kinds, before = tokens.vocabulary.kinds(example.ids), example.predecessors()
    differences = []
    for index, entry in enumerate(answer.logprobs, len(prompt)):
        assert example.loss[index] == (entry is not None)
        # The engine joins a closer's probability with that of the end of the sequence.
        if entry is not None and kinds[index] in (Kind.TEXT, Kind.SPACE):
            source = len(other) + before[index]
            assert batch.labels[source] == entry.token
            differences.append(abs(float(logprobs[source, entry.token]) - entry.logprob))
    assert len(differences) >= 100
    assert max(differences) <= LOSSLESS
