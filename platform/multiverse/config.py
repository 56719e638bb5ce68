"""Configuration of the server: what YAML files and the command line may say."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from multiverse.validation import explain

if TYPE_CHECKING:
    from multiverse.engine.config import EngineConfig
    from multiverse.serving.access.access import Access
    from multiverse.serving.access.admission import AdmissionLimits

DEFAULT_MODEL = "builtin:smollm2-135m"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file, field, value and what would be right."""


class Configuration(BaseModel):
    """What a whole file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, values: Any, source: str = "configuration") -> Self:
        """Check ``values``. Raises ConfigError, beginning with ``source``."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error)[1]}") from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ConfigError."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error


def short_name(model: str) -> str:
    """A model's name in requests and metrics, from where it comes from: the last part of its path or id."""
    return model.rstrip("/").removeprefix("builtin:").rpartition("/")[2]


class EngineOptions(BaseModel):
    """One engine (see `multiverse.engine.config.EngineConfig`). null: the engine decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Of weights and KV cache; auto: bfloat16, or float32 on a CPU without instructions for it."
    )
    max_model_len: int | None = Field(None, ge=64, description="Tokens of one sequence, joined branches included.")
    kv_cache_gib: float = Field(2.0, gt=0, description="Size of the KV cache.")
    kv_cache_blocks: int | None = Field(None, ge=2, description="The same in blocks; wins where both are given.")
    block_size: int | None = Field(None, ge=1, description="Tokens per KV block.")
    max_num_seqs: int = Field(64, ge=1, description="Segments that run at the same time.")
    enforce_eager: bool = Field(False, description="True: no compilation; starts sooner, decodes slower.")
    tensor_parallel_size: int = Field(1, ge=1, description="Devices that share one engine's weights.")
    spill_gib: float = Field(2.0, ge=0, description="Host memory for leased KV that has to leave the cache.")
    transfer_gib: float = Field(1.0, gt=0, description="Host memory for KV that other replicas read; per rank.")
    lease_seconds: float = Field(900.0, gt=0, description="Age at which a lease is taken for leaked and given back.")
    seed: int = Field(0, ge=0, description="Of requests that bring none.")
    threads: int | None = Field(
        None, ge=1, description="CPU threads, bound to none, where engines share cores; null: vLLM binds one to each."
    )
    self_test: bool = Field(True, description="Check one join against the layout's forward before serving.")
    logits_processors: tuple[str, ...] = Field(
        (), description="Further vLLM logits processors, 'module:Class', applied after the engine's own."
    )


class Autoscaling(BaseModel):
    """How many engine replicas there are (Ray Serve's autoscaling)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(1, ge=1, description="Never fewer.")
    max_replicas: int = Field(2, ge=1, description="Never more.")
    target_segments: float = Field(16.0, gt=0, description="Segments that run on one replica.")
    upscale_seconds: float = Field(30.0, ge=0, description="How long more have to be wanted before one is started.")
    downscale_seconds: float = Field(600.0, ge=0, description="How long fewer have to be wanted before one is stopped.")


class AccessOptions(BaseModel):
    """Who may use the server. Keys are asked for where the file is named or the variable holds any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys_file: Path | None = Field(
        None, description="YAML with names and hashes of keys (see `multiverse keys new`); read again when it changes."
    )
    keys_env: str = Field(
        "MULTIVERSE_API_KEYS",
        min_length=1,
        description="Environment variable with further keys, or 'sha256:' and their hashes, with commas between.",
    )
    open_metrics: bool = Field(False, description="True: /metrics needs no key.")
    shared_prefix_cache: bool = Field(
        False,
        description="True: tenants share the prefix cache, and can tell by the time whether a prompt was sent before.",
    )

    @field_validator("keys_file")
    @classmethod
    def _from_where_it_is_read(cls, path: Path | None) -> Path | None:
        # Replicas run in folders of their own.
        return None if path is None else path.expanduser().absolute()


class AdmissionOptions(BaseModel):
    """When a request starts, waits, or is turned away with 429."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_running: int = Field(64, ge=1, description="Generations that run at the same time; more wait.")
    max_waiting: int = Field(128, ge=0, description="Requests that wait for their turn; more get 429.")
    kv_high_water: float = Field(
        0.9, gt=0, le=1, description="Share of the KV cache in use from which on nothing new starts."
    )


class AppConfig(Configuration):
    """The server: one model, its engine, and how Ray Serve runs it."""

    model: str = Field(
        DEFAULT_MODEL, min_length=1, description="A prepared directory, or anything that `multiverse prepare` takes."
    )
    served_name: str | None = Field(
        None, min_length=1, description="The model's name in requests; default: from `model`."
    )
    engine: EngineOptions = EngineOptions()
    replicas: int = Field(1, ge=1, description="Engine replicas; with `autoscaling`, those to begin with.")
    autoscaling: Autoscaling | None = Field(None, description="Let the number of engine replicas follow the load.")
    replicas_per_node: int | None = Field(
        None, ge=1, description="Engines that share a machine's CPU cores; default: all of `replicas`."
    )
    reducers: int = Field(1, ge=1, description="Merge actors; a request stays with one.")
    routers: int = Field(1, ge=1, description="Processes that take requests in; each has its share of the limits.")
    placement: Literal["home", "spread", "adaptive"] = Field(
        "adaptive", description="Where branches run: with their prefix, spread out, or whichever is faster."
    )
    reduce: Literal["kv", "text"] = Field("kv", description="How branches are merged unless a request says otherwise.")
    branch_seconds: float | None = Field(
        None, gt=0, description="What one stretch of a branch may take; then it is tried once on another replica."
    )
    answer_seconds: float | None = Field(
        None, gt=0, description="When branches that have not ended become empty, or are closed if the client saw them."
    )
    access: AccessOptions = AccessOptions()
    admission: AdmissionOptions = AdmissionOptions()
    max_ongoing_requests: int = Field(
        256,
        ge=1,
        validate_default=True,
        description="Requests a replica works on or has in its queue; more wait in Serve's proxy.",
    )
    max_queued_requests: int = Field(-1, ge=-1, description="Requests that may wait; more get 503. -1: no limit.")
    num_cpus: float = Field(1, ge=0, description="CPUs that Ray counts for a replica.")
    num_gpus: float = Field(0, ge=0, description="GPUs that Ray gives to a replica.")

    @field_validator("max_ongoing_requests")
    @classmethod
    def _holds_the_queue(cls, value: int, info: ValidationInfo) -> int:
        admission = info.data.get("admission")
        if admission is not None and value <= (requests := admission.max_running + admission.max_waiting):
            # The rest would wait in Serve's proxy, where no tenant has its turn and nobody is told 429.
            raise ValueError(f"must be more than admission.max_running + admission.max_waiting, which is {requests}")
        return value

    @property
    def most_replicas(self) -> int:
        """How many engine replicas there may be."""
        return max(self.replicas, self.autoscaling.max_replicas if self.autoscaling is not None else 1)

    @property
    def engines_per_node(self) -> int:
        """How many engines share the cores of one machine."""
        return self.replicas_per_node or self.replicas

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        return self.served_name or short_name(self.model)

    @classmethod
    def load(cls, path: Path) -> "AppConfig":
        """Read a YAML file: this configuration alone, or a Ray Serve file, whose first application's ``args`` it is.

        Raises ConfigError.
        """
        values = read_yaml(path)
        if isinstance(values, dict) and isinstance(values.get("applications"), list) and values["applications"]:
            application = values["applications"][0]
            values = application.get("args") if isinstance(application, dict) else application
        return cls.of({} if values is None else values, str(path))

    def engine_config(self) -> "EngineConfig":
        """The engine's settings. Prepares the model first if it is not; takes seconds to minutes the first time.

        Raises ValueError as `multiverse.models.prepare.prepare` does.
        """
        from multiverse.engine.config import EngineConfig
        from multiverse.models.precision import chosen
        from multiverse.models.prepare import prepared

        options = self.engine.model_dump() | {"dtype": chosen(self.engine.dtype)}
        gib, transfer = options.pop("kv_cache_gib"), options.pop("transfer_gib")
        return EngineConfig(
            model=prepared(self.model, options["dtype"]),
            kv_cache_bytes=int(gib * 2**30),
            transfer_bytes=int(transfer * 2**30),
            **options,
        )

    def access_control(self) -> "Access":
        """The check of keys, with those of the file and of this process's environment. Raises ConfigError."""
        from multiverse.serving.access.access import Access
        from multiverse.serving.access.key_file import KeysError, parse_keys
        from multiverse.serving.access.key_store import KeyStore

        options = self.access
        try:
            fixed = parse_keys(os.environ.get(options.keys_env, ""), options.keys_env)
            store = KeyStore(options.keys_file, fixed) if options.keys_file is not None or fixed else None
        except KeysError as error:
            raise ConfigError(str(error)) from error
        return Access(
            store,
            open_metrics=options.open_metrics,
            shared_prefix_cache=options.shared_prefix_cache,
            routers=self.routers,
        )

    def check_host(self, host: str | None) -> None:
        """Raises ConfigError if ``host`` can be reached from outside and no key is asked for."""
        from multiverse.serving.access.access import is_loopback

        if not self.access_control().keyed and not is_loopback(host or ""):
            raise ConfigError(
                f"host is {host!r}, which other machines may reach, and there are no API keys: name a file of keys in "
                f"access.keys_file, set {self.access.keys_env}, or bind to 127.0.0.1"
            )

    def admission_limits(self) -> "AdmissionLimits":
        """What one router's queue before the engine goes by."""
        from multiverse.serving.access.admission import AdmissionLimits
        from multiverse.serving.access.shares import share

        options = self.admission
        running, waiting = (share(limit, self.routers) for limit in (options.max_running, options.max_waiting))
        rows = self.engine.max_num_seqs  # a whole batch waits in the engine already
        return AdmissionLimits(running, waiting, options.kv_high_water, rows)
