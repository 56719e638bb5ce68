"""The items of a suite, from a file, an object store or the hub."""

import csv
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiverse.evaluation.suites.registry import SUITES, Grading, Suite
from multiverse.storage import download_object

LETTERS = "ABCDEFGHIJ"


class SuiteError(ValueError):
    """A suite that cannot be read; the message names file, row and column."""


@dataclass(frozen=True, slots=True)
class Item:
    """question: the prompt as it is asked. answer: the reference; of a choice its letter."""

    id: str
    question: str
    answer: str
    grading: Grading


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

    source: a .json, .jsonl, .parquet or .csv file, here or as ``s3://bucket/key``; default: the hub's.
    columns: other names for ``question``, ``answer`` and ``id``. limit: the first so many. seed: of the choices' order.
    Raises SuiteError, StorageError.
    """
    if name not in SUITES:
        raise SuiteError(f"there is no suite {name!r}: there are {', '.join(SUITES)}")
    suite = SUITES[name]
    if unknown := set(columns or ()) - {"question", "answer", "id"}:
        raise SuiteError(f"columns has {unknown.pop()!r}: must be question, answer or id")
    with tempfile.TemporaryDirectory() as folder:
        path, place = _file(suite, source, Path(folder))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        items: list[Item] = []
        for number, record in enumerate(_records(path), 1):
            if limit is not None and len(items) == limit:
                break
            items.append(_item(suite, record, f"{path.name}, row {number}", number, columns or {}, seed))
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
            raise SuiteError(f"{suite.name} is not downloaded: give its file with --source")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        repository, file = suite.hub
        try:
            return Path(hf_hub_download(repository, file, repo_type="dataset")), f"hf://{repository}/{file}"
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise SuiteError(f"{suite.name} could not be had from {repository}; give a file: {error}") from error
    if source.startswith("s3://"):
        return download_object(source, folder / source.rpartition("/")[2]), source
    path = Path(source).expanduser()
    if not path.is_file():
        raise SuiteError(f"{source} is no file")
    return path, str(path)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    match path.suffix:
        case ".jsonl":
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                if line.strip():
                    yield _object(_parsed(line, f"{path.name}, line {number}"), f"{path.name}, line {number}")
        case ".json":
            values = _parsed(path.read_text("utf-8"), path.name)
            if not isinstance(values, list):
                raise SuiteError(f"{path.name} must hold a list of objects")
            yield from (_object(value, f"{path.name}, row {number}") for number, value in enumerate(values, 1))
        case ".csv":
            with path.open(encoding="utf-8", newline="") as lines:
                yield from csv.DictReader(lines)
        case ".parquet":
            from pyarrow import parquet

            yield from parquet.read_table(path).to_pylist()
        case _:
            raise SuiteError(f"{path.name} must end with .json, .jsonl, .parquet or .csv")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SuiteError(f"{where}: no JSON: {error}") from error


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SuiteError(f"{where}: must be an object, not {value!r:.60}")
    return value


def _item(
    suite: Suite, record: Mapping[str, Any], where: str, number: int, columns: Mapping[str, str], seed: int
) -> Item:
    def text(names: Sequence[str]) -> str:
        name = next((name for name in names if record.get(name) is not None), None)
        if name is None:
            raise SuiteError(f"{where}: has no {' or '.join(names)}; its columns are {', '.join(map(str, record))}")
        return _text(record[name])

    def of(field: str, names: tuple[str, ...]) -> tuple[str, ...]:
        return (columns[field],) if field in columns else names

    question, answer = text(of("question", suite.question)), text(of("answer", suite.answer))
    ids = of("id", suite.id)
    id = text(ids) if any(record.get(name) is not None for name in ids) else str(number)
    if suite.answer_after is not None:
        _, found, answer = answer.rpartition(suite.answer_after)
        if not found:
            raise SuiteError(f"{where}: its answer holds no {suite.answer_after!r}")
    if suite.grading != "choice":
        return Item(id, suite.prompt.format(question=question), answer.strip(), suite.grading)
    choices = [answer.strip(), *(text((name,)).strip() for name in suite.wrong)]
    random.Random(f"{seed} {id}").shuffle(choices)
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    letter = LETTERS[choices.index(answer.strip())]
    return Item(id, suite.prompt.format(question=question, choices=listed), letter, "choice")


def _text(value: Any) -> str:
    """Numbers as people write them: 27.0 is "27"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
