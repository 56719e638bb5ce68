"""A model's and its optimizer's state in sharded files of torch.distributed.checkpoint.

For plain modules, FSDP2 and peft, in one process or many: a checkpoint of one number of workers loads into another.
Frozen parameters are left out: they are the base's, which whoever resumes loads first.
The files are pickles: load only what you trust.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from multiverse.training.checkpoints import Stage

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What activation checkpointing and torch.compile put into parameters' names, and torch's state dicts take out."""


def stage_sharded(model: torch.nn.Module, optimizer: torch.optim.Optimizer, group: Any) -> Stage:
    """For `Checkpoints.save`: the state is copied to host memory at once and written later.

    group: `Workers.group`, for what the workers agree upon while they write.
    """

    def stage(directory: Path) -> Callable[[], None]:
        state = sharded_state(model, optimizer)
        return lambda: write_sharded(state, directory, group)

    return stage


def sharded_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Copies in host memory of this worker's part of the trainable parameters and of the optimizer's state.

    Collective under FSDP2. Gradients of an optimizer that has not made a step yet must be None.
    """
    stager = DefaultStager(StagingOptions(False, False, False, False))
    try:
        copies: dict[str, Any] = stager.stage(_live_state(model, optimizer))
    finally:
        stager.close()
    return copies


def write_sharded(state: dict[str, Any], directory: Path, group: Any) -> None:
    """Write ``state`` as this worker's file; worker 0 adds ``.metadata``. Collective over ``group``."""
    dcp.save(state, checkpoint_id=directory, process_group=group, no_dist=group is None)


def load_sharded(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, group: Any) -> None:
    """Load what `write_sharded` wrote, by any number of workers, into the parameters and the optimizer.

    Collective over ``group``. Raises ValueError if the files are of another kind or do not hold this model's
    trainable parameters.
    """
    saved = _saved(directory)
    state = _live_state(model, optimizer)
    names = {name.removeprefix("model.") for name in saved if name.startswith("model.")}
    if different := names.symmetric_difference(state["model"]):
        raise ValueError(
            f"{directory} holds {len(names)} parameters, {len(state['model'])} are trained: "
            f"{sorted(different)[0]} is on one side only"
        )
    dcp.load(state, checkpoint_id=directory, process_group=group, no_dist=group is None)
    options = StateDictOptions(ignore_frozen_params=True, strict=False)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
    )


def full_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Whole trainable parameters in host memory, on rank 0; nothing on the others. Collective under FSDP2."""
    weights: dict[str, torch.Tensor] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    )
    return {name: tensor for name, tensor in weights.items() if name not in _frozen(model)}


class SavedWeights(Mapping[str, torch.Tensor]):
    """The whole parameters in a directory of `write_sharded`, read one at a time, in one process.

    Raises ValueError if the files are of another kind.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries = {
            name.removeprefix("model."): entry
            for name, entry in _saved(directory).items()
            if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self._entries[name]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        dcp.load({"model": {name: tensor}}, checkpoint_id=self._directory, no_dist=True)
        return tensor


def _saved(directory: Path) -> dict[str, Any]:
    if not (directory / ".metadata").is_file():
        raise ValueError(f"{directory} was not written by torch.distributed.checkpoint: it has no .metadata")
    entries: dict[str, Any] = dcp.FileSystemReader(directory).read_metadata().state_dict_metadata
    return entries


def _live_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    parameters, moments = get_state_dict(model, optimizer, options=StateDictOptions(ignore_frozen_params=True))
    frozen = _frozen(model)
    return {"model": {name: t for name, t in parameters.items() if name not in frozen}, "optimizer": moments}


def _frozen(model: torch.nn.Module) -> set[str]:
    """Names of all frozen parameters, those too that are tied to another one, which torch leaves in."""
    names = {name for name, tensor in model.named_parameters(remove_duplicate=False) if not tensor.requires_grad}
    for wrapper in _WRAPPERS:
        names = {name.replace(wrapper, "") for name in names}
    return names
