import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse.models import checkpoint
from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.structure.tags import TAGS
from tests.unit.models.tiny_model import copy_model, edit_json, write_base


def test_the_prepared_directory_opens_in_transformers_and_gives_the_bases_logits(base: Path, prepared: Path) -> None:
    before, after = (AutoModelForCausalLM.from_pretrained(directory) for directory in (base, prepared))
    ids = torch.tensor([[5, 60, 200]])
    assert after.config.vocab_size == 320
    assert torch.equal(after(ids).logits[..., :290], before(ids).logits[..., :290])


def test_config_changes_in_the_vocabulary_size_only(base: Path, prepared: Path) -> None:
    before, after = (json.loads((directory / "config.json").read_text()) for directory in (base, prepared))
    assert after == {**before, "vocab_size": 320}


def test_every_tag_is_one_special_token(prepared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(prepared)
    tag_ids = Manifest.load(prepared).tag_ids
    assert list(tag_ids.values()) == list(range(290, 302))
    for tag, id in tag_ids.items():
        assert tokenizer(f"a{tag}b", add_special_tokens=False)["input_ids"][1:-1] == [id]
        assert tokenizer.decode([id]) == tag
        assert id not in tokenizer(tag, split_special_tokens=True)["input_ids"]


def test_the_manifest_says_what_was_made(base: Path, prepared: Path) -> None:
    manifest = Manifest.load(prepared)
    assert (manifest.source, manifest.tokens, manifest.vocab_size, manifest.trained) == (str(base), 302, 320, False)
    tokenizer = AutoTokenizer.from_pretrained(prepared)
    spaces = {tokenizer.decode([id]) for id in manifest.space_ids}
    assert {" ", "\n", "\t"} <= spaces
    assert all(text.isspace() for text in spaces)


def test_generation_config_and_chat_template_are_kept(base: Path, prepared: Path) -> None:
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (prepared / name).read_bytes() == (base / name).read_bytes()


def test_an_untied_head_gets_rows_of_its_own(tmp_path: Path) -> None:
    weights = _weights(prepare(str(write_base(tmp_path / "base", tied=False)), tmp_path / "out"))
    head, embedding = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    assert head.shape == embedding.shape == (320, 64)
    assert len(torch.unique(head[290:302], dim=0)) == len(torch.unique(embedding[290:302], dim=0)) == 12
    assert head.dtype == torch.bfloat16


def test_shards_keep_their_names_and_get_an_index(base: Path, tmp_path: Path) -> None:
    source = copy_model(base, tmp_path / "sharded")
    weights = _weights(source)
    (source / "model.safetensors").unlink()
    first = {name: tensor for name, tensor in weights.items() if "layers.1" not in name}
    save_file(first, source / "model-00001-of-00002.safetensors")
    save_file(
        {name: weights[name] for name in weights.keys() - first.keys()}, source / "model-00002-of-00002.safetensors"
    )
    out = prepare(str(source), tmp_path / "out")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["model.embed_tokens.weight"] == "model-00001-of-00002.safetensors"
    assert index["weight_map"]["model.layers.1.mlp.up_proj.weight"] == "model-00002-of-00002.safetensors"
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 320


def test_a_source_with_tags_keeps_its_rows_and_counts_as_trained(prepared: Path, tmp_path: Path) -> None:
    source = copy_model(prepared, tmp_path / "tagged")
    (source / "multiverse.json").unlink()
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    for entry in tokenizer["added_tokens"]:
        entry["special"] = entry["id"] < 2
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    out = prepare(str(source), tmp_path / "out", dtype="float32")
    name = "model.embed_tokens.weight"
    assert torch.equal(_weights(out)[name], _weights(prepared)[name])
    assert Manifest.load(out).trained
    assert Manifest.load(out).tag_ids == Manifest.load(prepared).tag_ids
    path = Manifest.load(out).tag_ids["<Path>"]
    assert path not in AutoTokenizer.from_pretrained(out)("<Path>", split_special_tokens=True)["input_ids"]


def test_a_source_with_a_manifest_is_as_trained_as_that_says(prepared: Path, tmp_path: Path) -> None:
    assert not Manifest.load(prepare(str(prepared), tmp_path / "again")).trained


def test_tokenizer_files_of_transformers_4_get_the_tags_too(base: Path, tmp_path: Path) -> None:
    source = copy_model(base, tmp_path / "old")
    special = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    decoder = {"0": {"content": "<|im_start|>", **special}, "1": {"content": "<|im_end|>", **special}}
    edit_json(source / "tokenizer_config.json", added_tokens_decoder=decoder, tokenizer_class="PreTrainedTokenizerFast")
    tokenizer = AutoTokenizer.from_pretrained(prepare(str(source), tmp_path / "out"))
    assert tokenizer("<Path>")["input_ids"] == [298]
    assert tokenizer.added_tokens_decoder[298].special


def test_a_second_call_changes_nothing(base: Path, prepared: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()}
    assert prepare(str(base), prepared, dtype="float32") == prepared
    assert {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_the_default_directory_is_cached_under_multiverse_home(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIVERSE_HOME", str(tmp_path / "home"))
    bf16, again, fp32 = prepare(str(base)), prepare(str(base)), prepare(str(base), dtype="float32")
    assert bf16 == again != fp32
    assert bf16.parent == tmp_path / "home" / "models"


def test_a_changed_source_is_prepared_anew(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIVERSE_HOME", str(tmp_path / "home"))
    source = copy_model(base, tmp_path / "source")
    before = prepare(str(source))
    weights = _weights(source)
    weights["model.norm.weight"] += 1
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    assert prepare(str(source)) != before


def test_what_else_lies_in_the_directory_is_never_overwritten(base: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for occupied in (tmp_path, prepared):
        with pytest.raises(FileExistsError, match="holds something else than this source, dtype and seed give"):
            prepare(str(base), occupied, seed=5)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failed_run_leaves_no_directory(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "write_tokenizer", disk_full)
    with pytest.raises(OSError, match="no space left"):
        prepare(str(base), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]


def test_what_a_killed_run_left_is_cleared_away(base: Path, tmp_path: Path) -> None:
    left = tmp_path / ".out.partial" / "target"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    out = prepare(str(base), tmp_path / "out")
    assert Manifest.load(out).tokens == 302
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "out"]


def test_two_at_once_prepare_one_directory(base: Path, tmp_path: Path) -> None:
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(prepare(str(base), tmp_path / "out"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "out"] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MistralForCausalLM"]}, r"\['MistralForCausalLM'\] is not supported; LlamaForCausalLM,"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
    ],
)
def test_an_unsupported_model_is_refused_with_the_reason(
    base: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    source = copy_model(base, tmp_path / "source")
    edit_json(source / "config.json", **changes)
    with pytest.raises(checkpoint.UnsupportedModelError, match=message):
        prepare(str(source), tmp_path / "out")


def test_a_tokenizer_that_is_not_byte_level_is_refused(base: Path, tmp_path: Path) -> None:
    source = copy_model(base, tmp_path / "source")
    edit_json(source / "tokenizer.json", decoder={"type": "Fuse"})
    with pytest.raises(checkpoint.UnsupportedModelError, match="the tokenizer is BPE with decoder Fuse"):
        prepare(str(source), tmp_path / "out")


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.UnsupportedModelError, match=r"there is no config\.json"):
        prepare(str(tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("builtin:gpt5", "there is no builtin:gpt5; there are builtin:smollm2-135m, builtin:multiverse-smollm2-135m"),
        ("/no/such/directory", "is neither a directory, nor a hub id"),
    ],
)
def test_an_unknown_source_says_what_would_be_one(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(source, tmp_path / "out")


def test_an_unknown_dtype_names_the_known_ones(base: Path) -> None:
    with pytest.raises(ValueError, match="dtype is 'int8'; it must be one of bfloat16, float16, float32"):
        prepare(str(base), dtype="int8")


def test_the_tag_ids_follow_the_order_of_the_tags(prepared: Path) -> None:
    assert list(Manifest.load(prepared).tag_ids) == list(TAGS)


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    return {name: t for shard in directory.glob("*.safetensors") for name, t in load_file(shard).items()}
