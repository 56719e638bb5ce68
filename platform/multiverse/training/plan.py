"""What a run will take, worked out on the meta device before anything is loaded: ``multiverse train --dry-run``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from multiverse.config import ConfigError
from multiverse.training.config import TrainConfig
from multiverse.training.models import DTYPES, transformer_layers, with_adapters

GIB = 2**30
_RESERVED = 0.06
"""Share of a device's memory that is not ours: the CUDA context, NCCL's buffers, fragments."""
_TAGS = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters in all and trained; sharding; GiB on one device at the worst moment, by what takes them; tokens per
    step, at most. limit_gib: what the device has, None if that is not known.
    """

    model: str
    parameters: int
    trained: int
    strategy: str
    workers: int
    memory_gib: dict[str, float]
    limit_gib: float | None
    tokens_per_step: int

    @property
    def total_gib(self) -> float:
        return sum(self.memory_gib.values())

    @property
    def fits(self) -> bool:
        return self.limit_gib is None or self.total_gib <= self.limit_gib * (1 - _RESERVED)

    def report(self) -> dict[str, Any]:
        return asdict(self) | {"total_gib": self.total_gib, "fits": self.fits}


def make_plan(config: TrainConfig) -> Plan:
    """The plan of a run. Reads the model's config.json only. Raises ConfigError where there is none."""
    shape = _shape(config)
    model, dtype = _on_meta(shape, config), DTYPES[config.dtype]
    every = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    layers = transformer_layers(model)
    largest = max(sum(parameter.numel() for parameter in layer.parameters()) for layer in layers)
    return Plan(
        model=config.model,
        parameters=every,
        trained=trained,
        strategy=_name(config),
        workers=config.workers.count,
        memory_gib={
            name: size / GIB
            for name, size in {
                **_state(config, every, trained, largest, dtype),
                **_activations(config, shape, len(layers), dtype),
            }.items()
        },
        limit_gib=config.workers.memory_gib,
        tokens_per_step=config.rows_per_step * config.data.max_tokens,
    )


def _shape(config: TrainConfig) -> Any:
    from transformers import AutoConfig

    path = config.model_config_file or Path(config.model) / "config.json"
    if config.model.startswith("builtin:") and config.model_config_file is None:
        from multiverse.models.prepare import prepare

        path = prepare(config.model) / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"there is no {path}: name the model's config.json in model_config_file, or a local directory in model"
        )
    return AutoConfig.from_pretrained(path)


def _on_meta(shape: Any, config: TrainConfig) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=DTYPES[config.dtype])
        if config.lora is not None:
            model = with_adapters(model, config.lora, list(range(_TAGS)))
    return model


def _name(config: TrainConfig) -> str:
    if config.strategy.name != "deepspeed":
        return config.strategy.name
    return f"deepspeed ZeRO-{_stage(config)}"


def _stage(config: TrainConfig) -> int:
    from multiverse.training.zero import settings

    given = settings(config.strategy, config.optimizer, DTYPES[config.dtype])
    return int(given["zero_optimization"].get("stage", 0))


def _state(config: TrainConfig, every: int, trained: int, largest: int, dtype: torch.dtype) -> dict[str, float]:
    """Bytes of weights, gradients and AdamW's two moments on one device."""
    size, workers, frozen = dtype.itemsize, config.workers.count, every - trained
    if config.strategy.name == "deepspeed":
        stage = _stage(config)
        share = [1.0 / workers if stage >= at else 1.0 for at in (1, 2, 3)]
        master = 0 if dtype == torch.float32 else 4
        moved = config.strategy.cpu_offload
        return {
            "weights": every * size * share[2],
            "gradients": 0.0 if moved else trained * size * share[1],
            "optimizer": 0.0 if moved else trained * (master + 8) * share[0],
            "gathered": 2 * largest * size if stage == 3 else 0.0,
        }
    sharded = workers if config.strategy.name == "fsdp2" else 1
    moved = config.strategy.cpu_offload and config.workers.use_gpu and config.strategy.name == "fsdp2"
    return {
        "weights": 0.0 if moved else (trained * 4 + frozen * size) / sharded,
        "gradients": 0.0 if moved else trained * 4 / sharded,
        "optimizer": 0.0 if moved else trained * 8 / sharded,
        "gathered": 2 * largest * size if config.strategy.name == "fsdp2" else trained * size,
    }


def _activations(config: TrainConfig, shape: Any, layers: int, dtype: torch.dtype) -> dict[str, float]:
    """Bytes that one packed sequence of the greatest length takes. Of attention only what linear memory it takes."""
    tokens, size = config.data.max_tokens, dtype.itemsize
    hidden, inner = shape.hidden_size, shape.intermediate_size
    heads = shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or hidden // heads
    of_attention = (2 * heads + 2 * shape.num_key_value_heads) * width
    # Norms, the projections' inputs and outputs, the gated product, and the residual sums, which are kept for backward.
    layer = tokens * size * (6 * hidden + of_attention + 4 * inner)
    kept = layers * tokens * hidden * size + layer if config.strategy.activation_checkpointing else layers * layer
    logits = tokens * shape.vocab_size * size
    return {"activations": kept, "logits": 2 * logits}
