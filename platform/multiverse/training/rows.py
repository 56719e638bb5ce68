"""Training rows: a question, its chain and its answer, from files, an object store or a Ray Dataset."""

import codecs
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
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
    for where, record in read_records(source):
        yield to_row(where, record)


def read_records(source: str | Path | Any) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    """What `read_rows` reads, each with where it stands ("rows.jsonl:3"); a line that is no JSON object is an error.

    Raises RowError for files of another kind; StorageError.
    """
    if hasattr(source, "iter_rows"):
        yield from _placed("dataset", source.iter_rows())
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


def to_row(where: str, record: Mapping[str, Any] | RowError) -> Row:
    """A record as a row. Raises RowError."""
    if isinstance(record, RowError):
        raise record
    given = {key: value for key, value in record.items() if value is not None}
    given["id"] = str(given.get("id", where))
    try:
        row = _ROW.validate_python(given)
    except ValidationError as error:
        raise RowError(f"{_spoken(where)}: {explain(error)[1]}") from error
    for name, text in asdict(row).items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(f"{_spoken(where)}: {name} holds a lone surrogate at character {error.start}") from error
    return row


def _read_path(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    if not path.is_dir():
        yield from _placed(path.name, _records(path))
        return
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    if not files:
        raise RowError(f"{path} holds no {' or '.join(SUFFIXES)} files")
    for file in files:
        yield from _placed(file.relative_to(path).as_posix(), _records(file))


def _placed(name: str, records: Iterable[Any]) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    for number, record in enumerate(records, 1):
        where = f"{name}:{number}"
        if not isinstance(record, Mapping | RowError):
            record = RowError(f"{_spoken(where)}: must be an object with the fields of a row, not {record!r:.60}")
        yield where, record


def _spoken(where: str) -> str:
    return ", row ".join(where.rsplit(":", 1))


def _parsed(line: bytes, where: str) -> Any:
    """A line's value, or what is wrong with it."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"{where}: no UTF-8 text: {error}")
    except (ValueError, RecursionError) as error:
        return RowError(f"{where}: no JSON: {error}")


def _records(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if not line.isspace():
                    yield _parsed(line, f"{path.name}, line {number}")
    elif path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        for batch in ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    else:
        raise RowError(f"{path} must end with {' or '.join(SUFFIXES)}")
