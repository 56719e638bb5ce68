"""The texts of several nodes as one."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from multiverse.telemetry import cluster

NODE = """# HELP ray_multiverse_tokens_total Tokens.
# TYPE ray_multiverse_tokens_total counter
ray_multiverse_tokens_total{WorkerId="%s",mode="auto"} %d.0
# HELP ray_multiverse_join_seconds Joins.
# TYPE ray_multiverse_join_seconds histogram
ray_multiverse_join_seconds_bucket{WorkerId="%s",le="+Inf"} 1.0
ray_multiverse_join_seconds_count{WorkerId="%s"} 1.0
ray_multiverse_join_seconds_sum{WorkerId="%s"} 0.5
# HELP ray_gcs_actors_count Actors.
# TYPE ray_gcs_actors_count gauge
ray_gcs_actors_count 9.0
"""


@pytest.fixture
def agent() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((NODE % ("a", 5, "a", "a", "a")).encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_families_of_all_nodes_come_together_and_others_are_left_out() -> None:
    families = cluster.merged([NODE % ("a", 5, "a", "a", "a"), NODE % ("b", 7, "b", "b", "b")])
    assert [family.name for family in families] == ["ray_multiverse_tokens", "ray_multiverse_join_seconds"]
    assert {sample.labels["WorkerId"]: sample.value for sample in families[0].samples} == {"a": 5.0, "b": 7.0}


def test_agents_are_read_and_one_that_does_not_answer_is_left_out(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "agents", lambda: [agent, "127.0.0.1:1"])
    text = generate_latest(cluster.registry()).decode()
    assert 'ray_multiverse_tokens_total{WorkerId="a",mode="auto"} 5.0' in text
    assert 'ray_multiverse_join_seconds_bucket{WorkerId="a",le="+Inf"} 1.0' in text
    assert "ray_gcs" not in text
