"""The course of a request whose structure is in order."""

import re

from multiverse.engine.segment import Sampling, Source, TokenLogprob
from multiverse.serving.events import BlockForked, BlockJoined, BranchFinished, Finished, TokensAdded
from multiverse.serving.sequencing.seeds import derived_seed
from tests.unit.serving.sequencer_harness import GOAL_2, GOAL_3, Run, run

CONCLUDED = "\nso\n</Conclusion>\n</Parallel>"
THREE = {
    "Q": f"go\n{GOAL_3}",
    "1:": " x y\n</Path>",
    "2:": " z\n</Path>",
    "3:": " w w w\n",
    "<Conclusion>": f"{CONCLUDED}\nend",
}


def kinds_and_places(result: Run) -> list[str]:
    """The events without runs of sampled tokens, one short word each."""
    words = []
    for event in result.events:
        match event:
            case TokensAdded(place=place, tokens=tokens, written=True):
                words.append(f"write{place} {result.codec.decode(tokens)!r}")
            case BlockForked(place=place, block=block):
                words.append(f"fork{place} {block}")
            case BranchFinished(place=place, finish=finish):
                words.append(f"branch{place} {finish}")
            case BlockJoined(place=place, block=block):
                words.append(f"join{place} {block}")
            case Finished():
                words.append("finished")
    return words


async def test_text_without_tags_is_one_segment() -> None:
    done = await run({"Q": "just text"})
    assert done.text == "just text"
    assert done.result.finish == "stop"
    assert (done.result.critical_path, done.result.parallelism) == (2, 1.0)
    assert len(done.engine.segments) == 1


async def test_three_branches_fork_and_join() -> None:
    done = await run(THREE)
    assert done.text == (
        f"go\n{GOAL_3}\n<Path>\n1: x y\n</Path>\n<Path>\n2: z\n</Path>\n<Path>\n3: w w w\n</Path>\n<Conclusion>"
        f"{CONCLUDED}\nend"
    )
    assert done.result.finish == "stop"
    assert done.result.fallbacks == ()


async def test_events_of_a_block_come_in_the_order_they_happen() -> None:
    done = await run(THREE)
    assert kinds_and_places(done) == [
        "fork() 1",
        r"write((1, 1),) '\n<Path>\n1:'",
        r"write((1, 2),) '\n<Path>\n2:'",
        r"write((1, 3),) '\n<Path>\n3:'",
        "branch((1, 2),) stop",
        "branch((1, 1),) stop",
        "branch((1, 3),) stop",
        "join() 1",
        r"write() '\n<Conclusion>'",
        "finished",
    ]


async def test_the_fork_names_the_outlines_as_written() -> None:
    done = await run(THREE)
    assert done.of(BlockForked) == [BlockForked((), 1, ("1: a", "2: b", "3: c"))]


async def test_the_result_holds_the_tree() -> None:
    done = await run(THREE)
    (block,) = done.result.blocks
    assert block.id == 1
    assert [(b.outline, done.codec.decode(b.tokens), b.finish) for b in block.branches] == [
        ("1: a", "\n<Path>\n1: x y\n</Path>", "stop"),
        ("2: b", "\n<Path>\n2: z\n</Path>", "stop"),
        ("3: c", "\n<Path>\n3: w w w\n</Path>", "stop"),
    ]


async def test_critical_path_counts_the_longest_branch_once() -> None:
    done = await run(THREE)
    # 28 tokens up to </Goal>, branches of 8, 7 and 9, 10 from the join on.
    assert len(done.result.tokens) == 28 + 8 + 7 + 9 + 10
    assert done.result.critical_path == 28 + 9 + 10
    assert done.result.parallelism == 62 / 47


async def test_branches_read_the_prefix_from_the_parents_lease() -> None:
    done = await run(THREE)
    assert done.engine.segments[0].lease == "r/kv-1"
    assert done.segment("2:").sources == (Source("r/kv-1", 0, 28, 0),)
    assert done.segment("2:").release == ()


async def test_the_join_reads_every_branch_at_its_place_and_gives_the_leases_back() -> None:
    done = await run(THREE)
    joined = done.segment("<Conclusion>")
    assert joined.sources == (
        Source("r/kv-2", 0, 37, 0),
        Source("r/kv-3", 37, 44, 29),
        Source("r/kv-4", 44, 53, 29),
    )
    assert joined.release == ("r/kv-2", "r/kv-3", "r/kv-4")


async def test_two_blocks_follow_each_other() -> None:
    twice = {
        "Q": GOAL_2,
        "1:": " x</Path>",
        "2:": " y</Path>",
        "<Conclusion>": f"{CONCLUDED} again {GOAL_2}",
    }
    one = f"{GOAL_2}\n<Path>\n1: x</Path>\n<Path>\n2: y</Path>\n<Conclusion>"
    twice[f"{one}{CONCLUDED} again {one}"] = f"{CONCLUDED} end"
    done = await run(twice)
    assert done.text == f"{one}{CONCLUDED} again {one}{CONCLUDED} end"
    assert [block.id for block in done.result.blocks] == [1, 2]


async def test_a_branch_forks_in_its_turn() -> None:
    inner = GOAL_2.replace("1:", "1.1:").replace("2:", "1.2:")
    done = await run(
        {
            "Q": GOAL_2,
            "\n<Path>\n1:": f" x\n{inner}",
            "\n<Path>\n1.1:": " p</Path>",
            "\n<Path>\n1.2:": " q</Path>",
            "1.2: q</Path>\n<Conclusion>": f"{CONCLUDED} y</Path>",
            "\n<Path>\n2:": " z</Path>",
            "2: z</Path>\n<Conclusion>": CONCLUDED,
        }
    )
    nested = f"{inner}\n<Path>\n1.1: p</Path>\n<Path>\n1.2: q</Path>\n<Conclusion>{CONCLUDED}"
    assert done.text == (f"{GOAL_2}\n<Path>\n1: x\n{nested} y</Path>\n<Path>\n2: z</Path>\n<Conclusion>{CONCLUDED}")
    (outer,) = done.result.blocks
    assert [event.place for event in done.of(BranchFinished)] == [
        ((1, 2),),
        ((1, 1), (2, 1)),
        ((1, 1), (2, 2)),
        ((1, 1),),
    ]
    assert [block.id for block in outer.branches[0].blocks] == [2]
    assert done.segment("1.2:").sources[0].lease == done.segment("\n<Path>\n1:").lease


async def test_more_branches_than_max_width_run_in_waves() -> None:
    done = await run(THREE, max_width=1)
    assert kinds_and_places(done) == [
        "fork() 1",
        r"write((1, 1),) '\n<Path>\n1:'",
        "branch((1, 1),) stop",
        r"write((1, 2),) '\n<Path>\n2:'",
        "branch((1, 2),) stop",
        r"write((1, 3),) '\n<Path>\n3:'",
        "branch((1, 3),) stop",
        "join() 1",
        r"write() '\n<Conclusion>'",
        "finished",
    ]


async def test_waves_do_not_change_the_text() -> None:
    assert (await run(THREE, max_width=2)).text == (await run(THREE)).text


async def test_an_outline_without_a_number_gets_its_place() -> None:
    goal = GOAL_2.replace("2: b", "b")
    done = await run({"Q": goal, "1:": "</Path>", "2:": "</Path>", "<Conclusion>": CONCLUDED})
    assert done.text.startswith(f"{goal}\n<Path>\n1:</Path>\n<Path>\n2:</Path>\n<Conclusion>")


async def test_the_end_of_the_sequence_closes_a_branch() -> None:
    done = await run(THREE | {"1:": " cut"})
    assert "1: cut</Path>" in done.text
    assert done.result.blocks[0].branches[0].finish == "stop"


async def test_tags_that_are_open_at_the_end_are_closed() -> None:
    done = await run(THREE | {"<Conclusion>": "\nso"})
    assert done.text.endswith("<Conclusion>\nso\n</Conclusion>\n</Parallel>")
    assert done.result.finish == "stop"
    assert done.result.fallbacks == ()


async def test_an_open_think_is_closed() -> None:
    done = await run({"Q": "<Think> hm"})
    assert done.text == "<Think> hm\n</Think>"


async def test_top_masks_what_only_the_engine_or_a_branch_writes() -> None:
    done = await run(THREE)
    first = done.engine.segments[0]
    assert done.masked(first) == {"<Path>", "</Path>", "<Conclusion>", "</Conclusion>", "</Parallel>"}
    assert first.stop_ids == (done.codec.tag("</Goal>"),)
    assert first.closer is None


async def test_a_branch_may_end_itself_and_not_think() -> None:
    done = await run(THREE)
    branch = done.segment("2:")
    assert branch.closer == done.codec.tag("</Path>")
    assert done.masked(branch) == {"<Path>", "<Conclusion>", "</Conclusion>", "</Parallel>", "<Think>", "</Think>"}


async def test_behind_a_join_the_block_may_be_closed() -> None:
    done = await run(THREE)
    assert done.masked(done.segment("<Conclusion>")) == {"<Path>", "</Path>", "<Conclusion>"}


async def test_at_the_depth_limit_no_block_may_open() -> None:
    done = await run(THREE, max_depth=1)
    branch = done.segment("2:")
    assert {"<Parallel>", "<Goal>", "</Goal>", "<Outline>", "</Outline>"} <= done.masked(branch)
    assert branch.stop_ids == ()


async def test_an_untrained_model_does_not_think() -> None:
    done = await run(THREE, trained=False)
    assert {"<Think>", "</Think>"} <= done.masked(done.engine.segments[0])


async def test_every_segment_has_the_requests_priority_and_cache_salt() -> None:
    done = await run(THREE, arrival=7, cache_salt="layout-1")
    assert {(segment.priority, segment.cache_salt) for segment in done.engine.segments} == {(7, "layout-1")}


async def test_log_probabilities_come_with_their_tokens() -> None:
    done = await run({"Q": "a"}, sampling=Sampling(max_tokens=9, logprobs=0))
    (word,) = done.codec.encode("a")
    assert done.of(TokensAdded) == [TokensAdded((), (word,), (TokenLogprob(word, -0.5),))]


async def test_off_is_one_plain_segment_with_all_sampling_options() -> None:
    sampling = Sampling(max_tokens=5, temperature=0.3, stop=("b",), presence_penalty=0.5, min_tokens=1, regex="a.*")
    done = await run({"Q": "<Parallel>a b c"}, mode="off", sampling=sampling)
    assert done.text == "a b c"
    assert done.result.stop_text == "a b c"
    (segment,) = done.engine.segments
    assert segment.sampling == sampling
    assert (segment.stop_ids, segment.lease, segment.closer) == ((), None, None)
    ten = {tag for tag in done.codec.vocabulary.tag_ids if not re.search("Think", tag)}
    assert done.masked(segment) == ten


async def test_off_ends_at_the_context() -> None:
    done = await run({"Q": "a b c d"}, mode="off", max_model_len=3)
    assert (done.text, done.result.finish) == ("a b", "length")


def test_seeds_are_stable() -> None:
    assert derived_seed(1, (), 0) == 3038707344529237520
    assert derived_seed(1, ((1, 2),), 0) == 7725973818176409081
    assert derived_seed(None, (), 0) is None


async def test_every_segment_has_its_own_seed_and_the_same_again_next_time() -> None:
    sampling = Sampling(max_tokens=400, seed=5)
    first = [segment.sampling.seed for segment in (await run(THREE, sampling=sampling)).engine.segments]
    again = [segment.sampling.seed for segment in (await run(THREE, sampling=sampling)).engine.segments]
    assert len(set(first)) == 5
    assert first == again


async def test_a_prompt_with_a_closed_block_goes_on_behind_it() -> None:
    before = f"{GOAL_2}\n<Path>\n1:</Path>\n<Path>\n2:</Path>\n<Conclusion>{CONCLUDED}"
    done = await run({" Q": " yes"}, prompt=f"{before} Q")
    assert (done.text, done.result.critical_path) == (" yes", 1)
