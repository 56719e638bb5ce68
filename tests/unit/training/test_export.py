import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse.models.adapters import AdapterError
from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.models.weights import WeightsError
from multiverse.training.export import export_adapter, export_merged, export_model
from multiverse.training.sharded import SavedWeights, full_weights, load_sharded, sharded_state, write_sharded
from tests.unit.models.tiny_model import write_base

IDS = torch.arange(24)[None]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return prepare(str(write_base(folder / "base", tied=request.param)), folder / "prepared", dtype="float32")


def load(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def with_lora(base: Path) -> Any:
    """A peft model whose tag rows are trainable; LoRA's B is not zero, so that it changes something."""
    model, tags = load(base), sorted(Manifest.load(base).tag_ids.values())
    rows = {"embed_tokens": tags} | ({} if model.config.tie_word_embeddings else {"lm_head": tags})
    torch.manual_seed(1)
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=["q_proj", "down_proj"],
        trainable_token_indices=rows,
        init_lora_weights=False,
    )
    return get_peft_model(model, config)


def train(model: Any, steps: int = 2) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=IDS).logits
    return result


def test_a_trained_model_is_exported_with_the_bases_files(base: Path, tmp_path: Path) -> None:
    model = load(base)
    train(model)
    manifest = export_model(full_weights(model), base, str(tmp_path / "out"))
    before = Manifest.load(base)
    assert (before.trained, manifest.trained) == (False, True)
    assert manifest.fingerprint != before.fingerprint
    assert Manifest.load(tmp_path / "out") == manifest
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in base.iterdir()}
    assert torch.equal(logits(load(tmp_path / "out")), logits(model))
    text = "one <Path> two"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out")]
    assert tokenizers[0](text).input_ids == tokenizers[1](text).input_ids


def test_a_checkpoint_is_exported_as_the_model_is(base: Path, tmp_path: Path) -> None:
    model = load(base)
    write_sharded(sharded_state(model, train(model)), tmp_path / "checkpoint", None)
    live = export_model(full_weights(model), base, str(tmp_path / "live"))
    saved = export_model(SavedWeights(tmp_path / "checkpoint"), base, str(tmp_path / "saved"))
    assert live == saved


def test_other_weights_give_another_fingerprint_and_the_twin_stays_untrained(base: Path, tmp_path: Path) -> None:
    model = load(base)
    first = export_model(full_weights(model), base, str(tmp_path / "first"), trained=False)
    train(model)
    second = export_model(full_weights(model), base, str(tmp_path / "second"), trained=False)
    assert not first.trained and not second.trained
    assert first.fingerprint != second.fingerprint


def test_weights_of_another_model_are_refused_and_leave_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.layers\.9\.x is no parameter of the base"):
        export_model({"model.layers.9.x": torch.zeros(1)}, base, str(tmp_path / "out"))
    with pytest.raises(WeightsError, match=r"model\.norm\.weight has shape \[2\], the base's has \[64\]"):
        export_model({"model.norm.weight": torch.zeros(2)}, base, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_merged_adapter_computes_what_peft_does(base: Path, tmp_path: Path) -> None:
    model = with_lora(base)
    train(model)
    export_adapter(full_weights(model), model.peft_config["default"], base, str(tmp_path / "adapter"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["inference_mode"]) == ("prepared", True)
    # peft reads it,
    again = PeftModel.from_pretrained(load(base), tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    # and merged by us it computes the same.
    assert export_merged(tmp_path / "adapter", base, str(tmp_path / "merged")).trained
    merged = logits(load(tmp_path / "merged"))
    assert torch.allclose(merged, logits(model), atol=1e-4)
    assert not torch.allclose(merged, logits(load(base)), atol=1e-2)


def test_an_adapter_comes_from_a_checkpoint_too(base: Path, tmp_path: Path) -> None:
    model = with_lora(base)
    write_sharded(sharded_state(model, train(model)), tmp_path / "checkpoint", None)
    config = model.peft_config["default"]
    export_adapter(full_weights(model), config, base, str(tmp_path / "live"))
    export_adapter(SavedWeights(tmp_path / "checkpoint"), config, base, str(tmp_path / "saved"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_the_checkpoint_of_an_adapter_holds_nothing_of_the_base(base: Path, tmp_path: Path) -> None:
    model = with_lora(base)
    state = sharded_state(model, train(model))
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in state["model"])


def test_an_adapter_is_resumed_with_its_optimizer(base: Path, tmp_path: Path) -> None:
    model = with_lora(base)
    optimizer = train(model)
    write_sharded(sharded_state(model, optimizer), tmp_path / "checkpoint", None)
    other = with_lora(base)
    resumed = torch.optim.AdamW([p for p in other.parameters() if p.requires_grad], lr=1e-2)
    load_sharded(tmp_path / "checkpoint", other, resumed, None)
    train_more = [(model, optimizer), (other, resumed)]
    for trained, stepper in train_more:
        trained.train()(input_ids=IDS, labels=IDS).loss.backward()
        stepper.step()
    for (name, tensor), (_, expected) in zip(other.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(tensor, expected), name


def test_a_checkpoint_of_other_parameters_is_refused(base: Path, tmp_path: Path) -> None:
    model = load(base)
    write_sharded(sharded_state(model, train(model)), tmp_path / "checkpoint", None)
    other = with_lora(base)
    with pytest.raises(ValueError, match="is on one side only"):
        load_sharded(tmp_path / "checkpoint", other, train(other), None)
    with pytest.raises(ValueError, match=r"it has no \.metadata"):
        load_sharded(tmp_path, other, train(other), None)


def test_copies_do_not_follow_the_model(base: Path) -> None:
    model = load(base)
    state = sharded_state(model, train(model))
    before = state["model"]["model.norm.weight"].clone()
    moment = state["optimizer"]["state"]["model.norm.weight"]["exp_avg"].clone()
    train(model)
    assert torch.equal(state["model"]["model.norm.weight"], before)
    assert not torch.equal(model.model.norm.weight, before)
    assert torch.equal(state["optimizer"]["state"]["model.norm.weight"]["exp_avg"], moment)


def test_adapters_of_other_kinds_are_refused(base: Path, tmp_path: Path) -> None:
    model = with_lora(base)
    export_adapter(full_weights(model), model.peft_config["default"], base, str(tmp_path / "adapter"))
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    with pytest.raises(AdapterError, match="only plain LoRA is merged, this one uses use_dora"):
        export_merged(tmp_path / "adapter", base, str(tmp_path / "merged"))
