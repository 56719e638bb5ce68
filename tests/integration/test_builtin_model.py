"""The builtin model, prepared for real, against transformers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from multiverse.models.adapters import MergedWeights
from multiverse.models.builtin import adapter_directory
from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.models.reference import layout_logits, load_reference
from multiverse.models.tokens import Tokens
from multiverse.models.weights import BaseWeights
from multiverse.structure.layout import layout

pytestmark = pytest.mark.slow
OPENING = (
    "Let's think in parallel.\n<Parallel>\n<Goal>\n<Outline>\n1: add\n</Outline>\n<Outline>\n2: multiply\n</Outline>\n"
    "<Outline>\n3: compare\n</Outline>\n</Goal>"
)
BRANCHES = (
    "\n<Path>\n1: 17 + 25 = 42.\n</Path>",
    "\n<Path>\n2: 6 times 7 is 42, too.\n</Path>",
    "\n<Path>\n3: they are equal\n</Path>",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("builtin:smollm2-135m", tmp_path_factory.mktemp("builtin") / "model", dtype="float32")


def test_its_vocabulary_is_the_bases_and_twelve_tags(prepared: Path) -> None:
    manifest = Manifest.load(prepared)
    assert (manifest.tokens, manifest.vocab_size, manifest.trained) == (49164, 49216, False)
    assert sorted(manifest.tag_ids.values()) == list(range(49152, 49164))


def test_each_digit_is_a_token_as_in_the_models_own_tokenizer(prepared: Path) -> None:
    tokens = Tokens.load(prepared)
    pieces = [tokens.decode([id]) for id in tokens.encode_plain("a  12\n\n1: 2025")]
    assert pieces == ["a", "  ", "1", "2", "\n\n", "1", ":", " ", "2", "0", "2", "5"]


def test_a_chat_is_what_transformers_renders(prepared: Path) -> None:
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    expected = AutoTokenizer.from_pretrained(prepared).apply_chat_template(messages, add_generation_prompt=True)
    tokens = Tokens.load(prepared)
    assert tokens.chat(messages) == expected["input_ids"]
    assert tokens.eos_ids == (2,)


def test_it_still_answers(prepared: Path) -> None:
    model, tokens = load_reference(prepared), Tokens.load(prepared)
    prompt = tokens.chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}])
    output = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert "Paris" in tokens.decode(output.tolist())


def test_a_branch_is_computed_as_if_it_were_alone(prepared: Path) -> None:
    model, tokens, vocabulary = load_reference(prepared), Tokens.load(prepared), Manifest.load(prepared).vocabulary()
    prefix = tokens.encode_structured(OPENING)
    first, second, third = map(tokens.encode_structured, BRANCHES)
    ids = [*prefix, *first, *second, *third, *tokens.encode_structured("\n<Conclusion>\nequal")]
    logits = layout_logits(model, ids, layout(vocabulary.kinds(ids)))
    start = len(prefix) + len(first)
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([prefix + second])).logits[0, len(prefix) :]
        causal = model(input_ids=torch.tensor([ids])).logits[0, start : start + len(second)]
    branch = logits[start : start + len(second)]
    assert (branch - alone).abs().max() < 1e-3
    assert (branch - causal).abs().max() > 1


@pytest.mark.parametrize(
    ("name", "trained"), [("multiverse-smollm2-135m", True), ("multiverse-smollm2-135m-ar", False)]
)
def test_the_trained_ones_are_the_base_with_an_adapter(
    prepared: Path, tmp_path: Path, name: str, trained: bool
) -> None:
    adapter = adapter_directory(name)
    assert sum(path.stat().st_size for path in adapter.iterdir()) < 8_000_000
    assert "Seed 0" in (adapter / "README.md").read_text(encoding="utf-8")
    merged = prepare(f"builtin:{name}", tmp_path / "model", dtype="float32")
    assert Manifest.load(merged).trained is trained
    assert prepare(f"builtin:{name}", tmp_path / "model", dtype="float32") == merged
    weights, base = BaseWeights(merged), BaseWeights(prepared)
    assert weights.keys() == base.keys()
    changed = {weight for weight in base if not torch.equal(weights[weight], base[weight])}
    assert changed == set(MergedWeights(adapter, base))
    embedding = "model.embed_tokens.weight"
    rows = (weights[embedding] != base[embedding]).any(dim=1).nonzero().flatten().tolist()
    assert set(rows) <= set(Manifest.load(prepared).tag_ids.values())
