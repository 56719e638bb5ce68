"""A DeepSpeed engine's state in DeepSpeed's own files.

One number of workers loads what the same number saved as it is. Another number loads it by way of DeepSpeed's universal
checkpoint, to which it is converted on each node first: that takes one process and as much disk again.
The files are pickles: load only what you trust.
"""

import fcntl
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from multiverse.training.checkpoints import Stage
from multiverse.training.manifests import Manifest

log = logging.getLogger(__name__)
_TAG = "state"


class ConversionError(RuntimeError):
    """DeepSpeed could not convert a checkpoint for another number of workers."""


def stage_deepspeed(engine: Any) -> Stage:
    """For `Checkpoints.save`: DeepSpeed writes the files at once, while training waits; they are uploaded later."""

    def stage(directory: Path) -> None:
        engine.save_checkpoint(str(directory), tag=_TAG, exclude_frozen_parameters=True)

    return stage


def load_deepspeed(directory: Path, manifest: Manifest, engine: Any, scratch: Path, world_size: int) -> None:
    """Load what `stage_deepspeed` wrote into the engine; every worker must call this.

    directory, manifest: as `Checkpoints.resume` gives them. scratch: a directory of this node, used if ``world_size``,
    the number of workers now, is not the one that saved. Raises ConversionError, and ValueError for other files.
    """
    if not (directory / _TAG).is_dir():
        raise ValueError(f"{directory} was not written by DeepSpeed: it has no folder {_TAG}")
    if world_size == manifest.world_size:
        _load(engine, directory, _TAG)
        return
    target = scratch / f"universal-{manifest.digest[:12]}"
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / ".universal.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            log.warning("converting a checkpoint of %d workers for %d", manifest.world_size, world_size)
            _convert(directory / _TAG, target)
    # DeepSpeed reads this when it loads; the engine's configuration says it only to those who know it beforehand.
    engine._config.load_universal_checkpoint = True
    try:
        _load(engine, scratch, target.name)
    finally:
        engine._config.load_universal_checkpoint = False


def deepspeed_weights(directory: Path) -> dict[str, torch.Tensor]:
    """The whole parameters, float32, that `stage_deepspeed` wrote: for exports, in one process."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    weights: dict[str, torch.Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(directory), tag=_TAG)
    return weights


def _load(engine: Any, directory: Path, tag: str) -> None:
    # Not strict: frozen parameters are left out, they are the base's.
    path, _ = engine.load_checkpoint(str(directory), tag=tag, load_module_strict=False)
    if path is None:
        raise ValueError(f"DeepSpeed finds nothing to load in {directory / tag}")


def _convert(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(source), "--output_folder", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConversionError(f"{source} could not be converted for another number of workers: {reason[0]}")
    partial.rename(target)
