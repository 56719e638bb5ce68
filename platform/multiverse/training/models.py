"""The model that is trained: loaded, with adapters where they are asked for."""

import math
from pathlib import Path
from typing import Any

import torch

from multiverse.models.manifest import Manifest
from multiverse.training.attention import NAME
from multiverse.training.config import LoraOptions, OptimizerOptions

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def load_model(directory: Path, dtype: torch.dtype, lora: LoraOptions | None, meta: bool = False) -> Any:
    """The checkpoint's transformers model in training mode, with attention by the layout.

    With ``lora`` only adapters and the tags' rows of embedding and head are trained. meta: shapes only, no memory.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if meta:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(directory), dtype=dtype, attn_implementation=NAME
            )
    else:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation=NAME)
    model.config.use_cache = False
    if lora is not None:
        model = with_adapters(model, lora, sorted(Manifest.load(directory).tag_ids.values()))
    return model.train()


def with_adapters(model: Any, lora: LoraOptions, tag_ids: list[int]) -> Any:
    """``model`` with peft's LoRA and trainable rows for ``tag_ids``."""
    from peft import LoraConfig, get_peft_model

    embeddings = ["embed_tokens"] if model.config.tie_word_embeddings else ["embed_tokens", "lm_head"]
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=list(lora.targets),
            trainable_token_indices={name: tag_ids for name in embeddings},
        ),
        autocast_adapter_dtype=False,
    )


def transformer_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The decoder layers, which is what is sharded and recomputed. Raises ValueError where none are found."""
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, torch.nn.ModuleList) and len(layers):
            return list(layers)
    raise ValueError(f"{type(model).__name__} has no decoder layers")


def recompute_activations(model: torch.nn.Module) -> None:
    """Activation checkpointing of every decoder layer."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    layers = {id(layer) for layer in transformer_layers(model)}
    apply_activation_checkpointing(model, check_fn=lambda module: id(module) in layers)


def learning_rate(options: OptimizerOptions, step: int, steps: int) -> float:
    """The rate of step ``step`` (from 0) of ``steps``: a straight rise, then a half cosine down to 0, or none."""
    warm_up = max(1, round(options.warm_up * steps))
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    if options.schedule == "constant":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
