"""A run small enough for a test: a model of two layers and rows of a few words."""

import json
from pathlib import Path
from typing import Any

from multiverse.models.prepare import prepare
from multiverse.training.config import TrainConfig
from tests.unit.models.tiny_model import write_base

STRUCTURED = (
    "Both.\n<Parallel>\n<Goal>\n<Outline>\n1: the {a}\n</Outline>\n<Outline>\n2: the {b}\n</Outline>\n</Goal>\n"
    "<Path>\n1: The {a} is here.\n\n</Path>\n<Path>\n2: The {b} is there, too.\n</Path>\n"
    "<Conclusion>\nBoth are.\n</Conclusion>\n</Parallel>"
)
WORDS = ("cat", "dog", "tree", "house", "road", "lamp", "stone", "river")


def write_rows(path: Path, count: int) -> Path:
    """Rows that split, and every fourth one that does not."""
    rows = []
    for number in range(count):
        a, b = WORDS[number % len(WORDS)], WORDS[(number * 3 + 1) % len(WORDS)]
        chain = f"The {a}, then the {b}." if number % 4 == 3 else STRUCTURED.format(a=a, b=b)
        rows.append(
            {"id": str(number), "question": f"Where are {a} and {b}?", "chain": chain, "answer": "Answer: here."}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_model(folder: Path) -> Path:
    """The prepared model, in float32."""
    base = folder / "base"
    base.mkdir()
    return prepare(str(write_base(base)), folder / "model", dtype="float32")


def tiny_config(model: Path, folder: Path, rows: int = 12, **values: Any) -> TrainConfig:
    """A run of ``rows`` rows in float32 whose output goes to ``folder``."""
    data = {"rows": str(write_rows(folder / "rows.jsonl", rows)), "max_tokens": 400, **values.pop("data", {})}
    defaults = {
        "model": str(model),
        "out": str(folder / "out"),
        "data": data,
        "curriculum": {"kind": "linear", "passes": 2},
        "rows_per_step": 4,
        "dtype": "float32",
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.0},
        "checkpoints": {"every_steps": 2},
        "seed": 1,
    }
    return TrainConfig.of(defaults | values)
