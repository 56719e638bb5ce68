"""Every family: what is asked, what is answered, and that nothing held out is trained on."""

import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.structure.figures import figures
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import parse, render
from multiverse.structure.tags import TAG_PATTERN, split_words, word_kinds
from multiverse.training.families import FAMILIES, Task, generate, grade
from multiverse.training.families.draw import Split
from tests.unit.training.solutions import solve

SPLITTING = [name for name, family in FAMILIES.items() if family.splits]
CHAINED = [name for name, family in FAMILIES.items() if not family.splits]
NESTED = ["teams", "baskets"]
SPLITS: tuple[Split, Split] = ("train", "held_out")

any_seed = given(seed=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
few = settings(max_examples=15, deadline=None)
every_family = pytest.mark.parametrize("family", FAMILIES)


def test_there_are_families_of_both_kinds() -> None:
    assert len(SPLITTING) == 14
    assert len(CHAINED) == 6


@every_family
@few
@any_seed
def test_answer_is_right(family: str, seed: int, split: Split) -> None:
    for task in generate([family], split, 6, seed):
        answers, _ = solve(family, task.question)
        assert task.expected == ", ".join(answers)
        assert task.answer == f"Answer: {task.expected}."


@every_family
@few
@any_seed
def test_every_step_of_the_work_is_right(family: str, seed: int, split: Split) -> None:
    for task in generate([family], split, 6, seed):
        for a, sign, b, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", task.sequential):
            assert int(a) + int(sign + b) == int(result)


@every_family
@few
@any_seed
def test_structure_is_valid_and_the_sequential_form_is_without(family: str, seed: int, split: Split) -> None:
    for task in generate([family], split, 6, seed):
        assert render(parse(task.text)) == task.text
        assert task.sequential == f"{flatten_text(task.chain)}\n{task.answer}"
        assert not TAG_PATTERN.search(task.sequential)
        assert all(line[0] in line.strip() and line[-1] in ".:" for line in task.sequential.split("\n") if line)


@every_family
@few
@any_seed
def test_both_forms_of_the_answer_pass_and_another_one_fails(family: str, seed: int, split: Split) -> None:
    first, second = generate([family], split, 2, seed)
    assert grade(first.expected, first.text)
    assert grade(first.expected, first.sequential)
    assert grade(first.expected, second.text) == (first.expected == second.expected)


@pytest.mark.parametrize("family", SPLITTING)
@few
@any_seed
def test_one_branch_for_each_part(family: str, seed: int, split: Split) -> None:
    for task in generate([family], split, 6, seed):
        found = figures(word_kinds(split_words(task.text)))
        assert task.splits
        assert task.width == found.widths[0] == len(task.expected.split(", ")) in (2, 3, 4)
        assert found.depth == (2 if family in NESTED else 1)


@pytest.mark.parametrize("family", CHAINED)
@few
@any_seed
def test_dependent_steps_have_no_structure(family: str, seed: int, split: Split) -> None:
    for task in generate([family], split, 6, seed):
        assert not task.splits
        assert task.width == 0
        assert task.text == task.sequential


@every_family
def test_what_is_held_out_is_in_no_training_task(family: str) -> None:
    problems = {
        split: set[object]().union(*(solve(family, task.question)[1] for task in generate([family], split, 400, 7)))
        for split in SPLITS
    }
    assert len(problems["held_out"]) > 10
    assert problems["train"].isdisjoint(problems["held_out"])


def test_sums_that_are_held_out_are_in_no_family() -> None:
    families = ["sums", "mixed", "steps", "comparisons", "cases", "rounds", "differences"]
    train, held_out = (
        {problem for task in generate(families, split, 2100, 3) for problem in solve(task.family, task.question)[1]}
        for split in SPLITS
    )
    assert len(train) > 1000
    assert train.isdisjoint(held_out)


def test_words_that_are_held_out_are_in_no_family() -> None:
    train, held_out = (
        {
            word
            for task in generate(["backwards", "letters", "edits"], split, 600, 3)
            for word in solve(task.family, task.question)[1]
        }
        for split in SPLITS
    )
    assert len(train) > 100
    assert train.isdisjoint(held_out)


def test_same_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    tasks = generate(list(FAMILIES), "train", 100, 5)
    assert generate(list(FAMILIES), "train", 100, 5) == tasks
    assert not set(questions(tasks)) & set(questions(generate(list(FAMILIES), "train", 100, 6)))


def test_as_many_of_each_family_and_no_question_twice() -> None:
    tasks = generate(list(FAMILIES), "train", 2000, 0)
    assert [sum(task.family == name for task in tasks) for name in FAMILIES] == [100] * len(FAMILIES)
    assert len(set(questions(tasks))) == 2000


def test_tasks_are_the_same_in_every_process() -> None:
    assert generate(["sums"], "held_out", 1, 0)[0].question == "Work out 21 + 44, 22 + 33 and 62 + 23."


def test_parallelism_of_tasks_that_split() -> None:
    tasks = generate(SPLITTING, "held_out", 1400, 0)
    assert statistics.mean(figures(word_kinds(split_words(task.text))).parallelism for task in tasks) > 1.8


def test_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no family 'sum': there are sums, differences, "):
        generate(["sum"], "train", 1, 0)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("42, 17", "Answer: 42, 17."),
        ("42, 17", "Work.\nanswer:42 ,17"),
        ("yes, no", "Answer: no, no.\nSo:\nANSWER:  Yes,  No."),
        ("n a l p", "Answer: n a  l p. "),
        ("Friday", "</Parallel>\nAnswer: friday."),
    ],
)
def test_right_answers(expected: str, text: str) -> None:
    assert grade(expected, text)


@pytest.mark.parametrize("text", ["", "42, 17", "Answer: 42.", "Answer: 17, 42.", "Answer: 42, 17.\nAnswer: 42, 18."])
def test_wrong_answers(text: str) -> None:
    assert not grade("42, 17", text)


def questions(tasks: list[Task]) -> list[str]:
    return [task.question for task in tasks]
