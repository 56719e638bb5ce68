"""Configuration of a curation run: what YAML files may say."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from multiverse.config import Configuration, read_yaml
from multiverse.curation.llm.config import AnyLLMConfig, LocalModel


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Options):
    """What the source calls the columns of a row. Without ``id`` rows go by file and number."""

    question: str = Field("question", description="What is asked.")
    chain: str = Field("chain", description="The sequential reasoning.")
    answer: str | None = Field("answer", description="null: rows have none.")
    id: str = Field("id", description="The row's name, its own.")
    family: str = Field("family", description="A kind of rows; goes through to the output.")
    answer_after: str | None = Field(
        None, min_length=1, description="The chain's column holds the answer too, behind the last of these: '####'."
    )


class Selection(_Options):
    """Which rows are worked on."""

    rows: int | None = Field(None, ge=1, description="Take so many, drawn by a hash of their ids; default: all.")
    seed: int = Field(0, description="Another seed, other rows.")
    min_characters: int = Field(1, ge=1, description="Of the chain.")
    max_characters: int | None = Field(None, ge=1, description="Of the chain; longer ones are left out.")
    duplicates: bool = Field(False, description="True: keep rows that are almost an earlier one.")
    evaluation: tuple[str, ...] = Field(
        (), description="Files of evaluation questions; rows that share 13 words in a row with one are left out."
    )
    evaluation_columns: tuple[str, ...] = Field(
        ("question", "problem", "prompt", "Question"), description="Columns there that hold questions."
    )


class Stages(_Options):
    """How rows are structured."""

    mode: Literal["anchored", "rewrite"] = Field(
        "anchored", description="The chain's own text under tags, or each branch written anew."
    )
    tries: int = Field(3, ge=1, description="Answers asked for, the refused ones included, before a row is given up.")
    max_tokens: int = Field(8192, ge=64, description="Of an answer.")
    min_saving: int = Field(100, ge=1, description="Characters that a block must take off the critical path.")
    rewrite_openings: bool = Field(True, description='Rewrite first words that lean on a sibling ("Similarly,").')
    max_gap: float = Field(0.5, description="Nats per token above which a block is made sequential again.")
    sequential: Literal["keep", "drop"] = Field("keep", description="Rows in which nothing can run in parallel.")


class WorkerOptions(_Options):
    """Ray Data's actors. Each has its share of the LLM's limits."""

    count: int = Field(1, ge=1, description="How many; never more than parts.")
    cpus: float = Field(1, gt=0, description="CPUs that Ray counts for one.")
    gpus: float = Field(0, ge=0, description="GPUs that Ray gives to one.")
    rows_at_once: int | None = Field(None, ge=1, description="Per worker; default: the LLM's concurrency.")


class CurateConfig(Configuration):
    """One run. All that it writes lies under ``out``; the same command goes on where a run stopped."""

    source: str = Field(
        min_length=1,
        description="A .jsonl or .parquet file or a folder of them, here, on s3:// or as hf://owner/dataset/path.",
    )
    out: str = Field(min_length=1, description="A directory that all workers see, or s3://bucket/prefix.")
    columns: Columns = Columns()
    selection: Selection = Selection()
    stages: Stages = Stages()
    llm: AnyLLMConfig = Field(description="What structures the rows: an endpoint, or an engine in each worker.")
    independence: LocalModel | None = Field(
        None, description="The language model of the independence check, in each worker; default: no check."
    )
    workers: WorkerOptions = WorkerOptions()
    rows_per_part: int = Field(64, ge=1, description="Rows of an output shard: what is done, or done again, at once.")
    max_cost: float | None = Field(None, ge=0, description="Refuse to start if the estimate is above.")

    @model_validator(mode="after")
    def _fits_together(self) -> "CurateConfig":
        longest = self.selection.max_characters
        if longest is not None and longest < self.selection.min_characters:
            raise ValueError("selection.max_characters must not be below selection.min_characters")
        return self

    @classmethod
    def load(cls, path: Path, **overrides: Any) -> "CurateConfig":
        """Read a YAML file; ``overrides`` replace its top-level fields. Raises ConfigError."""
        values = read_yaml(path)
        if not isinstance(values, dict):
            return cls.of(values, str(path))
        return cls.of(values | {k: v for k, v in overrides.items() if v is not None}, str(path))

    def essence(self) -> dict[str, Any]:
        """What decides the output: a run goes on only where it is equal. Limits and the number of workers are free."""
        values = self.model_dump(mode="json", include={"source", "columns", "selection", "stages", "rows_per_part"})
        llm = self.llm.model_dump(mode="json")
        free = {"concurrency", "cache_dir", "key_env", "prices"}
        free |= {name for name in llm if name.endswith(("_seconds", "_per_minute", "_attempts"))}
        free |= {"kv_cache_gib", "max_num_seqs", "threads"}
        values["llm"] = {name: value for name, value in llm.items() if name not in free}
        scorer = self.independence
        values["independence"] = None if scorer is None else [scorer.model, scorer.dtype, scorer.max_model_len]
        return values
