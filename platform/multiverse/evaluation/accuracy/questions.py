"""The questions of a suite, of files or generated."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from multiverse.evaluation.accuracy.asking import GradedBy
from multiverse.evaluation.accuracy.config import GENERATED, SuiteUse
from multiverse.evaluation.suites.load import SuiteError, load_suite


@dataclass(frozen=True, slots=True)
class Question:
    """One item. id: the same whatever else is asked. group: rows of a table of their own, "" for none.

    splits, width: whether the task has independent parts and how many; None where nobody knows.
    """

    id: str
    text: str
    reference: str
    graded_by: GradedBy
    group: str = ""
    splits: bool | None = None
    width: int | None = None

    @property
    def digest(self) -> str:
        """Of the text: an answer to another one is none to this."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Questions:
    """source: where they come from. sha256: of the file, or of the generated tasks. max_tokens: of an answer.

    budgets: in place of the run's; None: those.
    """

    suite: str
    source: str
    sha256: str
    items: tuple[Question, ...]
    max_tokens: int | None
    budgets: tuple[int | str, ...] | None = None
    from_file: bool = True


def load_questions(use: SuiteUse, seed: int) -> Questions:
    """Raises SuiteError, StorageError."""
    if use.name == GENERATED:
        return _generated(use, seed)
    loaded = load_suite(use.name, use.source, use.columns, use.count, seed)
    items = tuple(Question(item.id, item.question, item.answer, item.grading) for item in loaded.items)
    # Where a file lies on one machine is of no use on another.
    source = loaded.source if "://" in loaded.source else Path(loaded.source).name
    return Questions(use.name, source, loaded.sha256, items, use.max_tokens, use.budgets)


def _generated(use: SuiteUse, seed: int) -> Questions:
    from multiverse.training.families import FAMILIES, generate

    if use.source is not None or use.columns:
        raise SuiteError("the generated suite has no file: leave its source and columns out")
    count = 500 if use.count is None else use.count
    tasks = generate(tuple(FAMILIES), "held_out", count, seed)
    items = tuple(
        Question(
            id=f"{task.family}-{hashlib.sha256(task.question.encode()).hexdigest()[:12]}",
            text=task.question,
            reference=task.expected,
            graded_by="task",
            group=task.family,
            splits=task.splits,
            width=task.width,
        )
        for task in tasks
    )
    most = 600 if use.max_tokens is None else use.max_tokens
    return Questions(
        use.name, f"{count} held-out tasks of seed {seed}", _digest(items), items, most, use.budgets, from_file=False
    )


def _digest(items: Sequence[Question]) -> str:
    text = json.dumps(sorted(json.dumps(asdict(item)) for item in items))
    return hashlib.sha256(text.encode()).hexdigest()
