"""One of several training processes, started by `test_strategies`: trains a configuration and writes its losses."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from multiverse.training.config import TrainConfig
from multiverse.training.observers import Curve
from multiverse.training.run import train


def main(config_path: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        notes = Curve()
        train(TrainConfig.load(Path(config_path)), notes, torch.device("cpu"))
        if dist.get_rank() == 0:
            Path(out).write_text(json.dumps(notes.losses))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    main(*sys.argv[1:])
