"""Checkpoints against a real S3 service that fails and is slow, and with workers that are killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.models.weights import BaseWeights
from multiverse.storage import download_prefix, list_prefix
from multiverse.training.checkpoint_store import S3Store
from multiverse.training.checkpoints import Checkpoints, Outcome, Stage
from multiverse.training.deepspeed_state import deepspeed_weights
from multiverse.training.export import export_model
from multiverse.training.manifests import Progress, Run
from multiverse.training.workers import CheckpointError
from tests.integration.faulty_proxy import Proxy, always, faulty_proxy, no_fault, seeded
from tests.integration.object_store import environment, object_store
from tests.integration.sharded_training import Orders, run
from tests.unit.models.tiny_model import write_base

pytestmark = pytest.mark.slow
RUN = Run(strategy="single", seed=0, config_fingerprint="f")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("weed"), "training") as url:
        yield url


@pytest.fixture
def proxy(service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the service, and where boto3 looks; passes all on until it is told otherwise."""
    with faulty_proxy(service) as proxy:
        for name, value in environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        yield proxy
        proxy.fault = no_fault


def open_checkpoints(uri: str, staging: Path, report: Callable[[Outcome], None] | None = None) -> Checkpoints:
    store = S3Store(uri, attempts=3, first_pause=0.2)
    return Checkpoints(store, RUN, staging=staging, keep_last=2, keep_best=0, report=report)


def writes(**files: bytes) -> Stage:
    def stage(directory: Path) -> Callable[[], None]:
        def finish() -> None:
            for name, content in files.items():
                (directory / name).write_bytes(content)

        return finish

    return stage


def test_a_checkpoint_in_parts_comes_back_from_a_service_that_fails_every_fourth_request(
    proxy: Proxy, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (66 * 4096)
    proxy.fault = seeded(seed=3, share=0.25)
    checkpoints = open_checkpoints("s3://training/faults", tmp_path / "staging")
    for step in (1, 2, 3):
        checkpoints.save(Progress(step, 0, 0), writes(weights=content if step == 3 else b"small", other=b"%d" % step))
        checkpoints.wait()
    assert (checkpoints.saved, checkpoints.failed) == (3, 0)
    assert sum(count for fault, count in proxy.counts.items() if fault != "none") >= 5
    found = open_checkpoints("s3://training/faults", tmp_path / "resumed").resume()
    assert found is not None and found[0].step == 3
    assert (found[1] / "weights").read_bytes() == content
    assert (found[1] / "other").read_bytes() == b"3"
    proxy.fault = no_fault
    names = [entry.name for entry in list_prefix("s3://training/faults")]
    assert names == [f"step-0000000{step}/{name}" for step in (2, 3) for name in ("manifest.json", "other", "weights")]


def test_training_goes_on_while_s3_is_down_and_the_next_save_is_whole(proxy: Proxy, tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    checkpoints = open_checkpoints("s3://training/down", tmp_path / "staging", outcomes.append)
    proxy.fault = always("reset")
    begin = time.monotonic()
    checkpoints.save(Progress(1, 0, 0), writes(weights=b"1"))
    assert time.monotonic() - begin < 1
    # It is still being tried when the next one is due.
    assert checkpoints.save(Progress(2, 0, 0), writes(weights=b"2")) is False
    checkpoints.wait()
    assert (checkpoints.saved, checkpoints.failed, checkpoints.skipped) == (0, 1, 1)
    assert outcomes[0].error is not None and "StorageError: s3://training/down" in outcomes[0].error
    with pytest.raises(CheckpointError, match="StorageError"):
        open_checkpoints("s3://training/down", tmp_path / "other").resume()
    proxy.fault = no_fault
    checkpoints.save(Progress(3, 0, 0), writes(weights=b"3"))
    checkpoints.close()
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 3
    assert outcomes[1].error is None


def test_damaged_objects_are_passed_over(proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = open_checkpoints("s3://training/damaged", tmp_path / "staging")
    for step in (1, 2):
        checkpoints.save(Progress(step, 0, 0), writes(weights=b"weights of %d" % step))
        checkpoints.wait()
    (tmp_path / "weights").write_bytes(b"weights of 7")
    S3Store("s3://training/damaged").put(2, "weights", tmp_path / "weights")
    with caplog.at_level(logging.WARNING):
        found = open_checkpoints("s3://training/damaged", tmp_path / "resumed").resume()
    assert found is not None and found[0].step == 1
    assert "s3://training/damaged/step-00000002 is passed over: weights has SHA-256" in caplog.text


KILLED = """
import sys, time
from pathlib import Path
from multiverse.training.manifests import Progress
from tests.integration.test_checkpoints_s3 import open_checkpoints, writes
checkpoints = open_checkpoints("s3://training/killed", Path(sys.argv[1]))
for step in (1, 2):
    checkpoints.save(Progress(step, 0, 0), writes(a=b"a", b=b"b", c=b"c"))
    checkpoints.wait()
"""


@pytest.mark.parametrize("at", ["step-00000002/b", "step-00000002/manifest.json"])
def test_a_worker_killed_while_it_saves_leaves_the_checkpoint_before(
    proxy: Proxy, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    proxy.fault = lambda method, path: "hang" if method == "PUT" and path.endswith(at) else "none"
    path = os.pathsep.join([str(root / "platform"), str(root)])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "staging")], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        assert proxy.hanging.wait(240)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    proxy.fault = no_fault
    checkpoints = open_checkpoints("s3://training/killed", tmp_path / "staging")
    with caplog.at_level(logging.WARNING):
        found = checkpoints.resume()
    assert found is not None and found[0].step == 1
    assert "step-00000002 is passed over: unfinished, it has no manifest.json" in caplog.text
    checkpoints.save(Progress(2, 0, 0), writes(a=b"a"))
    checkpoints.close()
    newest = checkpoints.newest()
    assert newest is not None and (newest.step, len(newest.files)) == (2, 1)


LOST = """
import os, signal, sys
from pathlib import Path
import torch.distributed as dist
from multiverse.training.checkpoint_store import LocalStore
from multiverse.training.checkpoints import Checkpoints
from multiverse.training.manifests import Progress, Run
from multiverse.training.workers import Workers
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
workers = Workers.of_process_group()
store, run = LocalStore(folder / "store"), Run("test", 0, "f")
checkpoints = Checkpoints(store, run, staging=folder / "staging", workers=workers)
writes = lambda directory: lambda: (directory / f"file{rank}").write_text("x")
checkpoints.save(Progress(1, 0, 0), writes)
checkpoints.wait()
lost = lambda directory: lambda: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save(Progress(2, 0, 0), lost if rank == 1 else writes)
checkpoints.close()
assert (checkpoints.saved, checkpoints.failed, checkpoints.newest().step) == (1, 1, 1)
"""


def test_a_worker_lost_while_all_save_does_not_hold_the_others(root: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(root / "platform"), str(root)])
    processes = [
        subprocess.Popen([sys.executable, "-c", LOST, str(rank), str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(240) for process in processes] == [0, -signal.SIGKILL]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_two_fsdp2_workers_save_while_they_train_and_any_number_resumes(
    proxy: Proxy, root: Path, tmp_path: Path, lora: bool
) -> None:
    uri = f"s3://training/fsdp2-{lora}"
    # Every request is slow, so that saving lasts for many steps.
    proxy.fault = always("slow")

    def orders(name: str, until: int, save_at: tuple[int, ...] = (), pause: float = 0.0) -> Orders:
        return Orders(uri, str(tmp_path / "staging"), str(tmp_path / name), until, save_at, lora, pause)

    first = run(orders("first", 12, (2, 3, 8), pause=0.1), 2, environment(proxy.url), root)
    # The save after step 3 was skipped, on both.
    assert [said["saves"] for said in first] == [[True, False, True], [True, False, True]]
    assert [said["counts"] for said in first] == [(2, 0, 1), (2, 0, 1)]
    assert all(said["during"] >= 3 for said in first)
    seen = first[0]["seen"]
    proxy.fault = no_fault

    def newest_is(step: int) -> None:
        newest = open_checkpoints(uri, tmp_path / "other").newest()
        assert newest is not None and newest.step == step and newest.world_size == 2

    newest_is(8)
    two = run(orders("two", 12), 2, environment(proxy.url), root)
    assert_same(two[0]["seen"][8], seen[8])
    assert_same(two[0]["seen"][12], seen[12])
    one = run(orders("one", 12), 1, environment(proxy.url), root)
    assert_same(one[0]["seen"][8], seen[8])
    assert_same(one[0]["seen"][12], seen[12], tolerance=1e-5)
    # What one worker saves, two resume.
    run(orders("one-saves", 10, (10,)), 1, environment(proxy.url), root)
    again = run(orders("two-again", 12), 2, environment(proxy.url), root)
    assert sorted(again[0]["seen"]) == [10, 12]
    assert_same(again[0]["seen"][12], seen[12], tolerance=1e-5)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("zero", "lora"), [(2, False), (3, False), (3, True)])
def test_deepspeeds_own_files_resume_with_the_same_and_with_another_number_of_workers(
    root: Path, tmp_path: Path, zero: int, lora: bool
) -> None:
    location = tmp_path / "checkpoints"

    def orders(name: str, until: int, save_at: tuple[int, ...] = ()) -> Orders:
        return Orders(str(location), str(tmp_path / "staging"), str(tmp_path / name), until, save_at, lora, zero=zero)

    first = run(orders("first", 4, (2,)), 2, {}, root)
    assert first[0]["counts"] == (1, 0, 0)
    two = run(orders("two", 4), 2, {}, root)
    assert_same(two[0]["seen"][2], first[0]["seen"][2])
    assert_same(two[0]["seen"][4], first[0]["seen"][4])
    one = run(orders("one", 2), 1, {}, root)
    assert_same(one[0]["seen"][2], first[0]["seen"][2])
    weights = deepspeed_weights(location / "step-00000002")
    for name, tensor in first[0]["seen"][2]["weights"].items():
        assert torch.equal(weights[name], tensor)


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 0.0) -> None:
    assert found["weights"].keys() == expected["weights"].keys()
    assert found["optimizer"].keys() == expected["optimizer"].keys()
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], tensor, rtol=0, atol=tolerance)
    for name, state in expected["optimizer"].items():
        for key, tensor in state.items():
            torch.testing.assert_close(found["optimizer"][name][key], tensor, rtol=0, atol=tolerance)


def test_an_export_goes_to_s3(proxy: Proxy, tmp_path: Path) -> None:
    base = prepare(str(write_base(tmp_path / "base")), tmp_path / "prepared", dtype="float32")
    weights = {name: tensor + 1 for name, tensor in BaseWeights(base).items()}
    manifest = export_model(weights, base, "s3://training/exported")
    back = download_prefix("s3://training/exported", tmp_path / "back")
    assert Manifest.load(back) == manifest
    assert torch.equal(BaseWeights(back)["model.norm.weight"], weights["model.norm.weight"])
