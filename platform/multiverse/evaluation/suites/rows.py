"""Rows of a file, wherever it is: the one place that reads .json, .jsonl, .parquet and .csv of evaluation questions."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from multiverse.storage import download_object, download_prefix

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")
HUB = "hf://"


class SuiteError(ValueError):
    """A suite that cannot be read; the message names file, row and column."""


def fetch(source: str, folder: Path) -> Path:
    """The local file, or folder of files, of a path, ``s3://bucket/key`` or ``hf://owner/dataset/path``.

    folder: where what is not here yet is put. Raises SuiteError, StorageError.
    """
    if source.startswith("s3://"):
        if source.endswith(SUFFIXES):
            return download_object(source, folder / source.rpartition("/")[2])
        return download_prefix(source, folder / "rows")
    if source.startswith(HUB):
        owner, name, file = [*source.removeprefix(HUB).split("/", 2), "", ""][:3]
        if not (owner and name and file):
            raise SuiteError(f"{source} is not of the form hf://owner/dataset/path")
        return hub_file(f"{owner}/{name}", file)
    path = Path(source).expanduser()
    if not path.exists():
        raise SuiteError(f"{source} is no file")
    return path


def hub_file(repository: str, file: str) -> Path:
    """The local copy of a dataset's file. Raises SuiteError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SuiteError(f"{HUB}{repository}/{file} could not be had: {error}") from error


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, or of a folder's files by name, each with where it stands ("aime25.json, row 3").

    Raises SuiteError for a file of another kind, one that is broken, and a row that is no object.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise SuiteError(f"{path} holds no {_spoken_suffixes()} files")
        for file in files:
            yield from read_rows(file)
        return
    if path.suffix not in _READERS:
        raise SuiteError(f"{path.name} must end with {_spoken_suffixes()}")
    rows = _READERS[path.suffix](path)
    number = 0
    while True:
        number += 1
        try:
            value = next(rows)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise SuiteError(f"{path.name} is no UTF-8 text: {error}") from error
        if not isinstance(value, Mapping):
            raise SuiteError(f"{path.name}, row {number}: must be an object, not {value!r:.60}")
        yield f"{path.name}, row {number}", value


def _jsonl(path: Path) -> Iterator[Any]:
    # Not splitlines(): texts may hold other line separators, which JSON does not escape.
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parsed(line, f"{path.name}, line {number}")


def _json(path: Path) -> Iterator[Any]:
    values = _parsed(path.read_text("utf-8-sig"), path.name)
    if not isinstance(values, list):
        raise SuiteError(f"{path.name} must hold a list of objects")
    yield from values


def _csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise SuiteError(
                        f"{path.name}, line {reader.line_num}: must have {len(reader.fieldnames or ())} values"
                    )
                yield row
        except csv.Error as error:
            raise SuiteError(f"{path.name}, line {reader.line_num}: no CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except ArrowException as error:
        raise SuiteError(f"{path.name}: no Parquet: {error}") from error


_READERS: Mapping[str, Callable[[Path], Iterator[Any]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": _csv,
}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SuiteError(f"{where}: no JSON: {error}") from error


def _spoken_suffixes() -> str:
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
