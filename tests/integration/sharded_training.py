"""One worker of a tiny training run with checkpoints, as a process: ``python -m tests.integration.sharded_training``.

Started by `run`; reads its orders from the environment and writes what it saw to ``out``.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from multiverse.training.checkpoint_store import open_store
from multiverse.training.checkpoints import Checkpoints, Outcome, Stage
from multiverse.training.deepspeed_state import load_deepspeed, stage_deepspeed
from multiverse.training.manifests import Manifest, Progress, Run
from multiverse.training.sharded import load_sharded, stage_sharded
from multiverse.training.workers import Workers


@dataclass(frozen=True)
class Orders:
    """until: last step. save_at: steps after which to save; the last one waits for the save before it.

    zero: DeepSpeed's ZeRO stage; without it FSDP2, or a plain module where there is one worker.
    """

    location: str
    staging: str
    out: str
    until: int
    save_at: tuple[int, ...] = ()
    lora: bool = False
    pause: float = 0.0
    zero: int | None = None


def run(orders: Orders, workers: int, environment: dict[str, str], root: Path) -> list[dict[str, Any]]:
    """Run that many workers to their end; what each says. Raises RuntimeError if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(workers):
        variables = {
            **os.environ,
            **environment,
            "ORDERS": json.dumps(asdict(orders)),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "DS_ACCELERATOR": "cpu",
            "WORLD_SIZE": str(workers),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)]),
        }
        command = [sys.executable, "-m", "tests.integration.sharded_training"]
        processes.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    try:
        errors = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(errors)[-4000:])
    return [torch.load(f"{orders.out}.{rank}", weights_only=False) for rank in range(workers)]


def build(lora: bool) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    if lora:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    return model


class TorchTrainer:
    """A plain module or, with several workers, FSDP2."""

    def __init__(self, orders: Orders, workers: Workers) -> None:
        self.model, self.group = build(orders.lora), workers.group
        if workers.world_size > 1:
            mesh = init_device_mesh("cpu", (workers.world_size,))
            for block in self.model.get_decoder().layers:
                fully_shard(block, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-2)

    def train(self, ids: torch.Tensor) -> None:
        self.model(input_ids=ids, labels=ids).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def stage(self) -> Stage:
        return stage_sharded(self.model, self.optimizer, self.group)

    def load(self, manifest: Manifest, directory: Path) -> None:
        load_sharded(directory, self.model, self.optimizer, self.group)

    def snapshot(self) -> dict[str, Any]:
        """Whole state on worker 0, copied."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        weights, moments = get_state_dict(self.model, self.optimizer, options=options)
        states = moments.get("state", {}).items()
        return {
            "weights": {name: tensor.clone() for name, tensor in weights.items()},
            "optimizer": {name: {key: tensor.clone() for key, tensor in state.items()} for name, state in states},
        }


class DeepSpeedTrainer:
    def __init__(self, orders: Orders, workers: Workers) -> None:
        import deepspeed

        model = build(orders.lora)
        config = {
            "train_micro_batch_size_per_gpu": 4 // workers.world_size,
            "bf16": {"enabled": True},
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
            "zero_optimization": {"stage": orders.zero, "stage3_param_persistence_threshold": 0},
        }
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.engine = deepspeed.initialize(model=model, config=config, model_parameters=trainable)[0]
        self.workers, self.scratch = workers, Path(orders.staging)

    def train(self, ids: torch.Tensor) -> None:
        self.engine.backward(self.engine(input_ids=ids, labels=ids).loss)
        self.engine.step()

    def stage(self) -> Stage:
        return stage_deepspeed(self.engine)

    def load(self, manifest: Manifest, directory: Path) -> None:
        load_deepspeed(directory, manifest, self.engine, self.scratch, self.workers.world_size)

    def snapshot(self) -> dict[str, Any]:
        """Whole state, copied."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        # ZeRO 1 and 2 link what is asked for below at the first step, which a resumed engine has not made.
        if hasattr(self.engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()
        weights, states = {}, {}
        for name, parameter in self.engine.module.named_parameters():
            if parameter.requires_grad:
                weights[name] = safe_get_full_fp32_param(parameter).clone()
                keys = ("exp_avg", "exp_avg_sq")
                states[name] = {key: safe_get_full_optimizer_state(parameter, key).clone() for key in keys}
        return {"weights": weights, "optimizer": states}


def main() -> None:
    fields = json.loads(os.environ["ORDERS"])
    orders = Orders(**{**fields, "save_at": tuple(fields["save_at"])})
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    workers = Workers.alone()
    if world_size > 1 or orders.zero is not None:
        _init_process_group(orders)
        workers = Workers.of_process_group()
    trainer = TorchTrainer(orders, workers) if orders.zero is None else DeepSpeedTrainer(orders, workers)
    outcomes: list[Outcome] = []
    checkpoints = Checkpoints(
        open_store(orders.location),
        Run("test", 0, "tiny"),
        staging=Path(orders.staging),
        keep_last=3,
        workers=workers,
        report=outcomes.append,
    )
    step, seen = 0, {}
    if found := checkpoints.resume():
        trainer.load(*found)
        step = found[0].step
        seen[step] = trainer.snapshot()
    saves: list[bool] = []
    during = 0
    while step < orders.until:
        step += 1
        ids = torch.randint(0, 96, (4, 16), generator=torch.Generator().manual_seed(step))[rank::world_size]
        trainer.train(ids)
        during += len(outcomes) < sum(saves)
        time.sleep(orders.pause)
        if step in orders.save_at:
            if step == orders.save_at[-1]:
                checkpoints.wait()
            seen[step] = trainer.snapshot()
            saves.append(checkpoints.save(Progress(step, step * 64, step * 4), trainer.stage()))
    seen[step] = trainer.snapshot()
    checkpoints.close()
    counts = (checkpoints.saved, checkpoints.failed, checkpoints.skipped)
    torch.save({"seen": seen, "saves": saves, "during": during, "counts": counts}, f"{orders.out}.{rank}")
    if workers.group is not None:
        dist.destroy_process_group()


def _init_process_group(orders: Orders) -> None:
    if orders.zero is None:
        dist.init_process_group("gloo")
        return
    import deepspeed
    import deepspeed.ops

    # It would be compiled here, and only makes collectives within a node faster.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    main()
