"""A whole run in one process: it learns, goes on where it stopped, and gives a model that can be served."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multiverse.models.manifest import Manifest
from multiverse.training.config import TrainConfig
from multiverse.training.examples import Report
from multiverse.training.observers import Curve
from multiverse.training.run import Looked, node_directory, train
from multiverse.training.workers import Workers
from tests.unit.training.tiny_run import tiny_config, tiny_model, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trained in one thread: it is so small that others only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_model(tmp_path_factory.mktemp("model"))
    torch.set_num_threads(threads)


class Notes(Curve):
    def __init__(self) -> None:
        super().__init__()
        self.resumed: list[int] = []
        self.seen: list[Looked] = []
        self.report: Report | None = None

    def data(self, report: Report, steps: int, resumed_at: int) -> None:
        self.report = report
        self.resumed.append(resumed_at)

    def looked(self, looked: Looked) -> None:
        self.seen.append(looked)


def curve(config: TrainConfig) -> dict[int, float]:
    notes = Notes()
    train(config, notes)
    return notes.losses


def test_loss_falls_and_the_model_is_there(model: Path, tmp_path: Path) -> None:
    notes = Notes()
    summary = train(tiny_config(model, tmp_path, curriculum={"kind": "multiverse", "passes": 6}), notes)
    assert summary.finished and summary.step == summary.steps == len(notes.losses) == 18
    assert notes.losses[17] < 0.7 * notes.losses[0]
    assert summary.model is not None and Manifest.load(summary.model).trained
    assert Manifest.load(summary.model).fingerprint != Manifest.load(model).fingerprint


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_a_run_that_stopped_goes_on_as_if_it_had_not(model: Path, tmp_path: Path, lora: dict[str, int] | None) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = curve(tiny_config(model, tmp_path / "whole", lora=lora))
    parts = tiny_config(model, tmp_path / "parts", lora=lora)
    first = curve(parts.model_copy(update={"max_steps": 3}))
    notes = Notes()
    summary = train(parts, notes)
    assert notes.resumed == [3] and summary.finished
    assert first | notes.losses == pytest.approx(whole, abs=1e-6)
    weights = [load_file(tmp_path / name / "out" / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


def test_adapters_train_little_and_change_the_model(model: Path, tmp_path: Path) -> None:
    notes = Notes()
    summary = train(tiny_config(model, tmp_path, lora={"rank": 2, "alpha": 4}), notes)
    assert notes.losses[5] < notes.losses[0]
    before, after = (load_file(Path(where or "") / "model.safetensors") for where in (model, summary.model))
    assert before.keys() == after.keys()
    embedding = (before["model.embed_tokens.weight"] != after["model.embed_tokens.weight"]).any(1).nonzero()[:, 0]
    assert set(embedding.tolist()) <= set(Manifest.load(model).tag_ids.values())
    assert len(embedding) > 4
    assert (before["model.layers.0.self_attn.q_proj.weight"] != after["model.layers.0.self_attn.q_proj.weight"]).any()


def test_another_configuration_does_not_go_on_in_the_same_place(model: Path, tmp_path: Path) -> None:
    config = tiny_config(model, tmp_path)
    train(config.model_copy(update={"max_steps": 2}))
    with pytest.raises(RuntimeError, match="saved under the configuration"):
        train(config.model_copy(update={"seed": 2}))


def test_held_out_rows_are_looked_at_by_the_engines_rules(model: Path, tmp_path: Path) -> None:
    held_out = str(write_rows(tmp_path / "held.jsonl", 5))
    config = tiny_config(
        model,
        tmp_path,
        data={"held_out": held_out},
        held_out={"every_steps": 3, "rows": 2, "max_tokens": 20},
    )
    notes = Notes()
    train(config, notes)
    assert [looked.step for looked in notes.seen] == [3, 6]
    assert notes.seen[1].loss < notes.seen[0].loss
    made = notes.seen[1].generated
    assert made is not None and made.answers == 2 and made.parallelism >= 1.0
    assert {"tag", "goal", "path", "conclusion", "text"} == set(notes.seen[0].by_part)


def test_no_usable_row_is_said(model: Path, tmp_path: Path) -> None:
    config = tiny_config(model, tmp_path)
    Path(config.data.rows).write_text(
        '{"id": "7", "question": "?", "chain": "<Path>", "answer": ""}\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match="no row can be used: 1 rows: 0 kept"):
        train(config)


def test_workers_of_a_node_share_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    two = [Workers(rank, 2, lambda value: ["first", "second"], lambda value: [value], None) for rank in range(2)]
    assert node_directory(two[0]) == node_directory(two[1])
    assert node_directory(Workers.alone()) != node_directory(Workers.alone())


def test_a_run_leaves_no_directory_of_its_own(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    train(tiny_config(model, tmp_path, max_steps=1))
    assert list(scratch.glob("multiverse-train-*")) == []
