"""Shapes of answers: made for a parallelism, read from chains, and what a script has a model write for them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from multiverse.engine.segment import Delta, Placed, Sampling, Segment
from multiverse.engine.segment import Fork as PlacedFork
from multiverse.evaluation.speed.script import Script, Writer, key
from multiverse.evaluation.speed.shape import Fork, Shape, even, of_chain, rows_by_step
from multiverse.models.tokens import Tokens
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.grammar import parse
from multiverse.structure.layout import layout

NESTED = Shape((12, Fork((Shape((20, Fork((Shape((9,)), Shape((15,)))), 6)), Shape((30,))), conclusion=4), 11))


def parallelism_behind_the_fork(shape: Shape, tokens: Tokens) -> float:
    written = Writer(tokens).answer(shape)
    steps = rows_by_step(written.tokens, tokens.vocabulary, written.goal + 1)
    return sum(rows * count for rows, count in steps.items()) / sum(steps.values())


@pytest.mark.parametrize(("x", "low"), [(1.0, 1.0), (1.5, 1.48), (2.0, 1.95), (4.0, 3.8), (8.0, 7.4)])
def test_even_shape_has_the_parallelism_that_was_asked_for(x: float, low: float, tokens: Tokens) -> None:
    assert low <= parallelism_behind_the_fork(even(x, 128), tokens) <= x


def test_branches_have_the_length_that_was_asked_for(tokens: Tokens) -> None:
    written = Writer(tokens).answer(even(4.0, 128))
    (block,) = layout(tokens.vocabulary.kinds(list(written.tokens))).blocks
    assert [span.end - span.start for span in block.spans] == [128, 128, 128, 128]


def test_width_is_the_next_whole_number_and_the_rest_is_in_sequence() -> None:
    assert even(1.5, 100) == Shape((Fork((Shape((97,)), Shape((97,)))), 100))
    assert even(1.0, 100) == Shape((Fork((Shape((97,)),)),))


@pytest.mark.parametrize("shape", [even(1.0, 32), even(3.0, 24), NESTED], ids=["one", "three", "nested"])
def test_what_is_written_is_a_document_of_that_shape(shape: Shape, tokens: Tokens) -> None:
    written = Writer(tokens).answer(shape)
    text = tokens.decode(written.tokens)
    parse(text)
    assert tokens.encode_structured(text) == list(written.tokens)
    assert of_chain(written.tokens, tokens.vocabulary) == as_read(shape, tokens)


def as_read(shape: Shape, tokens: Tokens) -> Shape:
    """A shape as it is read again: shorter branches have grown to hold their label."""
    return of_chain(Writer(tokens, seed=5).answer(shape).tokens, tokens.vocabulary)


def test_shape_of_a_chain_tells_lengths_of_text_branches_and_conclusion(tokens: Tokens) -> None:
    written = Writer(tokens).answer(NESTED)
    shape = of_chain(written.tokens, tokens.vocabulary)
    before, fork, behind = shape.parts
    assert (before, behind) == (12, 11)
    assert isinstance(fork, Fork)
    assert fork.conclusion == 4
    assert fork.branches[1] == Shape((30,))
    first, inner, last = fork.branches[0].parts
    assert (first, last) == (20, 6)
    assert isinstance(inner, Fork)
    assert [branch.parts for branch in inner.branches] == [(9,), (15,)]


def test_chain_without_a_block_is_refused(tokens: Tokens) -> None:
    with pytest.raises(ValueError, match="no block ends"):
        of_chain(Writer(tokens).text(30), tokens.vocabulary)


def test_rows_by_step_add_up_to_tokens_and_critical_path(tokens: Tokens) -> None:
    written = Writer(tokens).answer(NESTED)
    placed = layout(tokens.vocabulary.kinds(list(written.tokens)))
    steps = rows_by_step(written.tokens, tokens.vocabulary)
    assert sum(rows * count for rows, count in steps.items()) == len(written.tokens)
    assert sum(steps.values()) == placed.critical_path
    assert set(steps) == {1, 2}


class FollowsScript:
    """A segment engine without a model: it writes what the script says."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        for token in self.script.following(segment.tokens) or ():
            if token in segment.masked:
                raise AssertionError(f"token {token} is masked")
            last = token in (*segment.stop_ids, segment.closer)
            ended = token == 1  # the end of sequence
            yield Delta(() if ended else (token,), finish="stop" if last or ended else None)
            if last or ended:
                return
        if segment.prefill_only:
            yield Delta((), finish="stop")

    async def release(self, leases: Sequence[str]) -> None:
        return

    def place(self, fork: PlacedFork) -> Placed:
        return Placed(("",) * fork.width)

    def elsewhere(self, replica: str) -> str:
        return replica


@pytest.mark.parametrize("shape", [even(1.5, 24), even(8.0, 32), NESTED], ids=["behind", "eight", "nested"])
def test_sequencer_that_follows_a_script_gives_the_answer_as_written(shape: Shape, tokens: Tokens) -> None:
    writer = Writer(tokens)
    prompt, written = writer.text(40), writer.answer(shape)
    engine = Sequencer(FollowsScript(written.script(len(prompt))), tokens, EngineLimits(8192, trained=False))
    options = ParallelOptions(mode="auto", max_width=64, max_depth=8)
    request = GenerationRequest("one", tuple(prompt), Sampling(8000, temperature=0.0), options)

    async def answer() -> Result:
        async for event in engine.generate(request):
            if isinstance(event, Finished):
                return event.result
        raise AssertionError("no end")

    result = asyncio.run(answer())
    assert result.tokens == written.tokens
    assert result.fallbacks == ()
    assert result.finish == "stop"


def test_script_goes_on_in_the_middle_of_a_stretch_and_knows_other_text_from_its_own(tmp_path: Path) -> None:
    script = Script(2, {key([]): (5, 6, 7), key([5, 6, 7, 9]): (8,)})
    script.save(tmp_path / "script.json")
    again = Script.load(tmp_path / "script.json")
    assert again == script
    assert again.following([1, 1]) == (5, 6, 7)
    assert again.following([3, 4, 5, 6]) == (7,)
    assert again.following([1, 1, 5, 6, 7, 9]) == (8,)
    assert again.following([1, 1, 5, 9]) is None


def test_same_seed_same_answer(tokens: Tokens) -> None:
    assert Writer(tokens, 3).answer(NESTED) == Writer(tokens, 3).answer(NESTED)
    assert Writer(tokens, 3).answer(NESTED) != Writer(tokens, 4).answer(NESTED)
