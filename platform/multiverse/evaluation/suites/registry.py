"""The suites there are, and what their files look like."""

from dataclasses import dataclass
from typing import Literal

Grading = Literal["math", "choice", "exact"]
MATH = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
CHOICE = "{question}\n\n{choices}\n\nPlease reason step by step, and end with 'The answer is (X)', X being the letter."


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite's files. hub: ``owner/dataset`` and the file in it, where no other source is given.

    question, answer: columns; the first that a row has counts. answer_after: the answer stands behind the last of these
    in its column. wrong: columns of the wrong choices. prompt: what is asked, with ``{question}`` and ``{choices}``.
    """

    name: str
    items: int
    grading: Grading
    hub: tuple[str, str] | None
    question: tuple[str, ...] = ("question", "problem", "prompt")
    answer: tuple[str, ...] = ("answer",)
    id: tuple[str, ...] = ("id", "unique_id")
    answer_after: str | None = None
    wrong: tuple[str, ...] = ()
    prompt: str = MATH


SUITES = {
    suite.name: suite
    for suite in (
        Suite("aime24", 30, "math", ("math-ai/aime24", "test-00000-of-00001.parquet"), answer=("answer", "solution")),
        Suite("aime25", 30, "math", ("math-ai/aime25", "test.jsonl")),
        Suite("amc23", 40, "math", ("math-ai/amc23", "test-00000-of-00001.parquet")),
        Suite("math500", 500, "math", ("HuggingFaceH4/MATH-500", "test.jsonl")),
        Suite("gsm8k", 1319, "math", ("openai/gsm8k", "main/test-00000-of-00001.parquet"), answer_after="####"),
        Suite(
            "gpqa-diamond",
            198,
            "choice",
            None,  # its authors ask not to spread it in the open: the user gives the file
            question=("Question",),
            answer=("Correct Answer",),
            id=("Record ID",),
            wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
            prompt=CHOICE,
        ),
    )
}
