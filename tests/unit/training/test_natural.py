"""Natural questions, and how a model's own answers become tasks."""

from collections.abc import Sequence

import pytest

from multiverse.structure.flatten import flatten_text
from multiverse.training.families.draw import Split
from multiverse.training.families.natural import (
    ASPECTS,
    PLAIN,
    TOPICS,
    aspects_from_list,
    plain_answer,
    questions,
    write_natural,
)

SPLITS: tuple[Split, Split] = ("train", "held_out")
LIST = (
    "Here are three tips:\n\n"
    "1. **Get up early**: The day is longer then.\n"
    "2. **Eat well**: A good breakfast helps.\n"
    "3. **Move**: Walk for an hour a day.\n\n"
    "Try them all."
)
STRUCTURED = (
    "Here are three tips:\n\n\n"
    "<Parallel>\n<Goal>\n<Outline>\n1: Get up early\n</Outline>\n<Outline>\n2: Eat well\n</Outline>\n"
    "<Outline>\n3: Move\n</Outline>\n</Goal>\n"
    "<Path>\n1: 1. **Get up early**: The day is longer then.\n\n</Path>\n"
    "<Path>\n2: 2. **Eat well**: A good breakfast helps.\n\n</Path>\n"
    "<Path>\n3: 3. **Move**: Walk for an hour a day.\n\n\n</Path>\n"
    "<Conclusion>\nDone.\n</Conclusion>\n</Parallel>\nTry them all."
)
ITEM = "Walk for an hour every day."
OTHER = "Eat what is good for you."


def test_list_becomes_a_block_that_flattens_to_it() -> None:
    task = aspects_from_list("Give three tips.", LIST)
    assert task is not None
    assert task.chain == task.text == STRUCTURED
    assert task.sequential == flatten_text(task.chain) == LIST
    assert (task.splits, task.width, task.expected, task.answer) == (True, 3, "", "")


@pytest.mark.parametrize(
    ("item", "outline"),
    [
        ("**Walk a lot**: It helps with sleep.", "Walk a lot"),
        ("**Walk a lot:** It helps with sleep.", "Walk a lot"),
        ("Walk a lot: It helps with sleep.", "Walk a lot"),
        ("Walk a lot - It helps with sleep.", "Walk a lot"),
        ("Walk for an hour every day.", "Walk for an hour every"),
        ("Walk a lot, it helps with sleep.", "Walk a lot"),
    ],
)
def test_outline_is_what_an_item_says_first(item: str, outline: str) -> None:
    task = aspects_from_list("", f"1. {item}\n\n2. {OTHER}")
    assert task is not None
    assert task.chain.startswith(f"<Parallel>\n<Goal>\n<Outline>\n1: {outline}\n</Outline>\n")
    assert task.sequential == f"1. {item}\n\n2. {OTHER}"


def test_list_may_stand_in_one_line() -> None:
    text = f"Two tips: 1. {ITEM} 2. {OTHER}"
    task = aspects_from_list("", text)
    assert task is not None
    assert "<Path>\n1: 1. Walk for an hour every day. \n</Path>" in task.chain
    assert task.sequential == text


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Walk for an hour every day.",
        f"1. {ITEM}",
        f"1. {ITEM}\n3. {OTHER}",
        f"2. {ITEM}\n3. {OTHER}",
        "\n".join(f"{number}. Tip {number} is to walk." for number in range(1, 8)),
        f"1. {ITEM}\n2. {OTHER[:-1]}",
        f"1. {ITEM}\n2. {ITEM}",
        f"1. {ITEM}\n2. {OTHER} {ITEM} {ITEM} {ITEM}",
        f"1. {ITEM}\n   - {ITEM}\n2. {OTHER}",
        f"1. {ITEM}\n2. {OTHER}\n\n{ITEM}\n\n{ITEM}",
        f"1. {ITEM}\n2. {OTHER} <Path>.",
        "1. Walk.\n2. Run.",
    ],
)
def test_other_answers_are_left_out(answer: str) -> None:
    assert aspects_from_list("", answer) is None


def test_plain_answer_is_the_chain() -> None:
    task = plain_answer("What is the capital of France?", "The capital of France is Paris.\n")
    assert task is not None
    assert task.text == task.sequential == "The capital of France is Paris."
    assert (task.splits, task.width, task.expected) == (False, 0, "")


@pytest.mark.parametrize("answer", ["", "Paris", "Paris. It is", "Paris.\nIt is in France.", "So " * 60 + "it is."])
def test_other_plain_answers_are_left_out(answer: str) -> None:
    assert plain_answer("", answer) is None


def test_every_topic_is_on_one_side() -> None:
    asked = {split: {*questions(split, True), *questions(split, False)} for split in SPLITS}
    for kind, phrasings in (*ASPECTS.items(), *PLAIN.items()):
        for topic in TOPICS[kind]:
            question = phrasings[0].format(topic=topic, count="two")
            assert (question in asked["train"]) != (question in asked["held_out"])


def test_there_are_many_topics_with_several_aspects() -> None:
    assert sum(len(TOPICS[kind]) for kind in ASPECTS) == 150
    assert min(len(questions(split, aspects=True)) for split in SPLITS) > 300


async def test_half_of_the_natural_tasks_split() -> None:
    asked: list[str] = []
    several = set(questions("held_out", aspects=True))

    async def answers(now: Sequence[str]) -> list[str]:
        asked.extend(now)
        return [LIST if question in several else "It is large." for question in now]

    tasks = await write_natural(answers, 31, seed=1, split="held_out")
    assert [sum(task.splits is splits for task in tasks) for splits in (True, False)] == [16, 15]
    assert all(task.sequential == (LIST if task.splits else "It is large.") for task in tasks)
    assert len(set(asked)) == len(asked)


async def test_answers_without_the_form_are_asked_for_again_until_no_question_is_left() -> None:
    async def answers(now: Sequence[str]) -> list[str]:
        return ["No list" for _ in now]

    assert await write_natural(answers, 10, seed=1) == []
