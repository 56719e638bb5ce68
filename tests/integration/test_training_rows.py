"""Rows from a real Ray Dataset."""

import secrets
from collections.abc import Iterator

import pytest
import ray

from multiverse.training.rows import Row, RowError, read_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of this test's own."""
    with pytest.MonkeyPatch.context() as patch:
        # Without one Ray would write a token into the home folder.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
        yield
        ray.shutdown()


def test_rows_of_a_dataset() -> None:
    records = [{"id": n, "question": f"{n}?", "chain": "c", "answer": "x", "family": "f"} for n in range(3)]
    rows = list(read_rows(ray.data.from_items(records)))
    assert sorted(rows, key=lambda row: row.id) == [Row(str(n), f"{n}?", "c", "x", "f") for n in range(3)]


def test_a_dataset_without_a_column_is_refused() -> None:
    with pytest.raises(RowError, match="dataset, row 1: chain is missing"):
        list(read_rows(ray.data.from_items([{"question": "q", "answer": "x"}])))
