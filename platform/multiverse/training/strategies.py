"""How a model is spread over workers: in one process, by FSDP2, or by DeepSpeed's ZeRO. All from outside of the model.

A step is the same for all of them: any number of `backward` calls, then `step`. The loss that is given to `backward` is
this worker's share of the step's, so that the sum over workers is the whole; strategies that average undo that.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from multiverse.training.checkpoints import Stage
from multiverse.training.config import OptimizerOptions, StrategyOptions
from multiverse.training.manifests import Manifest
from multiverse.training.models import recompute_activations, transformer_layers
from multiverse.training.sharded import full_weights, load_sharded, stage_sharded


class Strategy(Protocol):
    """model: what is called for a forward, in place of the model that was given."""

    @property
    def model(self) -> Any: ...

    def forward(self) -> AbstractContextManager[Any]:
        """What a forward runs in."""
        ...

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient. last: the step's last call, after which gradients are exchanged."""
        ...

    def step(self, rate: float) -> float:
        """Clip, update, forget the gradient. Returns its norm before it was clipped."""
        ...

    def stage(self, group: Any) -> Stage:
        """For `Checkpoints.save`. group: `Workers.group`."""
        ...

    def read(self, directory: Path, manifest: Manifest, scratch: Path, group: Any) -> None:
        """Go on from a checkpoint's files. scratch: a directory of this node. Raises ValueError where they are of
        another kind."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """Every trained parameter, whole, on the CPU of the first worker. All workers call it."""
        ...


def build(model: Any, options: StrategyOptions, optimizer: OptimizerOptions, device: torch.device) -> Strategy:
    """``model``, spread as ``options`` say."""
    if options.activation_checkpointing:
        recompute_activations(model)
    if options.name == "deepspeed":
        from multiverse.training.zero import ZeRO

        return ZeRO(model, options, optimizer)
    if options.name == "fsdp2":
        return FSDP2(model, options, optimizer, device)
    return Single(model, optimizer, device)


def _adamw(parameters: Any, options: OptimizerOptions, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        betas=options.betas,
        weight_decay=options.weight_decay,
        fused=fused,
    )


def keep_trained_in_float32(model: Any) -> None:
    """Updates of weights are smaller than bfloat16 tells apart. What is not trained stays as it is."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class Single:
    """One process. A bfloat16 model computes in bfloat16 (autocast)."""

    def __init__(self, model: Any, options: OptimizerOptions, device: torch.device) -> None:
        self._dtype = next(model.parameters()).dtype
        self._device = device
        keep_trained_in_float32(model)
        self.model = model.to(device)
        self._clip = options.clip_norm
        self._optimizer = _adamw(self._trained(), options, fused=True)

    def forward(self) -> AbstractContextManager[Any]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward()

    def step(self, rate: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self._trained(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def stage(self, group: Any) -> Stage:
        return stage_sharded(self.model, self._optimizer, group)

    def read(self, directory: Path, manifest: Manifest, scratch: Path, group: Any) -> None:
        load_sharded(directory, self.model, self._optimizer, group)

    def weights(self) -> dict[str, torch.Tensor]:
        return full_weights(self.model)


class FSDP2(Single):
    """Every decoder layer and the rest are sharded (``fully_shard``); computes in bfloat16 where the model is in it."""

    def __init__(self, model: Any, options: StrategyOptions, optimizer: OptimizerOptions, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

        dtype = next(model.parameters()).dtype
        settings: dict[str, Any] = {
            "mesh": init_device_mesh(device.type, (dist.get_world_size(),)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy() if options.cpu_offload and device.type == "cuda" else OffloadPolicy(),
        }
        keep_trained_in_float32(model)
        for layer in transformer_layers(model):
            fully_shard(layer, **settings)
        fully_shard(model, **settings)
        self.model = model
        self._clip = optimizer.clip_norm
        self._workers = dist.get_world_size()
        self._optimizer = _adamw(self._trained(), optimizer, fused=False)

    def forward(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        self.model.set_requires_gradient_sync(last)
        (loss * self._workers).backward()
