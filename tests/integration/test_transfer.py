"""What travels between the engine and its connector."""

import json

import pytest

from multiverse.engine.segment import Source

pytestmark = pytest.mark.slow


def test_directions_survive_their_way_to_the_connector() -> None:
    from multiverse.engine.transfer import Directions

    directions = Directions(
        segment="s-3",
        owner=2,
        lease="branch-1",
        leasing_ids=(7, 11),
        always_lease=True,
        sources=(Source("prefix", 0, 64, 0), Source("branch-0", 64, 70, 128)),
        release=("prefix", "branch-0"),
    )
    assert Directions.from_params(json.loads(json.dumps(directions.to_params()))) == directions


def test_directions_of_a_segment_that_leases_nothing() -> None:
    from multiverse.engine.transfer import Directions

    assert Directions.from_params(json.loads(json.dumps(Directions("s-1", 0).to_params()))) == Directions(
        segment="s-1", owner=0, lease=None, leasing_ids=(), always_lease=False, sources=(), release=()
    )


def test_of_two_reports_the_newer_counts_unless_it_is_empty() -> None:
    from multiverse.engine.transfer import ConnectorStats

    older, newer = ConnectorStats({"leases": 1}), ConnectorStats({"leases": 2, "refused": [["s-1", "missing"]]})
    assert older.aggregate(newer).data == {"leases": 2, "refused": [["s-1", "missing"]]}
    assert older.aggregate(ConnectorStats({})).data == {"leases": 1}
    assert newer.reduce() == {"leases": 2}
