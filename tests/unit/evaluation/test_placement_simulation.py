"""The simulation that placement policies are compared by."""

import csv
from pathlib import Path

import pytest

from multiverse.engine.measure_costs import EngineCosts, Link
from multiverse.evaluation.placement.comparison import BOUND, Grid, compare, summary, write_table
from multiverse.evaluation.placement.plot import plot
from multiverse.evaluation.placement.simulation import Cluster, Simulation
from multiverse.evaluation.placement.workload import Chain, draw_chains, draw_load
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.policies import POLICIES

# A step takes 10 ms, and 1 ms more for each row beyond the first. A prompt's token takes 1 ms, a join 20 ms. A moved
# token takes 0.1 ms on a node and 1 ms between nodes, and each transfer 5 ms more.
ENGINE = EngineCosts(((1, 0.010), (64, 0.073)), 0.0, 0.0, 0.001, 0.02)
ROUND = Costs(ENGINE, Link(0.005, 1e4), Link(0.005, 1e3), kv_bytes=1)
MEASURED = Costs.load()
ONE = Chain(arrival=3.0, prompt=100, new_prompt=100, head=10, branches=(20, 40), tail=10, earlier=None)


def load(replicas: int, branches: str, widths: str, load: float, count: int = 600) -> dict[str, float]:
    """Mean latency by policy."""
    (cell,) = compare(Grid((replicas,), (load,), (branches,), (widths,), count), MEASURED, 1)
    return {name: figures.mean for name, figures in cell.figures.items()}


def test_one_request_at_home() -> None:
    """Prefill 100 ms, 10 steps; 20 steps of two rows, then 20 of one; join, 10 steps."""
    figures = Simulation([ONE], POLICIES["home"], ROUND, Cluster(2)).run()
    assert figures.mean == pytest.approx(0.100 + 10 * 0.010 + 20 * 0.011 + 20 * 0.010 + 0.020 + 10 * 0.010)
    assert figures.remote == 0.0


@pytest.mark.parametrize(("per_node", "token"), [(2, 0.0001), (1, 0.001)])
def test_one_request_on_two_replicas(per_node: int, token: float) -> None:
    """The second branch waits for 110 tokens of prefix; all of its 40 tokens come home behind its end.

    Between nodes moving the prefix takes longer than computing it: 110 ms.
    """
    figures = Simulation([ONE], POLICIES["spread"], ROUND, Cluster(2, replicas_per_node=per_node)).run()
    prefix = min(110 * token + 0.005, 110 * 0.001)
    back = 40 * token + 0.005
    assert figures.mean == pytest.approx(0.100 + 10 * 0.010 + prefix + 40 * 0.010 + back + 0.020 + 10 * 0.010)
    assert figures.remote == 0.5


def test_branches_wait_where_the_batch_is_full() -> None:
    costs = Costs(ENGINE, ROUND.near, ROUND.far, kv_bytes=1, max_rows=1)
    figures = Simulation([ONE], POLICIES["home"], costs, Cluster(1)).run()
    assert figures.mean == pytest.approx(0.100 + (10 + 20 + 40 + 10) * 0.010 + 0.020)


def test_branches_wait_where_the_cache_is_full() -> None:
    figures = Simulation([ONE], POLICIES["home"], ROUND, Cluster(1, kv_tokens=110 + 59)).run()
    assert figures.mean == pytest.approx(0.100 + (10 + 20 + 40 + 10) * 0.010 + 0.020)


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("kv_tokens", [93_184, 12_000])
def test_all_requests_end_and_give_back_what_they_held(policy: str, kv_tokens: int) -> None:
    chains = draw_load(300, 0.8, 12, "medium", "wide", MEASURED, kv_tokens, 7)
    simulation = Simulation(chains, POLICIES[policy], MEASURED, Cluster(12, kv_tokens=kv_tokens))
    simulation.run()
    assert simulation.unfinished == 0
    assert simulation.free_tokens == [kv_tokens] * 12


def test_the_router_ends_up_knowing_of_nothing() -> None:
    chains = draw_chains(100, 5.0, "short", "narrow", 7)
    simulation = Simulation(chains, POLICIES["adaptive"], MEASURED, Cluster(4, staleness=0.0))
    simulation.run()
    assert [(view.rows, view.context_tokens, view.prefill_tokens, view.requests) for view in simulation.views()] == [
        (0, 0, 0, 0.0)
    ] * 4


def test_a_seed_says_everything() -> None:
    def figures(seed: int) -> list[object]:
        return [cell.figures for cell in compare(Grid((8,), (0.5,), ("skewed",), ("wide",), 200), MEASURED, seed)]

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


def test_idle_replicas_are_worth_leaving_home_for() -> None:
    means = load(16, "long", "wide", 0.1)
    assert means["spread"] < 0.85 * means["home"]
    assert means["adaptive"] < 1.01 * means["spread"]


def test_slow_links_are_worth_staying_at_home_for() -> None:
    slow = Costs(MEASURED.engine, Link(0.2, 1e8), Link(0.5, 2e7), MEASURED.kv_bytes)
    chains = draw_load(600, 0.8, 16, "short", "wide", slow, 93_184, 1)
    means = {name: Simulation(chains, policy, slow, Cluster(16)).run().mean for name, policy in POLICIES.items()}
    assert means["home"] < 0.8 * means["spread"]
    assert means["adaptive"] < 1.01 * means["home"]


def test_adaptive_is_within_its_bound_everywhere(tmp_path: Path) -> None:
    grid = Grid((2, 16), (0.2, 0.8), ("short", "medium", "skewed"), requests=500)
    cells = list(compare(grid, MEASURED, 3))
    report = summary(cells, MEASURED, 3)
    assert len(report["cells"]) == 24
    assert report["worst_ratio"] <= BOUND
    assert report["ok"] is True
    write_table(cells, tmp_path / "table.csv")
    plot(cells, tmp_path / "plot.png")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["replicas"] for row in rows] == ["2"] * 12 + ["16"] * 12
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
