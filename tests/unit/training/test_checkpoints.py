import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.training.checkpoint_store import LocalStore
from multiverse.training.checkpoints import Checkpoints, Outcome, Stage
from multiverse.training.manifests import DamagedError, File, Manifest, Progress, Run, kept
from multiverse.training.workers import CheckpointError, Workers

RUN = Run(strategy="single", seed=7, config_fingerprint="a1b2")
SHA_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def writes(**files: str) -> Stage:
    """Stages a writer of these files."""

    def stage(directory: Path) -> Callable[[], None]:
        def finish() -> None:
            for name, text in files.items():
                (directory / name).write_text(text)

        return finish

    return stage


class Kit:
    """Checkpoints in a temporary directory, opened anew for each 'process'."""

    def __init__(self, tmp_path: Path) -> None:
        self.location, self.staging = tmp_path / "checkpoints", tmp_path / "staging"
        self.outcomes: list[Outcome] = []

    def open(self, keep_last: int = 10, keep_best: int = 0, run: Run = RUN) -> Checkpoints:
        return Checkpoints(
            LocalStore(self.location),
            run,
            staging=self.staging,
            keep_last=keep_last,
            keep_best=keep_best,
            report=self.outcomes.append,
        )

    def save(
        self, checkpoints: Checkpoints, step: int, metric: float | None = None, stage: Stage | None = None
    ) -> None:
        checkpoints.save(Progress(step, step * 100, step * 2, metric), stage or writes(weights=f"weights of {step}"))
        checkpoints.wait()

    def steps(self) -> list[str]:
        return sorted(path.name for path in self.location.iterdir())


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


def test_the_manifest_names_progress_run_and_every_file(kit: Kit) -> None:
    checkpoints = kit.open()
    kit.save(checkpoints, 3, metric=1.5, stage=writes(a="a", b="bb"))
    manifest = checkpoints.newest()
    assert manifest is not None
    assert manifest.progress == Progress(step=3, tokens=300, rows=6, metric=1.5)
    assert (manifest.run, manifest.world_size) == (RUN, 1)
    assert [(file.name, file.size) for file in manifest.files] == [("a", 1), ("b", 2)]
    assert manifest.files[0].sha256 == SHA_A
    assert manifest.versions["torch"].startswith("2.")
    assert kit.steps() == ["step-00000003"]


def test_resume_takes_the_newest(kit: Kit) -> None:
    first = kit.open()
    assert first.resume() is None
    kit.save(first, 1)
    kit.save(first, 2)
    found = kit.open().resume()
    assert found is not None
    assert found[0].step == 2
    assert (found[1] / "weights").read_text() == "weights of 2"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "unfinished, it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged: JSONDecodeError"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 2}'), "manifest.json has format 2"),
        (lambda folder: (folder / "weights").unlink(), "weights is missing"),
        (lambda folder: (folder / "weights").write_text("weights"), "weights has 7 bytes instead of 12"),
        (lambda folder: (folder / "weights").write_text("weights of 9"), "weights has SHA-256 "),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(
    kit: Kit, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], reason: str
) -> None:
    checkpoints = kit.open()
    kit.save(checkpoints, 1)
    kit.save(checkpoints, 2)
    damage(kit.location / "step-00000002")
    resumed = kit.open()
    with caplog.at_level(logging.WARNING):
        found = resumed.resume()
    assert found is not None and found[0].step == 1
    assert f"step-00000002 is passed over: {reason}" in caplog.text
    # Training gets there again, and the step becomes valid.
    kit.save(resumed, 2)
    again = kit.open().resume()
    assert again is not None and again[0].step == 2


def test_fetch_refuses_changed_bytes(kit: Kit) -> None:
    checkpoints = kit.open()
    kit.save(checkpoints, 1)
    (kit.location / "step-00000001" / "weights").write_text("weights of 9")
    manifest = checkpoints.newest()
    assert manifest is not None
    with pytest.raises(DamagedError, match="weights has SHA-256"):
        checkpoints.fetch(manifest)


def test_a_checkpoint_of_another_configuration_is_refused(kit: Kit) -> None:
    kit.save(kit.open(), 1)
    other = Run(strategy="single", seed=7, config_fingerprint="ffff")
    with pytest.raises(CheckpointError, match="was saved under the configuration a1b2, this is ffff"):
        kit.open(run=other).resume()


def test_the_newest_and_the_best_are_kept(kit: Kit) -> None:
    checkpoints = kit.open(keep_last=2, keep_best=1)
    for step, metric in [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, None), (6, float("nan"))]:
        kit.save(checkpoints, step, metric)
    assert kit.steps() == ["step-00000002", "step-00000005", "step-00000006"]


def test_of_equal_metrics_the_newer_is_the_better() -> None:
    def manifest(step: int, metric: float) -> Manifest:
        return Manifest(Progress(step, 0, 0, metric), RUN, 1, {}, ())

    assert kept([manifest(1, 0.5), manifest(2, 0.5), manifest(3, 0.7)], keep_last=1, keep_best=1) == {2, 3}


def test_what_killed_runs_left_behind_is_deleted_and_later_steps_are_not(kit: Kit) -> None:
    for step in (1, 9):
        (kit.location / f"step-{step:08d}").mkdir(parents=True)
        (kit.location / f"step-{step:08d}" / "weights").write_text("half")
    kit.save(kit.open(keep_last=1), 5)
    assert kit.steps() == ["step-00000005", "step-00000009"]


def test_leftovers_of_the_same_step_do_not_get_into_the_checkpoint(kit: Kit) -> None:
    (kit.location / "step-00000001").mkdir(parents=True)
    (kit.location / "step-00000001" / "other").write_text("of more workers")
    kit.save(kit.open(), 1)
    assert sorted(path.name for path in (kit.location / "step-00000001").iterdir()) == ["manifest.json", "weights"]


def test_a_step_is_saved_once(kit: Kit) -> None:
    checkpoints = kit.open()
    kit.save(checkpoints, 1)
    kit.save(checkpoints, 1, stage=writes(weights="again"))
    assert (kit.location / "step-00000001" / "weights").read_text() == "weights of 1"
    assert checkpoints.saved == 1


def test_a_save_is_skipped_while_one_is_in_flight(kit: Kit) -> None:
    go = threading.Event()

    def slow(directory: Path) -> Callable[[], None]:
        return lambda: (go.wait(10), (directory / "weights").write_text("slow"))[0] and None

    checkpoints = kit.open()
    assert checkpoints.save(Progress(1, 0, 0), slow) is True
    assert checkpoints.save(Progress(2, 0, 0), writes(weights="2")) is False
    go.set()
    checkpoints.close()
    assert kit.steps() == ["step-00000001"]
    assert (checkpoints.saved, checkpoints.skipped) == (1, 1)


@pytest.mark.parametrize("when", ["staging", "writing"])
def test_a_failed_save_is_reported_and_the_next_one_tries_again(kit: Kit, when: str) -> None:
    def fails(directory: Path) -> Callable[[], None]:
        def fail() -> None:
            raise OSError("no space left")

        if when == "staging":
            fail()
        return fail

    checkpoints = kit.open()
    kit.save(checkpoints, 1)
    kit.save(checkpoints, 2, stage=fails)
    assert (kit.outcomes[1].step, kit.outcomes[1].error) == (2, "worker 0: OSError: no space left")
    kit.save(checkpoints, 3)
    assert (checkpoints.saved, checkpoints.failed) == (2, 1)
    assert [(outcome.step, outcome.size) for outcome in kit.outcomes] == [(1, 12), (2, 0), (3, 12)]
    assert kit.steps() == ["step-00000001", "step-00000003"]


def test_files_may_be_written_while_staging(kit: Kit) -> None:
    """As DeepSpeed does, which saves from the live state and into folders."""

    def stage(directory: Path) -> None:
        (directory / "global_step1").mkdir()
        (directory / "global_step1" / "states.pt").write_text("states")

    kit.save(kit.open(), 1, stage=stage)
    found = kit.open().resume()
    assert found is not None
    assert (found[1] / "global_step1" / "states.pt").read_text() == "states"


def test_two_workers_make_one_checkpoint_or_none(kit: Kit) -> None:
    workers = two_workers()
    ranks = [
        Checkpoints(LocalStore(kit.location), RUN, staging=kit.staging, workers=worker, report=kit.outcomes.append)
        for worker in workers
    ]

    def both(action: Callable[[int], object]) -> None:
        threads = [threading.Thread(target=action, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        for checkpoints in ranks:
            checkpoints.wait()

    def save(step: int, **names: str) -> None:
        both(lambda rank: ranks[rank].save(Progress(step, 0, 0), writes(**{names[f"rank{rank}"]: str(rank)})))

    save(1, rank0="a", rank1="b")
    manifest = ranks[1].newest()
    assert manifest is not None
    assert (manifest.world_size, [file.name for file in manifest.files]) == (2, ["a", "b"])
    save(2, rank0="same", rank1="same")
    assert {outcome.error for outcome in kit.outcomes[2:]} == {"ValueError: two ranks wrote different files named same"}
    both(lambda rank: ranks[rank].save(Progress(3, 0, 0), writes(c="c") if rank == 0 else failing))
    assert {outcome.error for outcome in kit.outcomes[4:]} == {"worker 1: OSError: no space left"}
    newest = ranks[0].newest()
    assert newest is not None and newest.step == 1
    assert [(checkpoints.saved, checkpoints.failed) for checkpoints in ranks] == [(1, 2), (1, 2)]


def failing(directory: Path) -> None:
    raise OSError("no space left")


def two_workers() -> list[Workers]:
    """Two workers in two threads of this process."""

    def exchange() -> list[Callable[[object], list[object]]]:
        barrier, values = threading.Barrier(2, timeout=20), [None, None]

        def gather(rank: int, value: object) -> list[object]:
            values[rank] = value  # type: ignore[call-overload]
            barrier.wait()
            everyone = list(values)
            barrier.wait()
            return everyone

        return [lambda value: gather(0, value), lambda value: gather(1, value)]

    agree, save = exchange(), exchange()
    return [Workers(rank, 2, agree[rank], save[rank], None) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["../weights", "/etc/weights", "a/../../weights"])
def test_a_manifest_may_not_name_files_outside_of_the_checkpoint(name: str) -> None:
    text = Manifest(Progress(1, 0, 0), RUN, 1, {}, (File(name, 1, SHA_A),)).to_json()
    with pytest.raises(DamagedError, match="lies outside of the checkpoint"):
        Manifest.from_json(text)


def test_keeping_nothing_is_refused(kit: Kit) -> None:
    with pytest.raises(ValueError, match="keep_last is 0"):
        kit.open(keep_last=0)
