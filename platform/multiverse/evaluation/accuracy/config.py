"""Configuration of an evaluation: what YAML files may say."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from multiverse.addresses import Address, on_this_machine
from multiverse.config import ConfigError, Configuration, EngineOptions, read_yaml, short_name
from multiverse.evaluation.suites.registry import SUITES

GENERATED = "generated"
_QUANTILE = re.compile(r"(100|[1-9]?\d)%")


def _positions_or_quantiles(budgets: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
    for budget in budgets or ():
        if isinstance(budget, str) and not _QUANTILE.fullmatch(budget):
            raise ValueError(f"has {budget!r}: must be positions like 1024, or quantiles like '50%'")
        if isinstance(budget, int) and budget < 1:
            raise ValueError(f"has {budget}: must be at least 1 position")
    return budgets


Budgets = Annotated[tuple[int | str, ...], AfterValidator(_positions_or_quantiles)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteUse(_Options):
    """A suite, or a part of it."""

    name: str = Field(description=f"{GENERATED}, or one of {', '.join(SUITES)}.")
    source: str | None = Field(None, description="A file here or on s3://; default: the hub's.")
    columns: dict[str, str] = Field({}, description="Other names of the file's question, answer and id.")
    count: int | None = Field(None, ge=1, description="The first so many; default: all, of generated tasks 500.")
    max_tokens: int | None = Field(
        None, ge=1, description="Of an answer; default: what the context leaves, for generated tasks 600."
    )

    budgets: Budgets | None = Field(None, description="In place of the run's `budgets`; [] for none.")

    @field_validator("name")
    @classmethod
    def _there_is_such_a_suite(cls, name: str) -> str:
        if name != GENERATED and name not in SUITES:
            raise ValueError(f"must be {GENERATED} or one of {', '.join(SUITES)}")
        return name


class _Target(_Options):
    system: str | None = Field(None, description="A system message before each question.")
    suffix: str = Field("", description="Put behind each question: ' Think step by step and in parallel.'")

    def messages(self, question: str) -> list[dict[str, str]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": question + self.suffix}]


class EngineTarget(_Target):
    """A model that runs on an engine of the run's own, or of each of its workers."""

    kind: Literal["engine"] = Field("engine", description="May be left out.")
    model: str = Field(min_length=1, description="Directory, hub id, s3:// prefix or builtin:...")
    mode: Literal["auto", "force", "off"] | None = Field(None, description="Default: auto if trained, else off.")
    max_width: int = Field(8, ge=1, le=32, description="Branches of one block at the same time.")
    max_depth: int = Field(3, ge=1, le=8, description="How deep blocks may nest.")
    engine: EngineOptions = EngineOptions(self_test=False)

    @field_validator("model")
    @classmethod
    def _directory_from_where_it_is_read(cls, model: str) -> str:
        directory = Path(model).expanduser()
        return str(directory.absolute()) if directory.is_dir() else model

    @property
    def name(self) -> str:
        return short_name(self.model)

    def essence(self) -> dict[str, Any]:
        """What decides the answers."""
        from multiverse.models.precision import chosen

        values = self.model_dump(mode="json", include={"kind", "model", "mode", "max_width", "max_depth"})
        values |= {"system": self.system, "suffix": self.suffix, "dtype": chosen(self.engine.dtype)}
        values |= {"max_model_len": self.engine.max_model_len}
        return values | {"logits_processors": list(self.engine.logits_processors)}


class EndpointTarget(_Target):
    """A server that speaks OpenAI's chat completions."""

    kind: Literal["endpoint"] = Field("endpoint", description="May be left out where there is a `base_url`.")
    base_url: Address = Field(description="What stands before /chat/completions: http://127.0.0.1:8000/v1.")
    model: str | None = Field(None, min_length=1, description="Its name there; default: the only one there is.")
    key_env: str | None = Field(None, min_length=1, description="Environment variable with the API key.")
    extra_body: dict[str, Any] = Field({}, description="Further fields of each request.")
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the server calls the limit of an answer."
    )
    forcing: Literal["continue", "turn"] = Field(
        "continue",
        description="Where a budget ends. continue: the server goes on with the text (continue_final_message, as vLLM "
        "and SGLang have it); turn: a further user turn asks for the answer.",
    )
    opens_thinking: bool = Field(
        False,
        description="Whether the chat template itself writes <think> and the server leaves the thinking in the "
        "content: where a budget ends, it is closed then.",
    )
    timeout_seconds: float = Field(600.0, gt=0, description="Longest time for one request.")

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        return on_this_machine(self.base_url)

    @property
    def name(self) -> str:
        return self.model or urlsplit(self.base_url).netloc

    def key(self) -> SecretStr | None:
        """The API key. Raises ConfigError, which does not show it, if the variable holds none."""
        if self.key_env is None:
            return None
        value = os.environ.get(self.key_env, "").strip()
        if not re.fullmatch(r"[!-~]+", value):
            raise ConfigError(f"the environment variable {self.key_env} holds no API key for {self.base_url}")
        return SecretStr(value)

    def essence(self) -> dict[str, Any]:
        """What decides the answers."""
        return self.model_dump(mode="json", exclude={"key_env", "timeout_seconds", "length_field"})


def _of_its_kind(value: Any) -> Any:
    """``kind`` says which; pydantic's own union of this sort writes it into the paths of its errors."""
    match value:
        case str():
            return EngineTarget.model_validate({"model": value})
        case {"kind": "endpoint"} | {"base_url": _}:
            return EndpointTarget.model_validate(value)
        case dict():
            return EngineTarget.model_validate(value)
    return value


Target = EngineTarget | EndpointTarget
AnyTarget = Annotated[Target, BeforeValidator(_of_its_kind)]
"""A model's name alone, or the fields of `EngineTarget` or, with a ``base_url``, of `EndpointTarget`."""


class WorkerOptions(_Options):
    """Ray Data's actors: each has an engine of its own, or asks the server."""

    count: int = Field(1, ge=1, description="How many; above 1 the run is on Ray.")
    cpus: float = Field(1, gt=0, description="CPUs that Ray counts for one.")
    gpus: float = Field(0, ge=0, description="GPUs that Ray gives to one.")


class EvaluateConfig(Configuration):
    """One run. All that it writes lies under ``out``; the same command goes on where a run stopped."""

    model: AnyTarget
    against: AnyTarget | None = Field(None, description="Another model that answers the same.")
    suites: tuple[SuiteUse, ...] = Field((SuiteUse(name=GENERATED),), min_length=1)
    out: str = Field(min_length=1, description="A directory, for answers and report.")
    report: str | None = Field(None, description="Another directory for the report and its rows.")
    samples: int = Field(1, ge=1, le=256, description="Answers per item, each with a seed of its own.")
    seed: int = Field(0, ge=0, lt=2**62, description="Of the first sample, of generated tasks and of choices' order.")
    temperature: float | None = Field(None, ge=0, le=2, description="Default: 0 for one sample, 0.6 for several.")
    top_p: float = Field(0.95, gt=0, le=1, description="Where the temperature is above 0.")
    budgets: Budgets = Field(
        (), description="Positions; or '50%': that quantile of how long the answers without budget are."
    )
    answer_tokens: int = Field(64, ge=1, description="Of an answer that is forced where a budget ends.")
    concurrency: int = Field(32, ge=1, description="Questions at the same time; per worker.")
    attempts: int = Field(4, ge=1, description="Failures of an item before it counts as wrong.")
    backoff_seconds: float = Field(1.0, gt=0, description="Mean pause before the first retry; it doubles, up to 60 s.")
    deadline_seconds: float = Field(1800.0, gt=0, description="Longest time for an item, retries and pauses included.")
    workers: WorkerOptions = WorkerOptions()
    speed_pairs: int = Field(
        0, ge=0, description="Generated tasks that split, which both engines also answer one at a time, in turn."
    )

    @field_validator("suites")
    @classmethod
    def _each_suite_once(cls, suites: tuple[SuiteUse, ...]) -> tuple[SuiteUse, ...]:
        names = [suite.name for suite in suites]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"has {twice} twice")
        return suites

    @field_validator("out", "report")
    @classmethod
    def _is_a_directory(cls, out: str | None) -> str | None:
        if out is not None and "://" in out:
            raise ValueError("must be a directory: results are appended to files, which object stores cannot do")
        return None if out is None else str(Path(out).expanduser().absolute())

    @model_validator(mode="after")
    def _pairs_have_two_engines(self) -> "EvaluateConfig":
        if self.speed_pairs and not (
            isinstance(self.model, EngineTarget)
            and isinstance(self.against, EngineTarget)
            and any(suite.name == GENERATED for suite in self.suites)
        ):
            raise ValueError(f"speed_pairs is {self.speed_pairs}: needs two engines and the suite {GENERATED}")
        return self

    @property
    def sampling_temperature(self) -> float:
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.samples == 1 else 0.6

    @property
    def sides(self) -> dict[str, Target]:
        """Who answers: "model", and "against" if there is one."""
        return {"model": self.model} | ({} if self.against is None else {"against": self.against})

    @classmethod
    def load(cls, path: Path, **overrides: Any) -> "EvaluateConfig":
        """Read a YAML file; ``overrides`` replace its top-level fields. Raises ConfigError."""
        values = read_yaml(path)
        if not isinstance(values, dict):
            return cls.of(values, str(path))
        return cls.of(values | {k: v for k, v in overrides.items() if v is not None}, str(path))
