"""``multiverse bench placement``: the policies on the same requests, over cluster size, load, and kinds of blocks."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from multiverse.evaluation.placement.simulation import Cluster, Figures, Simulation
from multiverse.evaluation.placement.workload import BRANCHES, WIDTHS, draw_load
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.policies import POLICIES

BOUND = 1.05
"""``adaptive`` may take so many times the mean latency of the better of the others, in no cell more."""


@dataclass(frozen=True, slots=True)
class Grid:
    """requests: of a cell, but at least ``per_replica`` times its replicas."""

    replicas: tuple[int, ...] = (2, 8, 64, 1000)
    loads: tuple[float, ...] = (0.2, 0.5, 0.8)
    branches: tuple[str, ...] = tuple(BRANCHES)
    widths: tuple[str, ...] = tuple(WIDTHS)
    requests: int = 1200
    per_replica: int = 5


QUICK = Grid(replicas=(2, 64), loads=(0.2, 0.8), branches=("short", "long"), requests=800)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a grid, and the figures of each policy there. branches, widths: see `workload`."""

    replicas: int
    load: float
    branches: str
    widths: str
    figures: dict[str, Figures]

    @property
    def ratio(self) -> float:
        """Mean latency of ``adaptive``, to that of the better of the others."""
        means = {name: figures.mean for name, figures in self.figures.items()}
        return means.pop("adaptive") / min(means.values())

    def row(self) -> dict[str, Any]:
        """Seconds."""
        row: dict[str, Any] = {
            "replicas": self.replicas,
            "load": self.load,
            "branches": self.branches,
            "widths": self.widths,
        }
        for name, figures in self.figures.items():
            row |= {f"{name}_mean": figures.mean, f"{name}_p99": figures.p99}
        return row | {"adaptive_away": self.figures["adaptive"].remote, "ratio": self.ratio}


def compare(grid: Grid, costs: Costs, seed: int) -> Iterator[Cell]:
    """Every cell in turn, all policies on the same requests."""
    for replicas, load, branches, widths in product(grid.replicas, grid.loads, grid.branches, grid.widths):
        count = max(grid.requests, grid.per_replica * replicas)
        cluster = Cluster(replicas)
        chains = draw_load(count, load, replicas, branches, widths, costs, cluster.kv_tokens, seed)
        figures = {name: Simulation(chains, policy, costs, cluster).run() for name, policy in POLICIES.items()}
        yield Cell(replicas, load, branches, widths, figures)


def summary(cells: Sequence[Cell], costs: Costs, seed: int) -> dict[str, Any]:
    worst = max(cells, key=lambda cell: cell.ratio)
    means = {name: [cell.figures[name].mean for cell in cells] for name in POLICIES}
    return {
        "ok": worst.ratio <= BOUND,
        "worst_ratio": worst.ratio,
        "worst_cell": [worst.replicas, worst.load, worst.branches, worst.widths],
        "bound": BOUND,
        "cells": [cell.row() for cell in cells],
        "adaptive_fastest": sum(cell.ratio < 1 for cell in cells),
        "home_worst": max(home / adaptive for home, adaptive in zip(means["home"], means["adaptive"], strict=True)),
        "spread_worst": max(
            spread / adaptive for spread, adaptive in zip(means["spread"], means["adaptive"], strict=True)
        ),
        "seed": seed,
        "costs": costs.source,
    }


def write_table(cells: Sequence[Cell], path: Path) -> None:
    rows = [cell.row() for cell in cells]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})
