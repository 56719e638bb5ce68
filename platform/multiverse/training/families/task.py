"""A task with its worked answer, in structured and in sequential form, and the grading of an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.structure.flatten import flatten_text

NAMED = "ABCDE"
"""Names of the parts of a task whose question names them."""

_ANSWER = re.compile(r"answer:(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """A question and its model answer.

    chain: structured text that passes the strict parser, or plain text where nothing splits.
    answer: the final line behind the chain, or "" where the chain is all.
    splits: the question has parts that do not need each other.
    expected: what `grade` compares an answer with; "" for tasks that are not graded.
    width: branches of the outermost block, 0 if there is none.
    """

    family: str
    question: str
    chain: str
    answer: str
    splits: bool
    expected: str
    width: int

    @property
    def text(self) -> str:
        """The structured answer turn."""
        return _turn(self.chain, self.answer)

    @property
    def sequential(self) -> str:
        """The answer turn of the AR twin."""
        return _turn(flatten_text(self.chain), self.answer)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a task: its outline, and the work of its path (one line, or lines and a nested block)."""

    outline: str
    work: str
    result: str


def split_task(family: str, question: str, parts: Sequence[Part]) -> Task:
    """The task of parts that are worked out at the same time, one branch each."""
    expected = ", ".join(part.result for part in parts)
    return Task(family, question, block(parts), f"Answer: {expected}.", True, expected, len(parts))


def chained_task(family: str, question: str, lines: Sequence[str], expected: str) -> Task:
    """The task of steps that need each other, a line each."""
    return Task(family, question, "".join(f"{line}\n" for line in lines), f"Answer: {expected}.", False, expected, 0)


def block(parts: Sequence[Part], parent: str = "", ending: str = "\n") -> str:
    """A parallel block.

    parent: the number of the path it stands in, with a dot: ``"2."``.
    ending: what a path's work ends with. It stays when flattened, unlike the line break behind it.
    """
    numbered = [(f"{parent}{place}", part) for place, part in enumerate(parts, start=1)]
    outlines = "".join(f"<Outline>\n{number}: {part.outline}\n</Outline>\n" for number, part in numbered)
    paths = "".join(f"<Path>\n{number}: {part.work}{ending}\n</Path>\n" for number, part in numbered)
    conclusion = "<Conclusion>\nDone.\n</Conclusion>\n"
    return f"<Parallel>\n<Goal>\n{outlines}</Goal>\n{paths}{conclusion}</Parallel>"


def grade(task_expected: str, answer_text: str) -> bool:
    """Whether the last ``Answer:`` line says what is expected; case, spacing and a final period do not matter."""
    answer = answer_of(answer_text)
    return answer is not None and _plain(answer) == _plain(task_expected)


def answer_of(text: str) -> str | None:
    """What the last ``Answer:`` line says; None: there is none."""
    found = _ANSWER.findall(text)
    return found[-1].strip() if found else None


def _plain(text: str) -> list[str]:
    return [" ".join(item.split()) for item in text.casefold().strip().rstrip(".").split(",")]


def _turn(chain: str, answer: str) -> str:
    return f"{chain}\n{answer}" if answer else chain
