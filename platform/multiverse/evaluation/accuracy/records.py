"""Results, one line per answer, which are on disk before they count: a run that is killed goes on behind them."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

Key = tuple[str, str, int, int | None]
"""Suite, item, sample, budget."""


class RecordsError(ValueError):
    """The file of results cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one `Ask`, graded.

    answer, rule: what was extracted, and by which rule. note: why it could not be compared, "" if it was.
    valid: passes the strict parser and ended by itself, without a fallback. error: why there is no answer, "" if there
    is one; then it counts as wrong. question: the digest of what was asked.
    """

    suite: str
    item: str
    sample: int
    budget: int | None
    correct: bool
    answer: str = ""
    rule: str = ""
    note: str = ""
    reference: str = ""
    finish: str = ""
    tokens: int | None = None
    critical_path: int | None = None
    blocks: int = 0
    width: int = 0
    valid: bool = False
    fallbacks: tuple[str, ...] = ()
    forced: bool = False
    seconds: float = 0.0
    attempts: int = 0
    error: str = ""
    text: str = ""
    question: str = ""

    @property
    def key(self) -> Key:
        return self.suite, self.item, self.sample, self.budget

    @property
    def parallelism(self) -> float | None:
        """Tokens / critical path; None where the server does not count."""
        return None if self.tokens is None or not self.critical_path else self.tokens / self.critical_path

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Record":
        return cls(**values | {"fallbacks": tuple(values["fallbacks"])})


class Results:
    """The file of one side, to be appended to. ``records``: the newest of each key."""

    def __init__(self, file: IO[bytes], records: dict[Key, Record]) -> None:
        self._file = file
        self.records = records

    def append(self, record: Record) -> None:
        """On disk when this returns."""
        self._file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records[record.key] = record


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The results there are, and those to come. A line that a kill left half written is cut off.

    Raises RecordsError for a file that another run writes, or that holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecordsError(f"{path}: another run writes there") from error
        file.seek(0)
        records, whole = {}, 0
        for number, line in enumerate(file.read().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = Record.of(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise RecordsError(f"{path}, line {number}: no result: {error}") from error
            records[record.key] = record
            whole += len(line)
        file.truncate(whole)
        yield Results(file, records)
