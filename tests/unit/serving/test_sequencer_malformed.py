"""Structure out of order never fails a request: it is reported, ended, and the text goes on sequentially."""

import pytest

from multiverse.serving.events import FellBack
from tests.unit.serving.sequencer_harness import GOAL_2, run

TEN = {
    "<Parallel>",
    "</Parallel>",
    "<Goal>",
    "</Goal>",
    "<Outline>",
    "</Outline>",
    "<Path>",
    "</Path>",
    "<Conclusion>",
    "</Conclusion>",
}
CONCLUDED = "\n</Conclusion>\n</Parallel>"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("<Parallel> no goal", "no_goal"),
        ("<Parallel>\n<Goal>\n</Goal>", "no_outlines"),
        ("a </Outline>", "stray_tag"),
        ("a <Goal>", "stray_tag"),
        ("a </Goal>", "stray_tag"),
    ],
)
async def test_the_text_goes_on_without_tags(written: str, reason: str) -> None:
    head = "<Parallel> no" if reason == "no_goal" else written
    done = await run({"Q": written, head: " then text<Parallel>"})
    assert done.text == f"{head} then text"
    assert done.of(FellBack) == [FellBack((), reason)]
    assert done.result.fallbacks == (reason,)
    assert done.result.finish == "stop"
    assert done.masked(done.engine.segments[-1]) >= TEN
    assert done.engine.segments[-1].stop_ids == ()


async def test_behind_a_closed_goal_its_kv_is_used_and_given_back() -> None:
    done = await run({"Q": "<Parallel>\n<Goal>\n</Goal>", "</Goal>": " text"})
    last = done.engine.segments[-1]
    assert [(s.lease, s.start, s.stop, s.offset) for s in last.sources] == [("r/kv-1", 0, 5, 0)]
    assert last.release == ("r/kv-1",)


async def test_a_tag_out_of_place_in_a_goal_ends_the_block_with_empty_paths() -> None:
    done = await run({"Q": "<Parallel>\n<Goal>\n<Outline>\n1: a\n<Goal>\n", "</Parallel>": " text"})
    assert done.text == (
        "<Parallel>\n<Goal>\n<Outline>\n1: a\n<Goal>\n</Outline>\n</Goal>\n<Path>\n1:</Path>"
        f"\n<Conclusion>{CONCLUDED} text"
    )
    assert done.result.fallbacks == ("stray_tag",)


async def test_a_goal_that_ends_in_an_open_outline_gets_empty_paths() -> None:
    done = await run({"Q": "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Goal>", "</Parallel>": " text"})
    assert done.text == (
        f"<Parallel>\n<Goal>\n<Outline>\n1: a\n</Goal>\n<Path>\n1:</Path>\n<Conclusion>{CONCLUDED} text"
    )


async def test_the_end_of_the_sequence_in_a_goal_is_mended_and_told() -> None:
    done = await run({"Q": "<Parallel>\n<Goal>\n<Outline>\n1: a"})
    assert done.text == (
        f"<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n</Goal>\n<Path>\n1:</Path>\n<Conclusion>{CONCLUDED}"
    )
    assert (done.result.finish, done.result.fallbacks) == ("stop", ("unclosed",))


async def test_a_closer_inside_an_open_goal_is_left_out_and_the_branch_mended() -> None:
    done = await run(
        {
            "Q": GOAL_2,
            "\n<Path>\n1:": " x <Parallel>\n<Goal>\n<Outline>\n1: p\n</Outline></Path>",
            "\n<Path>\n2:": " y</Path>",
            "<Conclusion>": CONCLUDED,
        }
    )
    first = (
        "\n<Path>\n1: x <Parallel>\n<Goal>\n<Outline>\n1: p\n</Outline>\n</Goal>\n<Path>\n1:</Path>"
        f"\n<Conclusion>{CONCLUDED}\n</Path>"
    )
    assert done.text == f"{GOAL_2}{first}\n<Path>\n2: y</Path>\n<Conclusion>{CONCLUDED}"
    assert done.of(FellBack) == [FellBack(((1, 1),), "unclosed")]
    (mended,) = [segment for segment in done.engine.segments if segment.prefill_only]
    assert done.codec.decode(mended.tokens) == f"Q{GOAL_2}{first}"
    assert mended.release == (mended.sources[0].lease,)
    assert done.engine.segments[-1].sources[0].lease == mended.lease


async def test_a_malformed_branch_leaves_its_siblings_alone_and_no_block_opens_behind_the_join() -> None:
    done = await run(
        {
            "Q": GOAL_2,
            "\n<Path>\n1:": " x </Outline>",
            "x </Outline>": " on</Path>",
            "\n<Path>\n2:": " y</Path>",
            "<Conclusion>": f"{CONCLUDED} end",
        }
    )
    assert done.text == (
        f"{GOAL_2}\n<Path>\n1: x </Outline> on</Path>\n<Path>\n2: y</Path>\n<Conclusion>{CONCLUDED} end"
    )
    assert "<Parallel>" not in done.masked(done.segment("\n<Path>\n2:"))
    assert "<Parallel>" in done.masked(done.segment("<Conclusion>"))


async def test_a_block_in_a_conclusion_is_out_of_place() -> None:
    done = await run(
        {
            "Q": GOAL_2,
            "1:": "</Path>",
            "2:": "</Path>",
            "<Conclusion>": f" so {GOAL_2}",
            "so <Parallel>": f" on{CONCLUDED}",
        }
    )
    assert done.text.endswith(f"<Conclusion> so <Parallel> on{CONCLUDED}")
    assert done.result.fallbacks == ("stray_tag",)
