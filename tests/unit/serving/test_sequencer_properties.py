"""What holds for any text a model writes."""

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from multiverse.serving.answer.reading_order import ReadingOrder
from multiverse.serving.events import TokensAdded
from multiverse.structure.grammar import parse
from multiverse.structure.layout import layout
from tests.unit.serving.fake_engine import WordCodec
from tests.unit.serving.sequencer_harness import Run, babble, run

OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.sampled_from([5, 20, 60, 150, 400]),
        "max_width": st.sampled_from([1, 2, 8]),
        "max_depth": st.sampled_from([1, 2, 3]),
        "max_branch_tokens": st.sampled_from([None, None, 5, 12, 40]),
        "max_positions": st.sampled_from([None, None, 10, 50, 100]),
    }
)
SEEDS = st.integers(0, 10**6)
WILD = st.sampled_from([0.0, 0.05, 0.3])
QUICK = settings(max_examples=40, deadline=None)


def generated(seed: int, wild: float, options: dict[str, int | None], jitter: int | None = None) -> Run:
    codec = WordCodec()
    for word in ("Q", " a", " b", " c", " so", " word", *(f"{number}:" for number in range(1, 60))):
        codec.word(word)  # the same ids whichever branch comes first
    model = babble(codec, seed, wild)
    return asyncio.run(run(model, codec=codec, jitter=jitter, **options))  # type: ignore[arg-type]


@QUICK
@given(SEEDS, WILD, OPTIONS)
def test_every_block_has_as_many_closed_branches_as_outlines(
    seed: int, wild: float, options: dict[str, int | None]
) -> None:
    done = generated(seed, wild, options)
    for block in layout(done.codec.vocabulary.kinds(done.result.tokens)).blocks:
        assert len(block.spans) == block.width
        assert all(span.closed for span in block.spans)


@QUICK
@given(SEEDS, WILD, OPTIONS)
def test_no_budget_is_exceeded(seed: int, wild: float, options: dict[str, int | None]) -> None:
    result = generated(seed, wild, options).result
    assert len(result.tokens) <= (options["max_tokens"] or 0)
    assert result.critical_path <= (options["max_positions"] or 400)


@QUICK
@given(SEEDS, OPTIONS)
def test_well_formed_text_stays_well_formed_unless_a_fallback_is_told(
    seed: int, options: dict[str, int | None]
) -> None:
    done = generated(seed, 0.0, options)
    if not done.result.fallbacks:
        parse(done.text)


@QUICK
@given(SEEDS, WILD, OPTIONS, st.integers(0, 1000))
def test_the_result_does_not_depend_on_timing_or_waves(
    seed: int, wild: float, options: dict[str, int | None], jitter: int
) -> None:
    one = generated(seed, wild, options).result
    other = generated(seed, wild, options | {"max_width": 3}, jitter).result
    assert one.tokens == other.tokens
    assert (one.finish, sorted(one.fallbacks)) == (other.finish, sorted(other.fallbacks))


@QUICK
@given(SEEDS, WILD, OPTIONS, st.integers(0, 1000))
@example(seed=188, wild=0.0, options={"max_tokens": 400, "max_width": 8, "max_depth": 2}, jitter=1)
def test_the_events_tell_all_tokens(seed: int, wild: float, options: dict[str, int | None], jitter: int) -> None:
    done = generated(seed, wild, options, jitter)
    order = ReadingOrder()
    read = [id for event in done.events for added in order.push(event) for id in added.tokens]
    assert tuple(read) == done.result.tokens
    assert len(read) == sum(len(event.tokens) for event in done.events if isinstance(event, TokensAdded))


@QUICK
@given(SEEDS, WILD, OPTIONS)
def test_the_critical_path_is_the_layouts(seed: int, wild: float, options: dict[str, int | None]) -> None:
    done = generated(seed, wild, options)
    whole = layout(done.codec.vocabulary.kinds((*done.codec.encode("Q"), *done.result.tokens)))
    assert done.result.critical_path == whole.next_position - 1
