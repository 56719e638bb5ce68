"""A run on Ray Train's workers, or in this process where one worker is enough."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from multiverse.config import short_name
from multiverse.telemetry.export import build_ray
from multiverse.telemetry.training import RUNS
from multiverse.training.config import TrainConfig
from multiverse.training.observers import Metrics, MLflow, Several, TensorBoard, Terminal
from multiverse.training.run import Observer, Summary, train


def train_here(config: TrainConfig, *observers: Observer) -> Summary:
    """One worker, in this process, on its GPU if the configuration says so."""
    device = torch.device("cuda" if config.workers.use_gpu else "cpu")
    with nullcontext() if config.strategy.name == "single" else _process_group(device):
        return train(config, Several([Terminal(), *logs(config), *observers]), device)


def train_on_ray(config: TrainConfig) -> Summary:
    """Ray Train's workers, on the Ray cluster that this process is connected to.

    Workers that are lost are started again, from the newest checkpoint. Raises what a worker raised last.
    """
    outcome = "failed"
    try:
        summary = _fitted(config)
        outcome = "finished" if summary.finished else "stopped"
        return summary
    finally:
        # Here, since only the job sees workers that died; Ray reports it when the job exits.
        build_ray(short_name(config.model)).inc(RUNS, outcome=outcome)


def _fitted(config: TrainConfig) -> Summary:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers = config.workers
    result = TorchTrainer(
        _worker,
        train_loop_config={"config": config.model_dump(mode="json")},
        scaling_config=ScalingConfig(
            num_workers=workers.count if workers.least is None else (workers.least, workers.count),
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
        ),
        run_config=RunConfig(
            name="multiverse-train",
            storage_path=_storage(config),
            failure_config=FailureConfig(max_failures=workers.max_failures),
        ),
    ).fit()
    if result.error is not None:
        raise result.error
    return Summary(**result.return_value)


def logs(config: TrainConfig) -> list[Observer]:
    """TensorBoard beside the checkpoints, or in the working directory where those are on S3; MLflow if configured."""
    place = Path("multiverse-logs") if config.out.startswith("s3://") else Path(config.out) / "logs"
    observers: list[Observer] = [TensorBoard(place)]
    if config.mlflow is not None:
        observers.append(MLflow(config.mlflow, {"model": config.model, "seed": config.seed}))
    return observers


def _storage(config: TrainConfig) -> str:
    """Ray Train keeps its own small state here; checkpoints are ours."""
    if not config.out.startswith("s3://"):
        return str((Path(config.out) / "ray").absolute())
    return str(Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "multiverse-ray-train")


def _worker(values: dict[str, Any]) -> dict[str, Any]:
    import ray.train
    from ray.train.torch import get_device

    config = TrainConfig.of(values["config"])
    first = ray.train.get_context().get_world_rank() == 0
    if not first:
        return asdict(train(config, Observer(), get_device()))
    metrics = Metrics(build_ray(short_name(config.model)))
    return asdict(train(config, Several([Terminal(), *logs(config), metrics]), get_device()))


@contextmanager
def _process_group(device: torch.device) -> Iterator[None]:
    """Strategies that exchange gradients need one, also for a single worker."""
    import torch.distributed as dist

    from multiverse.application import free_port

    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in (own | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}).items():
        os.environ.setdefault(name, value)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
