"""Rows of any source, checked, selected and laid down in parts, whatever becomes of the source later."""

import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from multiverse.config import ConfigError
from multiverse.curation.checks.overlap import Duplicates, EvaluationQuestions
from multiverse.curation.job.config import Columns, CurateConfig, Selection
from multiverse.curation.job.records import DEAD, INPUT, Record, dead_record, from_lines, part_name, to_lines
from multiverse.curation.stages.outcome import RowRejectedError, Spent
from multiverse.evaluation.suites.rows import HUB, SuiteError, fetch, read_rows
from multiverse.storage import Folder, Prefix
from multiverse.training.rows import Row, RowError, read_records, to_row

MANIFEST = f"{INPUT}/manifest.json"
DEAD_FILE = f"{DEAD}/intake.jsonl"


@dataclass(frozen=True, slots=True)
class Intake:
    """read = rows + left_out + rejected. left_out: by reason, without fault of the row (selection).

    rejected: rows that are dead letters already, by reason. characters: of all chains. essence: `CurateConfig`'s.
    """

    parts: int
    rows: int
    read: int
    characters: int
    left_out: dict[str, int]
    rejected: dict[str, int]
    essence: dict[str, Any]


def take_in(config: CurateConfig, folder: Folder | Prefix) -> Intake:
    """The run's input, which is written the first time.

    Raises ConfigError if ``folder`` holds a run with other settings, RowError if the source is of no known kind,
    OSError and StorageError if it cannot be read.
    """
    known = read_intake(folder)
    essence = config.essence()
    if known is not None:
        if differing := sorted(name for name in essence if essence[name] != known.essence.get(name)):
            raise ConfigError(f"{config.out} holds a run with other settings ({', '.join(differing)}): choose another")
        return known
    counter = _Counter()
    chosen = None if config.selection.rows is None else _draw(config)
    rows = _accepted(config, counter, chosen)
    part, size, characters, pending = 0, 0, 0, []
    for row in rows:
        pending.append(asdict(row))
        size += 1
        characters += len(row.chain)
        if len(pending) == config.rows_per_part:
            folder.write(part_name(INPUT, part, "jsonl"), to_lines(pending))
            part, pending = part + 1, []
    if pending:
        folder.write(part_name(INPUT, part, "jsonl"), to_lines(pending))
        part += 1
    folder.write(DEAD_FILE, to_lines(counter.dead))
    intake = Intake(part, size, counter.read, characters, dict(counter.left_out), counter.rejections, essence)
    folder.write(MANIFEST, json.dumps(asdict(intake), indent=1).encode())
    return intake


def read_intake(folder: Folder | Prefix) -> Intake | None:
    """What `take_in` has written; None: nothing yet."""
    if MANIFEST not in folder.names():
        return None
    return Intake(**json.loads(folder.read(MANIFEST)))


def read_part(folder: Folder | Prefix, part: int) -> list[Row]:
    return [Row(**record) for record in from_lines(folder.read(part_name(INPUT, part, "jsonl")))]


class _Counter:
    def __init__(self) -> None:
        self.read = 0
        self.left_out: Counter[str] = Counter()
        self.dead: list[Record] = []

    @property
    def rejections(self) -> dict[str, int]:
        return dict(Counter(record["stage"] for record in self.dead))

    def reject(self, stage: str, reason: str, row: Row | None = None, where: str = "") -> None:
        self.dead.append(dead_record(row, RowRejectedError(stage, reason), Spent(), where))


def _draw(config: CurateConfig) -> set[str]:
    """The ids of the rows to take: those whose hashes are the least, so that the order of the source plays no role."""
    most = config.selection.rows
    assert most is not None
    rows = _accepted(config, _Counter(), None)
    hashed = ((xxhash.xxh3_64_intdigest(row.id.encode(), seed=config.selection.seed), row.id) for row in rows)
    return {id for _, id in heapq.nsmallest(most, hashed)}


def _accepted(config: CurateConfig, counter: _Counter, chosen: set[str] | None) -> Iterator[Row]:
    selection = config.selection
    questions = _evaluation_questions(selection)
    duplicates = None if selection.duplicates else Duplicates()
    seen: dict[str, int] = {}
    for where, record in read_records(local_source(config.source)):
        counter.read += 1
        try:
            row = to_row(where, _renamed(where, record, config.columns))
        except RowError as error:
            counter.reject("source", str(error), where=where)
            continue
        first = seen.setdefault(row.id, counter.read)
        if first != counter.read:
            counter.reject("source", f"the id is also that of the source's row {first}", row)
        elif reason := _unfit(row, selection):
            counter.left_out[reason] += 1
        elif (name := questions.find(row.question, row.chain)) is not None:
            counter.reject("decontamination", f"shares 13 words in a row with the evaluation question {name}", row)
        elif duplicates is not None and (other := duplicates.add(row.id, f"{row.question}\n{row.chain}")) is not None:
            counter.reject("duplicates", f"is almost the row {other}", row)
        elif chosen is not None and row.id not in chosen:
            counter.left_out["not drawn"] += 1
        else:
            yield row


def _unfit(row: Row, selection: Selection) -> str | None:
    if len(row.chain) < selection.min_characters:
        return "chain too short"
    if selection.max_characters is not None and len(row.chain) > selection.max_characters:
        return "chain too long"
    return None


def _renamed(where: str, record: Mapping[str, Any] | RowError, columns: Columns) -> Mapping[str, Any] | RowError:
    """The record with our names. Its texts stay as they are, also where the answer is cut off; it may be a number."""
    if isinstance(record, RowError):
        return record
    names = {"question": columns.question, "chain": columns.chain, "id": columns.id, "family": columns.family}
    renamed = {ours: record[theirs] for ours, theirs in names.items() if theirs in record}
    answer = "" if columns.answer is None else record.get(columns.answer)
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    renamed["answer"] = str(answer) if is_number else answer
    if columns.answer_after is not None and isinstance(chain := renamed.get("chain"), str):
        chain, found, answer = chain.rpartition(columns.answer_after)
        if not found:
            return RowError(f"{where}: {columns.chain} holds no {columns.answer_after!r}")
        renamed |= {"chain": chain.rstrip(), "answer": answer.strip()}
    return renamed


def _evaluation_questions(selection: Selection) -> EvaluationQuestions:
    questions: dict[str, str] = {}
    for source in selection.evaluation:
        found = 0
        with tempfile.TemporaryDirectory() as folder:
            try:
                for where, record in read_rows(fetch(source, Path(folder))):
                    for column in selection.evaluation_columns:
                        if isinstance(text := record.get(column), str):
                            # Files of two sources may have the same name, and a row may have two of the columns.
                            name = where if where not in questions else f"{source}, {where}, {column}"
                            questions[name] = text
                            found += 1
            except SuiteError as error:
                raise ConfigError(f"selection.evaluation: {error}") from error
        if not found:
            raise ConfigError(f"{source} has no column {' or '.join(selection.evaluation_columns)}")
    return EvaluationQuestions(questions)


def local_source(source: str) -> str:
    """``hf://owner/dataset/path`` as the path of a local copy; anything else as it is. Raises ConfigError."""
    if not source.startswith(HUB):
        return source
    with tempfile.TemporaryDirectory() as folder:
        try:
            return str(fetch(source, Path(folder)))  # the hub has a cache of its own
        except SuiteError as error:
            raise ConfigError(str(error)) from error
