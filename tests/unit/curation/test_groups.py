"""Which steps run at the same time."""

import itertools
import random
import time
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.curation.chain.groups import Body, Span, blocks, first_sentence, group
from multiverse.curation.chain.plan import Dependencies, Links, Step, read_dependencies, read_steps
from multiverse.curation.chain.sentences import Sentence, split
from tests.unit.curation.plans import block, flat, links, random_replies, single_steps, untitled


def of_lengths(*lengths: int) -> list[Sentence]:
    ends = [0, *itertools.accumulate(lengths)]
    return [Sentence(start, end, "x" * (end - start)) for start, end in itertools.pairwise(ends)]


def grouped(lengths: Sequence[int], dependencies: Dependencies, min_saving: int = 1) -> Body:
    return untitled(group(of_lengths(*lengths), single_steps(len(lengths)), dependencies, min_saving))


def one(*indices: int) -> Body:
    return (Span(indices[0], indices[-1] + 1),)


def test_steps_that_need_each_other_are_sequential() -> None:
    assert grouped([5, 5, 5], flat(set(), {0}, {1})) == (Span(0, 3),)


def test_steps_that_do_not_are_the_branches_of_a_block() -> None:
    assert grouped([5, 5, 5], flat(set(), set(), set())) == (block(one(0), one(1), one(2)),)


def test_a_branch_is_one_or_more_steps_in_a_row() -> None:
    assert grouped([5, 5, 5, 5], flat(set(), {0}, set(), {2})) == (block(one(0, 1), one(2, 3)),)


def test_what_comes_before_and_behind_a_block_is_sequential() -> None:
    assert grouped([5, 5, 5, 5], flat(set(), {0}, {0}, {1, 2})) == (Span(0, 1), block(one(1), one(2)), Span(3, 4))


def test_steps_between_two_that_need_each_other_are_in_their_branch() -> None:
    assert grouped([2, 2, 2, 9], flat(set(), set(), {0}, set())) == (block(one(0, 1, 2), one(3)),)


def test_two_blocks_behind_each_other() -> None:
    both = (block(one(0), one(1)), block(one(2), one(3)))
    assert grouped([5, 5, 5, 5], flat(set(), set(), {0, 1}, {0, 1})) == both


def test_the_run_that_leaves_the_shortest_critical_path_is_taken() -> None:
    needs = flat(set(), {0}, {0}, {1})
    assert grouped([9, 9, 9, 2], needs) == (Span(0, 1), block(one(1), one(2)), Span(3, 4))
    assert grouped([9, 2, 9, 9], needs) == (Span(0, 2), block(one(2), one(3)))


def test_attempts_at_one_thing_do_not_need_each_other() -> None:
    assert grouped([5, 5, 5], flat(set(), {0}, {0, 1}, alternatives={1: {0}, 2: {1}})) == (
        block(one(0), one(1), one(2)),
    )


def test_a_block_must_save_what_is_asked() -> None:
    assert grouped([9, 4], flat(set(), set()), min_saving=4) == (block(one(0), one(1)),)
    assert grouped([9, 4], flat(set(), set()), min_saving=5) == (Span(0, 2),)


def test_parts_of_a_step_are_blocks_inside_of_it() -> None:
    inner = (Step("x", 1, 2), Step("y", 2, 3))
    steps = [Step("a", 0, 4, (*inner, Step("z", 3, 4))), Step("b", 4, 5)]
    dependencies = Dependencies(links(set(), set()), (links(set(), set(), {0, 1}), links()))
    body = group(of_lengths(5, 5, 5, 5, 5), steps, dependencies)
    nested = (Span(0, 1), block(one(1), one(2)), Span(3, 4))
    assert untitled(body) == (block(nested, one(4)),)
    assert [branch.titles for found in blocks(body) for branch in found.branches] == [("a",), ("b",), ("x",), ("y",)]


def test_sentences_before_the_first_step_are_sequential() -> None:
    body = group(of_lengths(5, 5, 5), [Step("a", 1, 2), Step("b", 2, 3)], flat(set(), set()))
    assert untitled(body) == (Span(0, 1), block(one(1), one(2)))


def spans(body: Body) -> list[int]:
    """The sentences in reading order."""
    return [
        index
        for node in body
        for index in (
            range(node.begin, node.end)
            if isinstance(node, Span)
            else (index for branch in node.branches for index in spans(branch.body))
        )
    ]


def critical(body: Body, sentences: Sequence[Sentence]) -> int:
    return sum(
        sum(len(sentence.text) for sentence in sentences[node.begin : node.end])
        if isinstance(node, Span)
        else max(critical(branch.body, sentences) for branch in node.branches)
        for node in body
    )


def needs_of(found: Links) -> list[set[int]]:
    """Needs without those inside of a set of alternatives, by another way than the code's."""
    joined = [{step} for step in range(len(found.needs))]
    for _ in joined:
        for step, others in enumerate(found.alternatives):
            for other in others:
                joined[step] |= joined[other]
                joined[other] |= joined[step]
    return [set(needs) - joined[step] for step, needs in enumerate(found.needs)]


def shortest(lengths: Sequence[int], needs: Sequence[set[int]]) -> int:
    """The shortest critical path over all ways to cut steps into branches and branches into runs."""
    count = len(lengths)
    found = []
    for marks in itertools.product("sbr", repeat=count):
        # Each step begins a sequential step (s), goes on as the same branch (b), or begins a branch (r).
        runs: list[list[list[int]]] = []
        valid = True
        for step, mark in enumerate(marks):
            if mark == "s" or not runs:
                runs.append([[step]])
            elif mark == "r":
                runs[-1].append([step])
            else:
                runs[-1][-1].append(step)
        total = 0
        for run in runs:
            for branch in run:
                others = {step for other in run if other is not branch for step in other}
                valid &= all(not needs[step] & others for step in branch)
            total += max(sum(lengths[step] for step in branch) for branch in run)
        if valid:
            found.append(total)
    return min(found)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_other_partition_has_a_shorter_critical_path(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    needs = [data.draw(st.sets(st.integers(0, step - 1))) if step else set() for step in range(count)]
    body = grouped(lengths, flat(*needs))
    assert critical(body, of_lengths(*lengths)) == shortest(lengths, needs)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 25))
def test_no_step_needs_one_of_another_branch(draw: random.Random, count: int) -> None:
    sentences = split("".join(f"Sentence {index}.\n" for index in range(count)))
    replies = random_replies(draw, count)
    steps = read_steps(replies[0], count)
    dependencies = read_dependencies(replies[1], steps)
    body = group(sentences, steps, dependencies)
    assert spans(body) == list(range(count))
    levels = [(steps, dependencies.steps)]
    levels += [(step.parts, found) for step, found in zip(steps, dependencies.parts, strict=True)]
    for found in blocks(body):
        assert len(found.branches) > 1
        ranges = [spans(branch.body) for branch in found.branches]
        assert [inside[0] for inside in ranges] == [first_sentence(branch.body) for branch in found.branches]
        for level, linked in levels:
            branch_of = [
                next((place for place, inside in enumerate(ranges) if step.begin in inside), None) for step in level
            ]
            for step, needs in enumerate(needs_of(linked)):
                for other in needs:
                    assert None in (branch_of[step], branch_of[other]) or branch_of[step] == branch_of[other]


def test_two_hundred_steps_take_seconds_at_most() -> None:
    begin = time.process_time()
    (found,) = grouped([3] * 200, flat(*(set() for _ in range(200))))
    assert time.process_time() - begin < 5
    assert found == block(*(one(index) for index in range(200)))
