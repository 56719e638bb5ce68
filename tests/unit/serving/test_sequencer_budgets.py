"""Where a budget ends, tags are balanced, and no budget is exceeded."""

from multiverse.serving.events import BranchFinished
from tests.unit.serving.sequencer_harness import GOAL_2, Run, run

LONG = " w" * 200
BLOCK = {"Q": GOAL_2, "1:": LONG, "2:": " y</Path>", "<Conclusion>": "\nso\n</Conclusion>\n</Parallel>\nend"}
EMPTY = f"{GOAL_2}\n<Path>\n1:</Path>\n<Path>\n2:</Path>\n<Conclusion>\n</Conclusion>\n</Parallel>"
"""GOAL_2 has 19 tokens, each empty path 5, the rest 6."""


def branches(done: Run) -> list[tuple[str, int]]:
    return sorted((f"{event.place}", event.tokens) for event in done.of(BranchFinished))


async def test_text_ends_at_max_tokens() -> None:
    done = await run({"Q": LONG}, max_tokens=7)
    assert (done.text, done.result.finish) == (" w" * 7, "length")


async def test_text_ends_at_the_context() -> None:
    done = await run({"Q": LONG}, max_model_len=6)
    assert (done.text, done.result.finish) == (" w" * 5, "length")


async def test_a_goal_that_could_not_be_closed_is_cut_before_its_next_outline() -> None:
    done = await run({"Q": GOAL_2}, max_tokens=31)
    assert done.text == (
        "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n\n</Goal>\n<Path>\n1:</Path>\n<Conclusion>\n</Conclusion>"
        "\n</Parallel>"
    )
    assert (done.result.finish, done.result.fallbacks) == ("length", ("unclosed",))


async def test_branches_without_budget_stay_empty() -> None:
    done = await run(BLOCK, max_tokens=36)
    assert (done.text, len(done.result.tokens)) == (EMPTY, 35)
    assert (done.result.finish, done.result.fallbacks) == ("length", ())


async def test_a_branch_ends_at_its_share() -> None:
    done = await run(BLOCK, max_tokens=65)
    # 65 - 19 - 6 are left, an eighth of them for the conclusion, 17 for each branch.
    assert branches(done) == [("((1, 1),)", 17), ("((1, 2),)", 6)]
    assert f"1:{' w' * 12}</Path>" in done.text
    assert done.result.blocks[0].branches[0].finish == "length"
    assert (done.result.finish, done.result.ended) == ("length", True)
    assert done.text.endswith("\nend")


async def test_what_branches_leave_over_is_there_behind_the_join() -> None:
    done = await run(BLOCK | {"<Conclusion>": LONG}, max_tokens=65)
    assert len(done.result.tokens) == 65
    assert done.text.endswith(" w\n</Conclusion>\n</Parallel>")


async def test_a_conclusion_is_closed_within_the_budget() -> None:
    done = await run(BLOCK | {"1:": "</Path>", "<Conclusion>": LONG}, max_tokens=50)
    assert len(done.result.tokens) == 50
    assert done.text.endswith(" w w\n</Conclusion>\n</Parallel>")
    assert (done.result.finish, done.result.ended) == ("length", False)


async def test_max_branch_tokens_ends_the_branch_but_not_the_answer() -> None:
    done = await run(BLOCK, max_branch_tokens=10)
    assert branches(done) == [("((1, 1),)", 10), ("((1, 2),)", 6)]
    assert done.text.endswith("\nend")
    assert done.result.finish == "stop"


async def test_a_branch_that_may_hold_no_text_is_given_up() -> None:
    done = await run(BLOCK, max_branch_tokens=5)
    assert (
        done.text
        == f"{GOAL_2}\n<Path>\n1:</Path>\n<Path>\n2:</Path>\n<Conclusion>\nso\n</Conclusion>\n</Parallel>\nend"
    )
    assert [branch.finish for branch in done.result.blocks[0].branches] == ["given_up", "given_up"]
    assert len([segment for segment in done.engine.segments if segment.prefill_only]) == 2
    assert done.result.finish == "stop"


async def test_max_positions_counts_the_longest_branch_only() -> None:
    done = await run(BLOCK | {"2:": LONG}, max_positions=50)
    # 50 - 19 - 6 positions are left, an eighth of them for the conclusion.
    assert branches(done) == [("((1, 1),)", 22), ("((1, 2),)", 22)]
    assert done.result.critical_path == 50
    assert len(done.result.tokens) == 50 + 22
    assert done.result.finish == "length"


async def test_a_nested_block_shares_its_branchs_budget() -> None:
    inner = GOAL_2.replace("1:", "1.1:").replace("2:", "1.2:")
    done = await run(
        {
            "Q": GOAL_2,
            "\n<Path>\n1:": f" {inner}",
            ".1:": LONG,
            ".2:": LONG,
            "</Path>\n<Conclusion>": "\n</Conclusion>\n</Parallel></Path>",
            "\n<Path>\n2:": " y</Path>",
        },
        max_branch_tokens=60,
    )
    finished = {event.place: event.tokens for event in done.of(BranchFinished)}
    assert finished[((1, 1), (2, 1))] == finished[((1, 1), (2, 2))]
    assert 55 <= finished[((1, 1),)] <= 60
