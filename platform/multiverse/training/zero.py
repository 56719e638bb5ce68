"""DeepSpeed's ZeRO, stages 1 to 3, as a `multiverse.training.strategies.Strategy`."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from multiverse.config import ConfigError
from multiverse.training.checkpoints import Stage
from multiverse.training.config import OptimizerOptions, StrategyOptions
from multiverse.training.deepspeed_state import load_deepspeed, stage_deepspeed
from multiverse.training.manifests import Manifest


class ZeRO:
    """A DeepSpeed engine. What one step is made of is ours: its own settings of batch sizes are set to 1."""

    def __init__(self, model: Any, options: StrategyOptions, optimizer: OptimizerOptions) -> None:
        import deepspeed

        if not torch.cuda.is_available():
            # Its collectives by shared memory are built when first used, and are not for every CPU build of torch.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._workers = dist.get_world_size()
        self._config = settings(options, optimizer, next(model.parameters()).dtype)
        self.model, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
            config=self._config,
        )

    def forward(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        self.model.set_gradient_accumulation_boundary(last)
        self.model.backward(loss * self._workers)
        if not last:
            self.model.step()  # counts the micro-batch, and changes nothing

    def step(self, rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.model.step()
        return float(self.model.get_global_grad_norm() or 0.0)

    def stage(self, group: Any) -> Stage:
        """DeepSpeed writes its files itself, from all workers at once: training waits for that, not for uploads."""
        return stage_deepspeed(self.model)

    def read(self, directory: Path, manifest: Manifest, scratch: Path, group: Any) -> None:
        load_deepspeed(directory, manifest, self.model, scratch, self._workers)

    def weights(self) -> dict[str, torch.Tensor]:
        import deepspeed

        found = {}
        for name, parameter in self.model.module.named_parameters():
            if parameter.requires_grad:
                with deepspeed.zero.GatheredParameters([parameter]):
                    if dist.get_rank() == 0:
                        found[name] = parameter.detach().cpu().clone()
        return found


def settings(options: StrategyOptions, optimizer: OptimizerOptions, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration: that of the file, with what the run's own configuration says.

    Raises ConfigError for a file that cannot be read or that sets what is set elsewhere.
    """
    stage: dict[str, Any] = {"stage": options.zero_stage, "overlap_comm": False}
    if options.cpu_offload:
        stage["offload_optimizer"] = {"device": "cpu"}
    given: dict[str, Any] = {"zero_optimization": stage}
    if options.deepspeed is not None:
        try:
            given = json.loads(options.deepspeed.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"strategy.deepspeed: {options.deepspeed}: {error}") from error
    ours = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.clip_norm,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.learning_rate,
                "betas": list(optimizer.betas),
                "weight_decay": optimizer.weight_decay,
                "torch_adam": True,
            },
        },
    }
    clash = sorted(
        name
        for name in given.keys() & ({*ours} | {"train_batch_size", "scheduler", "fp16"})
        if given[name] not in ("auto", ours.get(name))
    )
    if clash:
        raise ConfigError(f"strategy.deepspeed: {options.deepspeed}: {', '.join(clash)}: is set by this configuration")
    rest = {name: value for name, value in given.items() if value != "auto"}
    return {"steps_per_print": 2**31, **rest, **ours}
