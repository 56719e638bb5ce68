"""What a run writes: rows, dead letters, and the note that a part is done."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multiverse.curation.stages.outcome import Curated, RowRejectedError, Spent
from multiverse.storage import Folder, Prefix
from multiverse.training.rows import Row

INPUT, ROWS, LINES, DEAD, DONE = "input", "rows", "jsonl", "dead", "done"
"""Folders of a run."""
Record = dict[str, Any]


def part_name(folder: str, part: int, suffix: str) -> str:
    return f"{folder}/part-{part:05d}.{suffix}"


def curated_record(row: Row, curated: Curated, spent: Spent, mode: str, prompts: str) -> Record:
    """A row of the output: first what training reads, then where it comes from, then its figures.

    chain: structured. sequential: its AR twin. Tokens of the figures are words.
    """
    structure = curated.figures.structure
    return {
        "id": row.id,
        "question": row.question,
        "chain": curated.chain,
        "answer": row.answer,
        "family": row.family,
        "sequential": curated.sequential,
        "mode": mode,
        "prompts": prompts,
        **_spent(spent),
        "blocks": structure.blocks,
        "widths": list(structure.widths),
        "depth": structure.depth,
        "tokens": structure.tokens,
        "critical_path": structure.critical_path,
        "parallelism": structure.parallelism,
        "chain_tokens": curated.figures.chain_tokens,
        "shortening": curated.figures.shortening,
        "diff": curated.diff,
        "distance": curated.distance,
        "gaps": json.dumps(dict(curated.gaps)),
        "merged": curated.merged,
    }


def dead_record(row: Row | None, rejected: RowRejectedError, spent: Spent, where: str = "") -> Record:
    """A dead letter: the row as it came, the stage it failed in and why, and what it cost all the same."""
    return {
        "id": where if row is None else row.id,
        "stage": rejected.stage,
        "reason": rejected.reason,
        "retryable": rejected.retryable,
        **_spent(spent),
        "row": None if row is None else asdict(row),
    }


def _spent(spent: Spent) -> Record:
    return {
        "model": ", ".join(sorted(spent.models)),
        "calls": json.dumps(dict(sorted(spent.calls.items()))),
        "requests": spent.requests,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost": spent.cost,
    }


def _schema() -> Any:
    import pyarrow as pa

    texts = ("id", "question", "chain", "answer", "family", "sequential", "mode", "prompts", "model", "calls")
    numbers = ("requests", "prompt_tokens", "completion_tokens")
    return pa.schema(
        [(name, pa.string()) for name in texts]
        + [(name, pa.int64()) for name in numbers]
        + [("cost", pa.float64()), ("blocks", pa.int64()), ("widths", pa.list_(pa.int64())), ("depth", pa.int64())]
        + [("tokens", pa.int64()), ("critical_path", pa.int64()), ("parallelism", pa.float64())]
        + [("chain_tokens", pa.int64()), ("shortening", pa.float64()), ("diff", pa.string())]
        + [("distance", pa.float64()), ("gaps", pa.string()), ("merged", pa.int64())]
    )


def to_parquet(records: Sequence[Record]) -> bytes:
    """The rows as a Parquet file; the same columns also where there are none."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(records), schema=_schema()), buffer, compression="zstd")
    return buffer.getvalue()


def to_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8")


def from_lines(content: bytes) -> list[Record]:
    # Not str.splitlines(): texts may hold other line separators, which `to_lines` does not escape.
    return [json.loads(line) for line in content.splitlines()]


@dataclass(frozen=True, slots=True)
class Done:
    """That a part is done. files: their SHA-256. retryable: dead letters that another run may do better."""

    part: int
    curated: int
    dead: int
    retryable: int
    files: dict[str, str]


def write_part(folder: Folder | Prefix, part: int, rows: Sequence[Record], dead: Sequence[Record]) -> Done:
    """Write a part's files, and last the note that it is done."""
    files = {
        part_name(ROWS, part, "parquet"): to_parquet(rows),
        part_name(LINES, part, "jsonl"): to_lines(rows),
        part_name(DEAD, part, "jsonl"): to_lines(dead),
    }
    for name, content in files.items():
        folder.write(name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    done = Done(part, len(rows), len(dead), sum(record["retryable"] for record in dead), sums)
    folder.write(part_name(DONE, part, "json"), json.dumps(asdict(done), indent=1).encode())
    return done


def read_done(folder: Folder | Prefix) -> dict[int, Done]:
    """The parts that are done, by number."""
    names = [name for name in folder.names() if name.startswith(f"{DONE}/part-")]
    found = (Done(**json.loads(folder.read(name))) for name in names)
    return {done.part: done for done in found}
