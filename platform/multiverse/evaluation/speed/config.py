"""Configuration of a speed run: what YAML files and the command line may say."""

import os
from math import inf
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator

from multiverse.config import DEFAULT_MODEL, AppConfig, Configuration, EngineOptions, read_yaml
from multiverse.engine.config import EngineConfig

ENGINE = EngineOptions(kv_cache_gib=4.0, max_num_seqs=256, max_model_len=8192, self_test=False)

SMALL: dict[str, Any] = {
    "batches": (1, 4),
    "parallelism": (4,),
    "contexts": (512,),
    "branch_tokens": 64,
    "repeats": 3,
    "minutes": None,
    "engine": ENGINE.model_dump() | {"kv_cache_gib": 1.0},
}
"""The grid of ``make bench``."""


def _for_this_cpu(engine: Any) -> dict[str, Any]:
    """The field ``engine``, with the dtype that stands for "auto" on this machine: reports name it."""
    from multiverse.models.precision import chosen

    if not isinstance(engine, dict) or engine.get("dtype", "auto") != "auto":
        return {"engine": engine}
    return {"engine": engine | {"dtype": chosen("auto")}}


class SpeedConfig(Configuration):
    """Batch sizes times parallelism times contexts, and chains."""

    model: str = Field(DEFAULT_MODEL, min_length=1, description="Anything that `multiverse prepare` takes.")
    out: str = Field("runs/speed", min_length=1, description="Folder or s3:// prefix; a run goes on from there.")
    batches: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64), description="Requests at the same time.")
    parallelism: tuple[float, ...] = Field(
        (1.0, 1.5, 2.0, 4.0, 8.0), description="Tokens over critical path, of the branches and what follows them."
    )
    contexts: tuple[int, ...] = Field((512, 1024, 2048, 4096), description="Tokens before the fork.")
    branch_tokens: int = Field(128, ge=16, description="Tokens of each branch.")
    traces: tuple[str, ...] = Field((), description="Structured chains whose shapes are measured too.")
    trace_tokens: int = Field(2048, ge=64, description="Of each chain, its beginning up to whole blocks.")
    repeats: int = Field(3, ge=1, description="Runs of each cell; medians count.")
    repeats_alone: int | None = Field(None, ge=1, description="The same for batch 1; by default as `repeats`.")
    minutes: float | None = Field(
        60.0, gt=0, description="What the grid may take; cells beyond are left out and listed. null: whatever it takes."
    )
    seed: int = Field(0, ge=0, description="Of the texts.")
    engine: EngineOptions = Field(ENGINE, description="As in Serving.")
    num_cpus: float = Field(1, ge=0, description="As a Ray job: CPUs that Ray counts for the engine.")
    num_gpus: float = Field(0, ge=0, description="As a Ray job: GPUs that Ray gives to the engine.")

    @field_validator("batches", "contexts", "parallelism")
    @classmethod
    def _from_one_on(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        least = 1 if info.field_name != "contexts" else 128
        if not values or len(set(values)) < len(values) or min(values) < least or max(values) == inf:
            raise ValueError(f"must be different numbers, {least} or more")
        return values

    @field_validator("traces")
    @classmethod
    def _are_files(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        found = [Path(path).expanduser() for path in paths]
        for path in found:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
        if len({path.stem for path in found}) < len(found):
            raise ValueError("names of files must be different, whatever their folders")
        return tuple(os.path.abspath(path) for path in found)

    @classmethod
    def load(cls, path: Path | None, **given: Any) -> Self:
        """The file's fields, or the defaults, with those that are given in place of them. Raises ConfigError."""
        values = {} if path is None else read_yaml(path) or {}
        if isinstance(values, dict):
            values = values | given
            values = values | _for_this_cpu(values.get("engine", ENGINE.model_dump()))
        return cls.of(values, "command line" if path is None else str(path))

    def engine_config(self) -> EngineConfig:
        return AppConfig(model=self.model, engine=self.engine).engine_config()

    def repeats_of(self, batch: int) -> int:
        return self.repeats if batch > 1 or self.repeats_alone is None else self.repeats_alone

    def essence(self) -> dict[str, Any]:
        """What the time of a cell depends on, whichever other cells there are. Of chains their files tell."""
        return self.model_dump(mode="json", include={"model", "branch_tokens", "trace_tokens", "engine"})

    def described(self) -> dict[str, Any]:
        """For reports: all fields, chains by their names alone."""
        values = self.model_dump(mode="json", exclude={"out"})
        return values | {"traces": [Path(path).name for path in self.traces]}
