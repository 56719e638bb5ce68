"""``multiverse curate`` on Ray, with an LLM that is reached over HTTP, answers well or badly, and fails."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from multiverse.structure.flatten import flatten, flatten_text
from multiverse.structure.grammar import parse
from multiverse.training.rows import read_rows
from tests.integration.llm_server import Body, Server, always, llm_server, no_fault, seeded
from tests.integration.object_store import object_store
from tests.integration.ray_head import BIN, ray_head
from tests.unit.curation.scripted import bad_answer, good_answer
from tests.unit.training.tiny_run import tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[dict[str, str]]:
    """A Ray head, and what a command needs in its environment to work on it."""
    path = os.pathsep.join([str(root / "platform"), str(root)])
    with ray_head(cpus=4, variables={"PYTHONPATH": path}) as environment:
        yield environment


@pytest.fixture(scope="module")
def source(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 12 real chains without their structure, and 180 solutions of gsm8k."""
    rows = []
    for path in sorted((shared / "data" / "chains").glob("*.xml")):
        chain = flatten(parse(path.read_bytes().decode("utf-8")))
        rows.append({"id": path.stem, "question": f"Question {path.stem}?", "chain": chain, "answer": "1"})
    with (shared / "data" / "eval" / "gsm8k_train.jsonl").open(encoding="utf-8") as lines:
        for number, (line, _) in enumerate(zip(lines, range(180), strict=False)):
            row = json.loads(line)
            chain, _, answer = row["answer"].rpartition("\n#### ")
            rows.append({"id": f"gsm8k-{number}", "question": row["question"], "chain": chain, "answer": answer})
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def good(body: Body) -> str:
    return good_answer(body["messages"])


def config(folder: Path, source: Path | str, url: str, out: str | None = None, **more: Any) -> Path:
    """The file of a run into ``folder / "out"``, answers kept in ``folder / "cache"``."""
    llm = {"base_url": url, "model": "scripted", "cache_dir": str(folder / "cache"), "backoff_seconds": 0.05}
    values: dict[str, Any] = {
        "source": str(source),
        "out": out or str(folder / "out"),
        "selection": {"duplicates": True},
        "stages": {"min_saving": 1},
        "rows_per_part": 24,
        "llm": llm | more.pop("llm", {}),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values | more))
    return path


def started(environment: dict[str, str], *arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(BIN / "multiverse"), "curate", "--json", "--config", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str], *arguments: str | Path) -> dict[str, Any]:
    """The command's last line."""
    process = started(environment, *arguments)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-4000:]
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


def rows_of(out: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((out / "jsonl").iterdir()) for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def content(out: Path) -> dict[str, bytes]:
    """All that a run puts out."""
    folders = ("rows", "jsonl", "dead", "done", "input", "card")
    files = [path for folder in folders for path in (out / folder).iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*files, out / "README.md"]}


def check(out: Path, source: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and dead letters; each row of the source is one of them, and each row is valid and restores its chain."""
    given = {row.id: row for row in read_rows(source)}
    rows = rows_of(out)
    dead = [json.loads(line) for line in (out / "dead-letters.jsonl").read_text("utf-8").splitlines()]
    assert Counter([row["id"] for row in rows] + [letter["id"] for letter in dead]) == Counter(list(given))
    for row in rows:
        parse(row["chain"])
        assert flatten_text(row["chain"]) == row["sequential"]
        assert row["diff"] or row["sequential"] == given[row["id"]].chain
        assert (row["question"], row["answer"]) == (given[row["id"]].question, given[row["id"]].answer)
    for letter in dead:
        assert letter["stage"] and letter["reason"]
        assert letter["row"]["chain"] == given[letter["id"]].chain
    tables = [parquet.read_table(path).to_pylist() for path in sorted((out / "rows").iterdir())]
    assert [row for table in tables for row in table] == rows
    return rows, dead


def test_every_chain_is_restored_by_two_workers_as_by_one(
    cluster: dict[str, str], source: Path, tmp_path: Path
) -> None:
    with llm_server(good) as server:
        summary = run(cluster, config(tmp_path, source, server.url))
        rows, dead = check(tmp_path / "out", source)
        assert (summary["rows"], summary["curated"], len(dead)) == (192, 192, 0)
        assert sum(row["blocks"] > 0 for row in rows) > 100
        assert summary["llm"]["total"]["made"] == len(server.requests) == sum(row["requests"] for row in rows)
        assert {row["chain"] for row in rows} == {row.chain for row in read_rows(tmp_path / "out" / "rows")}
        card = (tmp_path / "out" / "README.md").read_text()
        assert "| texts | 192 | 100.0% |" in card
        before = content(tmp_path / "out")
        (other := tmp_path / "two").mkdir()
        run(cluster, config(other, source, server.url, workers={"count": 2}))
        assert content(other / "out") == before


def test_bad_answers_and_faults_leave_valid_rows_or_reasons(
    cluster: dict[str, str], source: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)

    def answer(body: Body) -> str:
        return bad_answer(body["messages"], draw) or " " if draw.random() < 0.4 else good(body)

    with llm_server(answer, fault=seeded(1, 0.2)) as server:
        server.retry_after = lambda: "0.1"
        run(cluster, config(tmp_path, source, server.url, llm={"timeout_seconds": 2.0}))
    rows, dead = check(tmp_path / "out", source)
    assert len(rows) > 60 and len(dead) > 20
    assert {letter["stage"] for letter in dead} >= {"steps", "dependencies", "texts"}


def test_a_row_is_tried_again_only_where_that_may_help(cluster: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    lines = [{"question": "?", "chain": chain, "answer": ""} for chain in ("A one. B two.", "a <Path>", "C. D. E.")]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n" + '{"chain": 1}\n')
    path = config(tmp_path, source, "", llm={"max_attempts": 1})
    with llm_server(good, fault=always("500")) as server:
        path = config(tmp_path, source, server.url, llm={"max_attempts": 1})
        summary = run(cluster, path)
        assert (summary["rows"], summary["curated"], summary["dead"]) == (5, 0, 5)
        server.fault = no_fault
        asked = len(server.requests)
        summary = run(cluster, path)
        assert (summary["curated"], summary["dead"]) == (2, 3)
        assert len(server.requests) > asked
        asked = len(server.requests)
        assert run(cluster, path)["curated"] == 2
        assert len(server.requests) == asked
    letters = [json.loads(line) for line in (tmp_path / "out" / "dead-letters.jsonl").read_text().splitlines()]
    assert [letter["stage"] for letter in letters] == ["source", "source", "chain"]
    assert letters[2]["reason"] == "the chain holds the tag <Path> at character 2"


def test_a_refused_key_stops_the_job_and_loses_nothing(cluster: dict[str, str], source: Path, tmp_path: Path) -> None:
    calls = Counter[str]()

    def fault(body: Body) -> str:
        calls["all"] += 1
        return "401" if calls["all"] > 150 else "none"

    with llm_server(good, fault=fault) as server:
        path = config(tmp_path, source, server.url, llm={"key_env": "TEST_LLM_KEY"})
        environment = cluster | {"TEST_LLM_KEY": "sk-secret"}
        process = started(environment, path)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 2, errors[-3000:]
        assert "HTTP 401" in errors and "what is done stays, the same command goes on" in errors
        assert "sk-secret" not in output + errors
        server.fault = no_fault
        run(environment, path)
        check(tmp_path / "out", source)
        answered = [json.dumps(request.body) for request in server.requests if request.fault == "none"]
        assert len(answered) == len(set(answered))
        text = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"sk-secret" not in text


@pytest.mark.parametrize("requests", [20, 130, 400])
def test_killed_at_any_moment_it_ends_as_if_undisturbed(
    cluster: dict[str, str], source: Path, tmp_path: Path, undisturbed: dict[str, bytes], requests: int
) -> None:
    with llm_server(good, latency=0.1) as server:
        path = config(tmp_path, source, server.url, llm={"concurrency": 16})
        process = started(cluster, path)
        wait_for(server, requests)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until_quiet(server)
        run(cluster, path)
        bodies = Counter(json.dumps(request.body) for request in server.requests)
    again = sum(count - 1 for count in bodies.values())
    assert again <= 16, again
    found = content(tmp_path / "out")
    found["README.md"] = found["README.md"].replace(str(tmp_path).encode(), b"")
    assert found.keys() == undisturbed.keys()
    for name in undisturbed:
        if not name.startswith("input/manifest"):
            assert settings(found[name]) == settings(undisturbed[name]), name


@pytest.fixture(scope="module")
def undisturbed(cluster: dict[str, str], source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run gives that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with llm_server(good) as server:
        run(cluster, config(folder, source, server.url))
    return content(folder / "out")


def settings(text: bytes) -> bytes:
    """Without the settings at the card's end, which hold the server's address."""
    return text.partition(b"## Settings")[0]


def wait_for(server: Server, requests: int) -> None:
    deadline = time.monotonic() + 120
    while len(server.requests) < requests:
        assert time.monotonic() < deadline, len(server.requests)
        time.sleep(0.02)


def wait_until_quiet(server: Server) -> None:
    """Until the killed run's workers have ended too."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        if len(server.requests) != count:
            count, since = len(server.requests), time.monotonic()
        time.sleep(0.1)


def test_a_run_with_other_settings_needs_another_folder(cluster: dict[str, str], source: Path, tmp_path: Path) -> None:
    with llm_server(good) as server:
        few = {"rows": 5, "duplicates": True}
        run(cluster, config(tmp_path, source, server.url, selection=few))
        process = started(cluster, config(tmp_path, source, server.url, selection=few, rows_per_part=5))
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "holds a run with other settings (rows_per_part): choose another" in errors


def test_the_estimate_comes_before_the_first_call(cluster: dict[str, str], source: Path, tmp_path: Path) -> None:
    with llm_server(good) as server:
        prices = {"prices": {"prompt": 1.25, "completion": 10.0}}
        path = config(tmp_path, source, server.url, llm=prices, max_cost=0.01)
        process = started(cluster, path)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "is above max_cost, which is 0.01" in errors
        process = started(cluster, config(tmp_path, source, server.url, llm=prices), "--estimate")
        output, _ = process.communicate(timeout=120)
        estimate = json.loads(output.splitlines()[-1])
        assert (estimate["rows"], estimate["calls"]) == (192, 576)
        assert "Estimate for 192 rows" in output
        assert not server.requests


def test_from_s3_to_s3(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    (folder := tmp_path / "s3").mkdir()
    with object_store(folder, "chains") as address, llm_server(good) as server:
        access = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in access.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3").Bucket("chains")
        bucket.upload_file(str(source), "in/rows.jsonl")
        path = config(tmp_path, "s3://chains/in/rows.jsonl", server.url, out="s3://chains/out")
        # On a cluster of its own, whose workers have what this process has in its environment.
        assert run({**os.environ, **access}, path)["curated"] == 192
        rows = list(read_rows("s3://chains/out/rows"))
        assert [row.id for row in rows] == [row.id for row in read_rows(source)]
        assert {entry.key for entry in bucket.objects.all()} >= {"out/README.md", "out/done/part-00007.json"}


def test_the_job_is_submitted_with_the_working_directory_alone(
    root: Path, cluster: dict[str, str], source: Path, tmp_path: Path
) -> None:
    with llm_server(good) as server:
        path = config(tmp_path, source, server.url, selection={"rows": 30})
        runtime = '{"env_vars": {"PYTHONPATH": "platform"}}'
        entrypoint = ["python", "jobs/curate.py", "--config", str(path), "--json"]
        command = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--runtime-env-json", runtime, "--"]
        environment = cluster | {"RAY_ADDRESS": cluster["RAY_DASHBOARD_ADDRESS"]}
        job = subprocess.run(
            [*command, *entrypoint], cwd=root, env=environment, capture_output=True, text=True, timeout=300
        )
    assert job.returncode == 0, job.stdout[-3000:]
    assert '"curated": 30' in job.stdout


def test_what_was_curated_trains(root: Path, cluster: dict[str, str], source: Path, tmp_path: Path) -> None:
    with llm_server(good) as server:
        longest = {"rows": 40, "max_characters": 600, "duplicates": True}
        run(cluster, config(tmp_path, source, server.url, selection=longest))
    rows = {"rows": str(tmp_path / "out" / "rows"), "max_tokens": 2000}
    passes = {"kind": "multiverse", "passes": 2}
    training = tiny_config(tiny_model(tmp_path), tmp_path, data=rows, curriculum=passes, out=str(tmp_path / "trained"))
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(training.model_dump(mode="json")))
    command = [sys.executable, "jobs/train.py", "--config", str(path), "--json"]
    job = subprocess.run(command, cwd=root, env=cluster, capture_output=True, text=True, timeout=300)
    assert job.returncode == 0, job.stdout[-2000:] + job.stderr[-2000:]
    summary = json.loads(job.stdout.splitlines()[-1])
    assert (summary["finished"], summary["step"]) == (True, 20)
    assert "40 rows: 40 kept" in job.stdout + job.stderr
    assert (Path(summary["model"]) / "multiverse.json").is_file()
