"""What calls came to, over workers and stages, and what they will come to."""

import pickle
from collections import Counter

import pytest

from multiverse.curation.llm.accounting import Accounting, Figures, StageNeed, estimate
from multiverse.curation.llm.calls import EndpointError
from multiverse.curation.llm.config import Prices


def test_figures_of_workers_merge_by_stage() -> None:
    one, two = Accounting(), Accounting()
    one.stages["steps"] = Figures(3, 1, 1, 7, Counter({"429": 2}), 300, 60, 0.5)
    two.stages["steps"] = Figures(1, 0, 0, 2, Counter({"429": 1, "500": 1}), 100, 20, 0.25)
    two.of("titles").cached += 2
    # Accounts come from other processes.
    merged = Accounting.merge(pickle.loads(pickle.dumps([one, two])))
    assert merged.stages == {
        "steps": Figures(4, 1, 1, 9, Counter({"429": 3, "500": 1}), 400, 80, 0.75),
        "titles": Figures(cached=2),
    }
    assert merged.total.calls == 8
    assert one.stages["steps"].made == 3


def test_report_holds_plain_values() -> None:
    account = Accounting({"steps": Figures(1, 0, 0, 2, Counter({"reset": 1}), 10, 5, 0.25)})
    figures = {
        "calls": 1,
        "made": 1,
        "cached": 0,
        "failed": 0,
        "attempts": 2,
        "retries": {"reset": 1},
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": 0.25,
    }
    assert account.report() == {"total": figures, "stages": {"steps": figures}}


def test_cost_is_per_million_tokens() -> None:
    assert Prices(prompt=2.5, completion=10.0).cost(400_000, 50_000) == pytest.approx(1.5)


def test_estimate() -> None:
    needs = [StageNeed("steps", 1, 4000, 900), StageNeed("titles", 2.5, 1000, 100)]
    found = estimate(1000, needs, Prices(prompt=1.0, completion=4.0))
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (3500, 5_000_000, 1_000_000)
    assert found.cost == pytest.approx(9.0)
    assert str(found).splitlines() == [
        "Estimate for 1,000 rows",
        "stage                  calls   prompt tokens   answer tokens        cost",
        "steps                  1,000       4,000,000         900,000        7.60",
        "titles                 2,500       1,000,000         100,000        1.40",
        "total                  3,500       5,000,000       1,000,000        9.00",
    ]


def test_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(EndpointError("no credit", 2, retryable=False)))
    assert (type(error), str(error), error.attempts, error.retryable) == (EndpointError, "no credit", 2, False)
