"""Training rows: a question, its chain and its answer, from files, an object store or a Ray Dataset."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from multiverse.storage import download_object, download_prefix
from multiverse.structure.flatten import flatten
from multiverse.structure.grammar import Document, GrammarError, parse
from multiverse.validation import explain

SUFFIXES = (".jsonl", ".parquet")


class RowError(ValueError):
    """A row that training cannot use; the message names the row and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. id: what messages call it. chain: structured or sequential. answer: what stands behind it, may be ""."""

    id: str
    question: str
    chain: str
    answer: str
    family: str = ""

    def document(self) -> Document:
        """The assistant's turn: the chain and, on a line of its own, the answer.

        Raises RowError with the row's id and the rule of the grammar, line and column where it fails. They count from
        the beginning of the chain; an answer that holds tags fails where it stands behind the chain.
        """
        try:
            parse(self.chain)
            return parse(self._with_answer(self.chain))
        except GrammarError as error:
            raise RowError(f"row {self.id}: {error}") from error

    def sequential(self) -> str:
        """The turn of the AR twin: the flattened chain, and the answer. Raises RowError as `document` does."""
        try:
            return self._with_answer(flatten(parse(self.chain)))
        except GrammarError as error:
            raise RowError(f"row {self.id}: {error}") from error

    def _with_answer(self, chain: str) -> str:
        return f"{chain}\n{self.answer}" if self.answer else chain


_ROW = TypeAdapter(Row)


def read_rows(source: str | Path | Any) -> Iterator[Row]:
    """The rows of ``source``, in order.

    source: a .jsonl or .parquet file or a folder of such files, by name, here or as ``s3://bucket/...``; or a Ray
    Dataset, whose rows are mappings. Columns are the fields of `Row`; ``id`` may be left out (the row then goes by file
    and number, from 1) or be a number, and ``family`` may be left out; other columns are ignored.
    Raises RowError for a column that is missing or holds no text, and for files of another kind; StorageError.
    """
    if hasattr(source, "iter_rows"):
        yield from _to_rows(source.iter_rows(), "dataset")
        return
    name = str(source)
    if not name.startswith("s3://"):
        yield from _read_path(Path(name))
        return
    with tempfile.TemporaryDirectory() as folder:
        if name.endswith(SUFFIXES):
            yield from _read_path(download_object(name, Path(folder) / name.rpartition("/")[2]))
        else:
            yield from _read_path(download_prefix(name, Path(folder) / "rows"))


def _read_path(path: Path) -> Iterator[Row]:
    if not path.is_dir():
        yield from _to_rows(_records(path), path.name)
        return
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    if not files:
        raise RowError(f"{path} holds no {' or '.join(SUFFIXES)} files")
    for file in files:
        yield from _to_rows(_records(file), file.relative_to(path).as_posix())


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise RowError(f"{path.name}, line {number}: no JSON: {error}") from error
    elif path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        for batch in ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    else:
        raise RowError(f"{path} must end with {' or '.join(SUFFIXES)}")


def _to_rows(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise RowError(f"{name}, row {number}: must be an object with the fields of a row, not {record!r:.60}")
        given = {key: value for key, value in record.items() if value is not None}
        given["id"] = str(given.get("id", f"{name}:{number}"))
        try:
            yield _ROW.validate_python(given)
        except ValidationError as error:
            raise RowError(f"{name}, row {number}: {explain(error)[1]}") from error
