"""What is run for the dashboards that show a job, on the Ray cluster that this process is connected to."""

import random
from collections.abc import Callable
from pathlib import Path

from multiverse.commands.tasks import write_tasks
from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.run import curate
from multiverse.training.job import train_on_ray
from tests.integration.llm_server import Body, llm_server, seeded
from tests.unit.curation.scripted import bad_answer, good_answer
from tests.unit.training.tiny_run import tiny_config, tiny_model, write_rows

ROWS = 160
CPUS = 0.1
"""Of the curating worker: engines count for nearly all that the cluster of the test has."""


def train(folder: Path) -> None:
    """A tiny model, on one of Ray's workers."""
    held_out = str(write_rows(folder / "held.jsonl", 3))
    config = tiny_config(
        tiny_model(folder),
        folder,
        rows=40,
        curriculum={"kind": "linear", "passes": 8},
        data={"held_out": held_out},
        held_out={"every_steps": 10, "rows": 1, "max_tokens": 20},
    )
    train_on_ray(config)


def curate_twice(folder: Path) -> None:
    """Half of the rows, and then all of them, for which the cache has half of the answers. Some answers are bad."""
    source, draw = folder / "chains.jsonl", random.Random(0)
    write_tasks(source, None, "train", ROWS, 0, sequential=True)

    def answer(body: Body) -> str:
        return bad_answer(body["messages"], draw) if draw.random() < 0.2 else good_answer(body["messages"])

    with llm_server(answer, latency=0.3, fault=seeded(0, 0.1, ("429", "500", "empty"))) as server:
        server.retry_after = lambda: "0.1"
        prices = {"prompt": 2.5, "completion": 10.0}
        access = {"base_url": server.url, "model": "scripted", "concurrency": 8, "backoff_seconds": 0.1}
        for rows in (ROWS // 2, ROWS):
            values = {
                "source": str(source),
                "out": str(folder / f"curated-{rows}"),
                "selection": {"rows": rows, "duplicates": True},
                "stages": {"min_saving": 1, "tries": 2},
                "llm": {"cache_dir": str(folder / "cache"), "prices": prices, **access},
                "workers": {"cpus": CPUS},
                "rows_per_part": 16,
            }
            curate(CurateConfig.of(values))


JOBS: dict[str, Callable[[Path], None]] = {"training": train, "curation": curate_twice}
"""By dashboard: its job, in a folder of its own. The other dashboards show the application."""
