"""Natural questions, some after several aspects, some after one thing, with the answers that a model gives to them.

A numbered list becomes a block: each item is a path, its title the outline. Flattened, it is the model's own answer.
"""

import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files

import yaml

from multiverse.structure.flatten import flatten_text
from multiverse.structure.tags import TAG_PATTERN
from multiverse.training.families.draw import Split, side
from multiverse.training.families.task import Part, Task, block

Generate = Callable[[Sequence[str]], Awaitable[Sequence[str]]]
"""Answers to questions, each by itself."""

TOPICS: Mapping[str, Sequence[str]] = yaml.safe_load(files(__package__).joinpath("natural.yaml").read_text("utf-8"))

ASPECTS = {
    "tips": (
        "List {count} tips for {topic}. One sentence for each.",
        "Give {count} tips for {topic}. One sentence for each.",
        "What are {count} good tips for {topic}? List them, with one sentence for each.",
        "Write a numbered list of {count} short tips for {topic}.",
    ),
    "reasons": (
        "List {count} reasons why {topic}. One sentence for each.",
        "Give {count} reasons why {topic}. One sentence for each.",
        "What are {count} reasons why {topic}? List them, with one sentence for each.",
        "Write a numbered list of {count} short reasons why {topic}.",
    ),
    "sides": (
        "List {count} advantages of {topic}. One sentence for each.",
        "List {count} disadvantages of {topic}. One sentence for each.",
        "List {count} facts about {topic}. One sentence for each.",
        "Write a numbered list of {count} short points about {topic}.",
    ),
}
PLAIN = {
    "tips": ("Give one practical tip for {topic}, in one short sentence.", "What is one good tip for {topic}?"),
    "reasons": ("Name one reason why {topic}, in one short sentence.", "Give one reason why {topic}."),
    "things": (
        "Explain in one sentence what {topic} is.",
        "What is {topic}? Answer in one short sentence.",
        "Write one short sentence about {topic}.",
    ),
    "countries": ("What is the capital of {topic}?", "Tell me the capital of {topic}."),
}
COUNTS = ("two", "three", "four", "five")

LONGEST = 3.0
"""An item has at most so many times the words of the shortest."""
PLAIN_WORDS = 50
TITLE_WORDS = 5

_ITEM = re.compile(r"(?:^|(?<=[.!?:] ))(\d+)[.)] +", re.MULTILINE)
_TITLE = re.compile(r"\*\*(.+?)\*\*|([^:.\n]{2,40}?)(?::| - )")
_END = (".", "!", "?", '."', "**")


def questions(split: Split, aspects: bool) -> list[str]:
    """All questions of a split. No topic is in both splits."""
    return [
        phrasing.format(topic=topic, count=count)
        for kind, phrasings in (ASPECTS if aspects else PLAIN).items()
        for topic in TOPICS[kind]
        if side(("topic", topic)) == split
        for phrasing in phrasings
        for count in (COUNTS if aspects else COUNTS[:1])
    ]


async def write_natural(engine_generate: Generate, count: int, seed: int, split: Split = "train") -> list[Task]:
    """``count`` tasks, half of them after several aspects; fewer where too few answers have a usable form.

    engine_generate: plain answers of the base model.
    """
    draw = random.Random(f"natural {split} {seed}")
    many = await _written(engine_generate, count - count // 2, draw, split, aspects=True)
    one = await _written(engine_generate, count // 2, draw, split, aspects=False)
    tasks = many + one
    draw.shuffle(tasks)
    return tasks


async def _written(generate: Generate, count: int, draw: random.Random, split: Split, *, aspects: bool) -> list[Task]:
    asked = questions(split, aspects)
    draw.shuffle(asked)
    make = aspects_from_list if aspects else plain_answer
    tasks: list[Task] = []
    while len(tasks) < count and asked:
        now, asked = asked[: 2 * count], asked[2 * count :]
        answers = await generate(now)
        made = (make(question, answer) for question, answer in zip(now, answers, strict=True))
        tasks += [task for task in made if task is not None]
    return tasks[:count]


def aspects_from_list(question: str, answer_text: str) -> Task | None:
    """The task whose chain flattens to ``answer_text``, byte for byte but for white space around it.

    None unless that is a clean list: 2 to 6 items numbered from 1, of about the same length, no two of which begin
    alike, the last one complete; with at most a paragraph before and behind it.
    """
    text = answer_text.strip()
    marks = list(_ITEM.finditer(text))
    if not 2 <= len(marks) <= 6 or [int(mark[1]) for mark in marks] != list(range(1, len(marks) + 1)):
        return None
    starts = [mark.start() for mark in marks]
    items = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    before = text[: starts[0]]
    last, paragraph, behind = items[-1].partition("\n\n")
    items[-1] = last + paragraph
    words = [len(item.split()) for item in items]
    clean = all("\n" not in item.strip() for item in items) and before.strip().count("\n") == behind.count("\n") == 0
    even = min(words) >= 4 and max(words) <= LONGEST * min(words)
    if not clean or not even or not text.endswith(_END) or TAG_PATTERN.search(text):
        return None
    parts = [Part(_title(item[len(mark[0]) :]), item, "") for item, mark in zip(items, marks, strict=True)]
    chain = f"{before}\n" * bool(before) + block(parts, ending="") + f"\n{behind}" * bool(behind)
    alike = len({part.outline for part in parts}) < len(parts)
    return None if alike or flatten_text(chain) != text else Task("aspects", question, chain, "", True, "", len(parts))


def plain_answer(question: str, answer_text: str) -> Task | None:
    """The task with a plain answer of one paragraph; None for others, unfinished and long ones."""
    text = answer_text.strip()
    words = len(text.split())
    if "\n" in text or not 2 <= words <= PLAIN_WORDS or not text.endswith(_END) or TAG_PATTERN.search(text):
        return None
    return Task("plain", question, text, "", False, "", 0)


def _title(item: str) -> str:
    """What is said first in an item without its number: a title in bold or before a colon, else its first words."""
    found = _TITLE.match(item)
    if found:
        return (found[1] or found[2]).strip().removesuffix(":")
    return " ".join(re.split(r"[,;.!?]", item)[0].split()[:TITLE_WORDS])
