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
from multiverse.training.checkpoints import Checkpoints
from multiverse.training.manifests import Progress, Run
from multiverse.training.sharded import load_sharded, stage_sharded
from multiverse.training.workers import Workers


@dataclass(frozen=True)
class Orders:
    """until: last step. save_at: steps after which to save; the last one waits for the save before it."""

    location: str
    staging: str
    out: str
    until: int
    save_at: tuple[int, ...] = ()
    lora: bool = False
    pause: float = 0.0


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
            "WORLD_SIZE": str(workers),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)]),
        }
        command = [sys.executable, "-m", "tests.integration.sharded_training"]
        processes.append(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(errors)[-4000:])
    return [torch.load(f"{orders.out}.{rank}", weights_only=False) for rank in range(workers)]


def build(lora: bool, sharded: bool) -> tuple[Any, torch.optim.Optimizer]:
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
    model: Any = LlamaForCausalLM(config)
    blocks = model.model.layers
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    if sharded:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def snapshot(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole state on worker 0, copied."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights, moments = get_state_dict(model, optimizer, options=options)
    copied = {name: tensor.clone() for name, tensor in weights.items()}
    states = {name: {key: t.clone() for key, t in state.items()} for name, state in moments.get("state", {}).items()}
    return {"weights": copied, "optimizer": states}


def main() -> None:
    fields = json.loads(os.environ["ORDERS"])
    orders = Orders(**{**fields, "save_at": tuple(fields["save_at"])})
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    sharded = world_size > 1
    workers = Workers.alone()
    if sharded:
        dist.init_process_group("gloo")
        workers = Workers.of_process_group()
    model, optimizer = build(orders.lora, sharded)
    run = Run("fsdp2" if sharded else "single", 0, "tiny")
    outcomes: list[Any] = []
    checkpoints = Checkpoints(
        open_store(orders.location),
        run,
        staging=Path(orders.staging),
        keep_last=3,
        workers=workers,
        report=outcomes.append,
    )
    step, seen = 0, {}
    if found := checkpoints.resume():
        load_sharded(found[1], model, optimizer, workers.group)
        step = found[0].step
        seen[step] = snapshot(model, optimizer)
    saves, during = [], 0
    while step < orders.until:
        step += 1
        ids = torch.randint(0, 96, (4, 16), generator=torch.Generator().manual_seed(step))[rank::world_size]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        during += bool(saves) and len(outcomes) < sum(saves)
        time.sleep(orders.pause)
        if step in orders.save_at:
            if step == orders.save_at[-1]:
                checkpoints.wait()
            seen[step] = snapshot(model, optimizer)
            saves.append(
                checkpoints.save(Progress(step, step * 64, step * 4), stage_sharded(model, optimizer, workers.group))
            )
    seen[step] = snapshot(model, optimizer)
    checkpoints.close()
    counts = (checkpoints.saved, checkpoints.failed, checkpoints.skipped)
    said = {"seen": seen, "saves": saves, "during": during, "counts": counts, "outcomes": outcomes}
    torch.save(said, f"{orders.out}.{rank}")
    if sharded:
        dist.destroy_process_group()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    main()
