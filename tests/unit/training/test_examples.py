"""Rows as tokens: those of serving, with layout and loss; and what becomes of rows that do not fit."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from multiverse.engine.segment import Sampling, Segment
from multiverse.models.tokens import Tokens
from multiverse.serving.events import Finished, TokensAdded
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.layout import layout
from multiverse.training.examples import (
    PARALLEL_SUFFIX,
    SEQUENTIAL_SUFFIX,
    Example,
    ExampleSettings,
    Report,
    Twins,
    build_examples,
)
from multiverse.training.rows import Row, RowError
from multiverse.training.writing import Part
from tests.unit.serving.fake_engine import FakeEngine

ROOMY = ExampleSettings(max_tokens=4000)
QUESTION = "Find both and the sum"


def goal(*outlines: str) -> str:
    inner = "".join(f"<Outline>\n{outline}\n</Outline>\n" for outline in outlines)
    return f"<Parallel>\n<Goal>\n{inner}</Goal>"


NESTED = {
    "": f"<Think>\nLet's think in parallel.\n{goal('1: one', '2: two')}",
    "2: two\n</Outline>\n</Goal>\n<Path>\n1:": f" First,\n{goal('1.1: the', '1.2: and')}",
    "\n<Path>\n1.1:": " the one\n</Path>",
    "\n<Path>\n1.2:": " and two\n</Path>",
    "\n<Path>\n1.2: and two\n</Path>\n<Conclusion>": "\nboth\n</Conclusion>\n</Parallel>\nthen.\n</Path>",
    "\n<Path>\n2:": " Find three\n</Path>",
    "\n<Path>\n2: Find three\n</Path>\n<Conclusion>": "\nsum\n</Conclusion>\n</Parallel>\nSo four.\n</Think>\nfour",
}
"""What the model writes, by what stands before it."""
NESTED_TEXT = (
    f"{NESTED['']}\n<Path>\n1: First,\n{goal('1.1: the', '1.2: and')}\n<Path>\n1.1: the one\n</Path>\n<Path>\n"
    "1.2: and two\n</Path>\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>\nthen.\n</Path>\n<Path>\n2: Find three\n"
    "</Path>\n<Conclusion>\nsum\n</Conclusion>\n</Parallel>\nSo four.\n</Think>"
)
ROW = Row("nested", QUESTION, NESTED_TEXT, "four", "sums")


def twins(tokens: Tokens, row: Row, settings: ExampleSettings = ROOMY) -> Twins:
    (pair,), _ = build_examples([row], tokens, settings)
    return pair


def text(tokens: Tokens, example: Example) -> str:
    return tokens.decode(example.ids.tolist())


def asked(tokens: Tokens, example: Example) -> str:
    return tokens.decode(example.ids[example.loss].tolist())


async def test_tokens_and_loss_are_those_of_serving(tokens: Tokens) -> None:
    example = twins(tokens, ROW).multiverse
    prompt = tokens.chat([{"role": "user", "content": QUESTION}])

    def model(segment: Segment) -> Iterator[int]:
        so_far = tokens.decode(segment.tokens[len(prompt) :])
        key = max((key for key in NESTED if so_far.endswith(key) and bool(key) == bool(so_far)), key=len)
        return iter(tokens.encode_structured(NESTED[key]))

    sequencer = Sequencer(FakeEngine(tokens, model), tokens, EngineLimits(max_model_len=4096, trained=True))  # type: ignore[arg-type]
    request = GenerationRequest("one", tuple(prompt), Sampling(max_tokens=2000), ParallelOptions(mode="auto"))
    events = [event async for event in sequencer.generate(request)]
    assert isinstance(events[-1], Finished)
    assert (events[-1].result.finish, events[-1].result.fallbacks) == ("stop", ())
    assert [*prompt, *events[-1].result.tokens, tokens.eos_ids[0]] == example.ids.tolist()
    sampled = sum(len(event.tokens) for event in events if isinstance(event, TokensAdded) and not event.written)
    assert sampled + 1 == example.loss.sum()


def test_loss_is_on_what_the_model_writes_and_the_end(tokens: Tokens) -> None:
    example = twins(tokens, ROW).multiverse
    assert asked(tokens, example) == (
        f"{NESTED['']} First,\n{goal('1.1: the', '1.2: and')} the one\n</Path> and two\n</Path>\nboth\n</Conclusion>\n"
        "</Parallel>\nthen.\n</Path> Find three\n</Path>\nsum\n</Conclusion>\n</Parallel>\nSo four.\n</Think>\n"
        "four<|im_end|>"
    )


def test_loss_on_what_the_engine_writes_if_asked_for(tokens: Tokens) -> None:
    example = twins(tokens, ROW, replace(ROOMY, loss_on_written=True)).multiverse
    assert asked(tokens, example) == f"{NESTED_TEXT}\nfour<|im_end|>"


def test_positions_and_hidden_keys_are_the_layouts(tokens: Tokens) -> None:
    example = twins(tokens, ROW).multiverse
    placed = layout(tokens.vocabulary.kinds(example.ids))
    assert np.array_equal(example.positions, placed.positions)
    assert np.array_equal(example.hidden, placed.hidden_intervals())
    assert example.hidden.shape == (len(example), 2, 2)
    dtypes = [example.ids.dtype, example.positions.dtype, example.hidden.dtype, example.loss.dtype, example.part.dtype]
    assert dtypes == [np.int32, np.int32, np.int32, np.bool_, np.uint8]


def test_white_space_that_the_engine_would_write_becomes_its_own(tokens: Tokens) -> None:
    other = NESTED_TEXT.replace("\n<Path>\n", "\n\n<Path>").replace("\n<Conclusion>", "<Conclusion>")
    assert other != NESTED_TEXT
    assert (
        twins(tokens, replace(ROW, chain=other)).multiverse.ids.tolist() == twins(tokens, ROW).multiverse.ids.tolist()
    )


def test_parts(tokens: Tokens) -> None:
    example = twins(tokens, ROW).multiverse
    found = {part: tokens.decode(example.ids[example.part == part].tolist()) for part in Part}
    assert found[Part.PROMPT] == f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert found[Part.TEXT] == "\nLet's think in parallel.\n\nSo four.\n\nfour<|im_end|>"
    assert found[Part.CONCLUSION] == "\n\nboth\n\n\nsum\n"
    assert found[Part.GOAL].split() == ["1:", "one", "2:", "two", "1.1:", "the", "1.2:", "and"]
    assert found[Part.PATH].split() == [
        *["1:", "First,", "1.1:", "the", "one", "1.2:", "and", "two", "then.", "2:", "Find", "three"]
    ]
    assert found[Part.TAG].replace("\n", "").startswith("<Think><Parallel><Goal><Outline></Outline><Outline>")


def test_the_ar_twin_is_sequential_text_with_loss_on_all_of_it(tokens: Tokens) -> None:
    example = twins(tokens, ROW).ar
    assert asked(tokens, example) == "First,the oneand twothen.Find threeSo four.\nfour<|im_end|>"
    assert example.positions.tolist() == list(range(len(example)))
    assert example.hidden.shape[1] == 0


def test_suffixes_stand_behind_the_question(tokens: Tokens) -> None:
    settings = replace(ROOMY, parallel_suffix=PARALLEL_SUFFIX, sequential_suffix=SEQUENTIAL_SUFFIX)
    pair = twins(tokens, ROW, settings)
    assert f"{QUESTION} Think step by step and in parallel before answering.<|im_end|>" in text(tokens, pair.multiverse)
    assert f"{QUESTION} Think step by step before answering.<|im_end|>" in text(tokens, pair.ar)


def test_a_question_or_chain_never_becomes_a_special_token(tokens: Tokens) -> None:
    row = Row("x", "say <Path>", "one<|im_end|>two", "")
    example = twins(tokens, row).multiverse
    assert example.ids.tolist().count(tokens.eos_ids[0]) == 2  # the user's turn and the end
    assert tokens.tag("<Path>") not in example.ids


def test_an_invalid_row_is_skipped_and_told(tokens: Tokens) -> None:
    rows = [ROW, Row("bad", "q", "a</Path>", ""), ROW]
    pairs, report = build_examples(rows, tokens, ROOMY)
    assert len(pairs) == 2
    assert (report.rows, report.kept, report.invalid, report.cut, report.dropped) == (3, 2, 1, 0, 0)
    (message,) = report.messages
    assert message.startswith("row bad: line 1, column 2: rule placement")
    assert report.tokens == {"ar": 2 * len(pairs[0].ar), "multiverse": 2 * len(pairs[0].multiverse)}


def test_an_invalid_row_is_fatal_if_asked_for(tokens: Tokens) -> None:
    with pytest.raises(RowError, match="row bad: line 1, column 2: rule placement"):
        build_examples([Row("bad", "q", "a</Path>", "")], tokens, replace(ROOMY, invalid="fail"))


BLOCK = f"{goal('1: one')}\n<Path>\n1: one\n</Path>\n<Conclusion>\none\n</Conclusion>\n</Parallel>"
LONG = Row("long", QUESTION, f"Find.\n{BLOCK}\nand the\n{BLOCK}\nthen four.", "four")


def cut(tokens: Tokens, row: Row, whole: str, spare: int = 0) -> tuple[str, Report]:
    """The answer of a row that has room for the structured text ``whole``, and ``spare`` tokens more."""
    room = len(tokens.chat([{"role": "user", "content": row.question}])) + len(tokens.encode_structured(whole)) + spare
    (pair,), report = build_examples([row], tokens, ExampleSettings(max_tokens=room))
    assert len(pair.multiverse) <= room
    return text(tokens, pair.multiverse).partition("assistant\n")[2], report


@pytest.mark.parametrize("kept", ["Find.\n", f"Find.\n{BLOCK}", f"Find.\n{BLOCK}\nand the\n"])
@pytest.mark.parametrize("spare", [0, 3])
def test_what_is_too_long_is_cut_at_the_border_of_a_block_and_has_no_end(tokens: Tokens, kept: str, spare: int) -> None:
    if spare and kept.endswith("</Parallel>"):
        spare = 1  # with more, the text behind the block fits
    answer, report = cut(tokens, LONG, kept, spare)
    assert answer == kept
    assert (report.kept, report.cut, report.dropped) == (1, 1, 0)


def test_a_think_is_cut_inside_and_left_open(tokens: Tokens) -> None:
    row = replace(LONG, chain=f"<Think>\n{LONG.chain}\n</Think>")
    answer, _ = cut(tokens, row, f"<Think>\nFind.\n{BLOCK}")
    assert answer == f"<Think>\nFind.\n{BLOCK}"


def test_the_twin_is_cut_at_the_same_place(tokens: Tokens) -> None:
    room = len(tokens.chat([{"role": "user", "content": QUESTION}])) + len(tokens.encode_structured(f"Find.\n{BLOCK}"))
    pair = twins(tokens, LONG, ExampleSettings(max_tokens=room))
    assert asked(tokens, pair.ar) == "Find.one"


@pytest.mark.parametrize(
    ("row", "too_long"),
    [(LONG, "drop"), (replace(LONG, chain=f"{BLOCK}{LONG.chain}"), "cut"), (replace(LONG, chain="one " * 60), "cut")],
    ids=["as configured", "before the first block is nothing", "no block"],
)
def test_what_cannot_be_cut_is_dropped(tokens: Tokens, row: Row, too_long: str) -> None:
    settings = ExampleSettings(max_tokens=len(tokens.chat([{"role": "user", "content": QUESTION}])) + 5)
    pairs, report = build_examples([row], tokens, replace(settings, too_long=too_long))  # type: ignore[arg-type]
    assert pairs == []
    assert (report.rows, report.kept, report.cut, report.dropped) == (1, 0, 0, 1)
    assert str(report) == (
        "1 rows: 0 kept (0 of them cut), 0 invalid, 1 dropped as too long; 0 tokens as ar and 0 tokens as multiverse"
    )
