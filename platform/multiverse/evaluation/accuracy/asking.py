"""What is asked, what comes back, and how thinking is closed where a budget ends."""

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

GradedBy = Literal["math", "choice", "exact", "task"]
"""How an answer is graded: by `multiverse.evaluation.grading`, or, "task", by its ``Answer:`` line."""

_CUES: dict[GradedBy, str] = {
    "math": "The final answer is \\boxed{",
    "choice": "The answer is (",
    "exact": "The final answer is \\boxed{",
    "task": "Answer:",
}
_THINKING = re.compile(r"<(/?)(think)>", re.IGNORECASE)

FORCED_STOP = "\n"
"""A forced answer is the rest of its line."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted.

    sample: which of an item's answers, from 0; its seed is that of the run plus this. budget: positions of the critical
    path after which thinking is closed and the answer forced; None: it ends by itself, or by ``max_tokens``.
    max_tokens: of the answer, all branches counted, where it has no budget; None: what the context leaves.
    """

    suite: str
    item: str
    sample: int
    question: str
    graded_by: GradedBy
    seed: int
    budget: int | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    answer_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. forced: the budget ended before the thinking did. seconds: wall time.

    tokens, critical_path: of all that was written; None where the server does not count. The closing text of a budget
    is counted on an engine of this process, over HTTP it is not.
    width: branches of the first block; fallbacks: why it went on sequentially somewhere.
    """

    text: str
    finish: str
    tokens: int | None
    critical_path: int | None
    seconds: float
    blocks: int = 0
    width: int = 0
    fallbacks: tuple[str, ...] = ()
    forced: bool = False


class AnswerError(RuntimeError):
    """One attempt gave no answer. retryable: another one may. pause: seconds to wait first, if the server says so.

    counts: False: being told to wait is no failure.
    """

    def __init__(self, message: str, retryable: bool = True, pause: float | None = None, counts: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.pause = pause
        self.counts = counts


class TargetError(ValueError):
    """The model or server takes no question at all: no item is at fault, so the run stops."""


class Responder(Protocol):
    """Whoever answers, many questions at a time. Used in ``async with``."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def answer(self, ask: Ask) -> Response:
        """Raises AnswerError, TargetError."""
        ...


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends within thinking, as where the chat template begins it."""
    return prompt.rstrip().lower().endswith("<think>")


def closing(text: str, graded_by: GradedBy, thinking: bool = False) -> str:
    """What is written behind ``text``, cut by its budget, so that the answer comes next: the same for every model.

    thinking: ``text`` begins within thinking that the prompt opened.
    """
    marks = [("", "think")] * thinking + _THINKING.findall(text)
    opened = next((name for slash, name in reversed(marks)), None) if marks and not marks[-1][0] else None
    end = f"\n</{opened}>\n\n" if opened is not None else "\n"
    return f"{end}{_CUES[graded_by]}"
