"""The items of a suite, from a file, an object store or the hub."""

import hashlib
import math
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiverse.evaluation.grading.extraction import last_boxed
from multiverse.evaluation.suites.registry import SUITES, Grading, Suite
from multiverse.evaluation.suites.rows import HUB, SuiteError, fetch, hub_file, read_rows

__all__ = ["Item", "Loaded", "SuiteError", "load_suite"]

LETTERS = "ABCDEFGHIJ"
WORKED = "solution"
"""A column of this name holds a worked solution: its answer is in the last box of it."""


@dataclass(frozen=True, slots=True)
class Item:
    """question: the prompt as it is asked. answer: the reference; of a choice its letter. choices: in their order."""

    id: str
    question: str
    answer: str
    grading: Grading
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """source: where the items come from. sha256: of that file."""

    suite: str
    source: str
    sha256: str
    items: tuple[Item, ...]


def load_suite(
    name: str,
    source: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Loaded:
    """The items of the suite ``name``, in the file's order.

    source: a .json, .jsonl, .parquet or .csv file, here or as ``s3://bucket/key`` or ``hf://owner/dataset/path``;
    default: the hub's. columns: other names for ``question``, ``answer`` and ``id``, and of a multiple choice for
    ``wrong_1`` and so on. limit: the first so many. seed: of the choices' order, which also hangs on the item's id.
    Raises SuiteError, StorageError.
    """
    if name not in SUITES:
        raise SuiteError(f"there is no suite {name!r}: there are {', '.join(SUITES)}")
    suite = SUITES[name]
    fields = _Fields.of(suite, columns or {})
    with tempfile.TemporaryDirectory() as folder:
        path, place = _file(suite, source, Path(folder))
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        items: list[Item] = []
        for number, (where, record) in enumerate(read_rows(path), 1):
            if limit is not None and len(items) == limit:
                break
            items.append(_item(suite, fields, record, where, number, seed))
    if not items:
        raise SuiteError(f"{place} holds no rows")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise SuiteError(f"{place}: the id {item.id!r} occurs twice")
        seen.add(item.id)
    return Loaded(name, place, digest, tuple(items))


def _file(suite: Suite, source: str | None, folder: Path) -> tuple[Path, str]:
    if source is None:
        if suite.hub is None:
            raise SuiteError(f"{suite.name} is not downloaded: give its file, as in {suite.name}=PATH")
        repository, file = suite.hub
        try:
            return hub_file(repository, file), f"{HUB}{repository}/{file}"
        except SuiteError as error:
            raise SuiteError(f"{suite.name} needs a file of your own: {error}") from error
    path = fetch(source, folder)
    if not path.is_file():
        raise SuiteError(f"{source} is no file")
    return path, source


@dataclass(frozen=True, slots=True)
class _Fields:
    """Columns for what an item needs; the first that a row has counts. named: those that the user named."""

    question: tuple[str, ...]
    answer: tuple[str, ...]
    id: tuple[str, ...]
    wrong: tuple[tuple[str, ...], ...]
    named: frozenset[str]

    @classmethod
    def of(cls, suite: Suite, columns: Mapping[str, str]) -> "_Fields":
        wrong = {f"wrong_{place}": (name,) for place, name in enumerate(suite.wrong, 1)}
        known = {"question": suite.question, "answer": suite.answer, "id": suite.id} | wrong
        if unknown := [name for name in columns if name not in known]:
            names = list(known)
            raise SuiteError(f"columns has {unknown[0]!r}: must be {', '.join(names[:-1])} or {names[-1]}")
        known |= {name: (column,) for name, column in columns.items()}
        return cls(
            known["question"], known["answer"], known["id"], tuple(known[name] for name in wrong), frozenset(columns)
        )


def _item(suite: Suite, fields: _Fields, record: Mapping[str, Any], where: str, number: int, seed: int) -> Item:
    def text(names: tuple[str, ...]) -> tuple[str, str]:
        """The column and what is in it."""
        name = next((name for name in names if record.get(name) is not None), None)
        if name is None:
            raise SuiteError(f"{where}: has no {' or '.join(names)}; its columns are {', '.join(map(str, record))}")
        return name, _text(record[name], f"{where}: its {name}")

    _, question = text(fields.question)
    column, answer = text(fields.answer)
    has_id = "id" in fields.named or any(record.get(name) is not None for name in fields.id)
    id = text(fields.id)[1] if has_id else str(number)
    if suite.answer_after is not None:
        _, found, answer = answer.rpartition(suite.answer_after)
        if not found or not answer.strip():
            raise SuiteError(f"{where}: its answer holds no {suite.answer_after!r}")
    elif suite.grading == "math" and (column == WORKED or "\\boxed" in answer):
        boxed = last_boxed(answer)
        if boxed is None:
            raise SuiteError(f"{where}: its {column} holds no \\boxed{{}} with an answer")
        answer = boxed
    answer = answer.strip()
    if suite.grading != "choice":
        return Item(id, suite.prompt.format(question=question), answer, suite.grading)
    choices = [answer, *(text(names)[1].strip() for names in fields.wrong)]
    order = list(range(len(choices)))
    random.Random(f"{seed} {id}").shuffle(order)
    shuffled = tuple(choices[place] for place in order)
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, shuffled, strict=False))
    prompt = suite.prompt.format(question=question, choices=listed)
    return Item(id, prompt, LETTERS[order.index(0)], "choice", shuffled)


def _text(value: Any, what: str) -> str:
    """A text, or a number as people write it: 27.0 is "27"."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SuiteError(f"{what} must be text or a number, not {value!r:.60}")
    if not (text := str(value)).strip():
        raise SuiteError(f"{what} is empty")
    return text
