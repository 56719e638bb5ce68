"""The attention of the layout against a brute-force one, forward and gradients."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from transformers import LlamaConfig, LlamaForCausalLM

from multiverse.training import attention
from multiverse.training.attention import NAME, Visibility, inputs
from multiverse.training.examples import Example
from multiverse.training.packing import Batch
from tests.unit.structure.documents import DOCUMENTS, PATIENT, Placed
from tests.unit.training.placed_examples import VOCABULARY, example, matrix

CLOSE = 1e-5
"""Largest difference, float32."""


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    """Computed in one thread: it is so small that others only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        attn_implementation=NAME,
    )
    yield LlamaForCausalLM(config).train()
    torch.set_num_threads(threads)


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several masked runs even for short texts, some of them without the keys of siblings."""
    monkeypatch.setattr(attention, "_RUN", 3)
    monkeypatch.setattr(attention, "_BRANCH", 4)


def outcome(model: Any, arguments: dict[str, Any], labels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and the gradients of a loss on ``labels``."""
    model.zero_grad()
    logits = model(**arguments).logits[0]
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    return logits.detach(), [weight.grad.clone() for weight in model.parameters()]


def brute_force(model: Any, batch: Batch, seen: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The same with the whole mask in transformers' eager attention."""
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
    model.set_attn_implementation("eager")
    try:
        arguments = {"input_ids": batch.ids[None], "position_ids": batch.positions[None], "attention_mask": mask}
        return outcome(model, arguments, batch.labels)
    finally:
        model.set_attn_implementation(NAME)


def agrees(model: Any, examples: Sequence[Example], seen: torch.Tensor) -> None:
    batch = Batch.of(examples)
    logits, gradients = outcome(model, inputs(batch), batch.labels)
    expected, expected_gradients = brute_force(model, batch, seen)
    torch.testing.assert_close(logits, expected, atol=CLOSE, rtol=CLOSE)
    for found, right in zip(gradients, expected_gradients, strict=True):
        scale = max(1.0, float(right.abs().max()))
        torch.testing.assert_close(found / scale, right / scale, atol=CLOSE, rtol=CLOSE)


def test_what_a_token_sees_shows_in_its_logits(model: Any) -> None:
    batch = nested(branch=10)
    logits, _ = outcome(model, inputs(batch), batch.labels)
    everything = torch.block_diag(torch.ones(7, 7), torch.ones(len(batch) - 7, len(batch) - 7)).tril().bool()
    causal, _ = brute_force(model, batch, everything)
    assert float((logits - causal).abs().max()) > 0.01


def golden(shared: Path) -> Iterator[tuple[list[str], list[str]]]:
    for name in ("layout_cases.jsonl", "layout_soup.jsonl"):
        for line in (shared / "golden" / name).read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            yield case["tokens"], case["visible"]


def test_golden_cases(model: Any, shared: Path, short_runs: None) -> None:
    cases = list(golden(shared))
    assert len(cases) == 48
    for words, rows in cases:
        agrees(model, [example(words)], matrix(rows))


def test_golden_cases_packed(model: Any, shared: Path, short_runs: None) -> None:
    cases = list(golden(shared))
    for start in range(0, 48, 4):
        some = cases[start : start + 4]
        agrees(model, [example(words) for words, _ in some], matrix(*(rows for _, rows in some)))


@settings(PATIENT, max_examples=50)
@given(DOCUMENTS.filter(lambda document: len(document.words) > 1))
def test_nested_documents_alone_and_packed(model: Any, document: Placed) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_RUN", 3)
        patch.setattr(attention, "_BRANCH", 4)
        whole, plain = example(document.words), example(["a", "b", "c"])
        agrees(model, [whole], matrix(document.visible()))
        rows = (document.visible(), ["1", "11", "111"], document.visible())
        agrees(model, [whole, plain, whole], matrix(*rows))


def visibility(batch: Batch) -> Visibility:
    return Visibility(batch.starts, batch.hidden)


def nested(branch: int) -> Batch:
    """Two examples, the second one with a block in a branch of a block."""
    goal = ["<Parallel>", "<Goal>", "<Outline>", "</Outline>", "<Outline>", "</Outline>", "</Goal>"]
    end = ["<Conclusion>", "</Conclusion>", "</Parallel>"]
    path = ["<Path>", *["a"] * branch, "</Path>"]
    inner = [*goal, *path, *path, *end]
    words = ["q", *goal, "<Path>", *inner, "</Path>", *path, *end, "z"]
    return Batch.of([example(["p"] * 7), example(words)])


def test_rows_without_hidden_keys_are_plainly_causal() -> None:
    runs = visibility(Batch.of([example(["a"] * 600), example(["b"] * 500)])).runs(torch.float32)
    assert [(run.start, run.end, run.keys, run.mask) for run in runs] == [
        (0, 600, ((0, 600),), None),
        (600, 1100, ((600, 1100),), None),
    ]


def test_keys_of_siblings_are_left_out() -> None:
    goal = ["<Parallel>", "<Goal>", *["<Outline>", "</Outline>"] * 3, "</Goal>"]
    words = [*goal, *(["<Path>", *["a"] * 98, "</Path>"] * 3), *["b"] * 300]
    runs = visibility(Batch.of([example(words)])).runs(torch.float32)
    assert [(run.start, run.end, run.keys) for run in runs] == [
        (0, 109, ((0, 109),)),
        (109, 209, ((0, 9), (109, 209))),
        (209, 309, ((0, 9), (209, 309))),
        (309, 565, ((0, 565),)),
        (565, 609, ((0, 609),)),
    ]


@pytest.mark.parametrize("branch", [5, 90, 200])
def test_the_masks_of_runs_and_the_block_mask_tell_the_same(branch: int) -> None:
    batch = nested(branch)
    seen = visibility(batch)
    dense = torch.zeros(len(batch), len(batch), dtype=torch.bool)
    for run in seen.runs(torch.float32):
        rows = run.end - run.start
        keys = torch.cat([torch.arange(*one) for one in run.keys])
        part = torch.ones(rows, rows, dtype=torch.bool).tril() if run.mask is None else run.mask == 0
        dense[run.start : run.end, keys] = part
    assert torch.equal(create_mask(seen.mask_mod(), 1, 1, len(batch), len(batch), device="cpu")[0, 0], dense)
    assert not dense.equal(torch.ones_like(dense).tril())
    blocks = seen.block_mask().to_dense()[0, 0].bool()
    assert torch.equal(blocks, blocks_of(dense, 128))


def blocks_of(dense: torch.Tensor, size: int) -> torch.Tensor:
    """Which blocks of ``size`` hold anything."""
    padding = -len(dense) % size
    padded = torch.nn.functional.pad(dense, (0, padding, 0, padding))
    count = len(padded) // size
    return padded.view(count, size, count, size).any(3).any(1)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_the_same() -> None:
    torch.manual_seed(0)
    batch = nested(branch=60)
    seen = visibility(batch)
    query, key, value = (torch.randn(1, heads, len(batch), 16) for heads in (4, 2, 2))
    module = torch.nn.Identity()
    with torch.no_grad():
        ours, _ = attention.attention(module, query, key, value, None, visibility=seen)
        flex = flex_attention(query, key, value, block_mask=seen.block_mask(), enable_gqa=True)
    torch.testing.assert_close(ours, flex.transpose(1, 2), atol=CLOSE, rtol=CLOSE)


def test_on_cuda_it_is_flex_attention_with_a_block_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def compile_and_call(function: Any) -> Any:
        compiled.append(function)
        return lambda *_, **__: torch.empty(1, 4, 8, 16)

    monkeypatch.setattr(attention, "_compiled", compile_and_call)
    with FakeTensorMode():
        query = torch.empty(1, 4, 8, 16, device="cuda")
        seen = Visibility(torch.empty(8, dtype=torch.int32, device="cuda"), torch.empty(8, 1, 2, device="cuda"))
        attention.attention(torch.nn.Identity(), query, query, query, None, visibility=seen)
    assert compiled == [flex_attention, create_block_mask]


def test_masks_are_made_once_for_a_forward(model: Any) -> None:
    arguments = inputs(nested(branch=20))
    model(**arguments)
    made = arguments["visibility"].runs(torch.float32)
    model(**arguments)
    assert arguments["visibility"].runs(torch.float32) is made


def test_masks_are_made_once_under_fsdp_and_checkpointing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = copy.deepcopy(model)
    sharded.gradient_checkpointing_enable({"use_reentrant": False})
    made: list[torch.dtype] = []
    make = Visibility._mask

    def counted(self: Visibility, start: int, end: int, ranges: Any, dtype: torch.dtype) -> torch.Tensor:
        made.append(dtype)
        return make(self, start, end, ranges, dtype)

    monkeypatch.setattr(Visibility, "_mask", counted)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for module in (*sharded.model.layers, sharded):
            fully_shard(module, mesh=mesh, mp_policy=policy)
        batch = nested(branch=10)
        logits = sharded(**inputs(batch)).logits[0]
        torch.nn.functional.cross_entropy(logits.float(), batch.labels).backward()
    finally:
        dist.destroy_process_group()
    assert made == [torch.bfloat16]


def test_masks_take_less_than_a_fifth_of_a_whole_one_in_float32() -> None:
    batch = nested(branch=500)
    seen = visibility(batch)
    seen.runs(torch.bfloat16)
    assert seen.mask_bytes() < 4 * len(batch) ** 2 / 5


def test_activation_checkpointing_changes_nothing(model: Any) -> None:
    batch = nested(branch=10)
    plain = outcome(model, inputs(batch), batch.labels)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        checkpointed = outcome(model, inputs(batch), batch.labels)
    finally:
        model.gradient_checkpointing_disable()
    assert torch.equal(plain[0], checkpointed[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], checkpointed[1], strict=True))


def test_without_visibility_it_refuses(model: Any) -> None:
    with pytest.raises(ValueError, match="takes what tokens see as visibility"):
        model(input_ids=torch.zeros(1, 3, dtype=torch.int64))


def test_a_sequence_of_another_length_is_refused(model: Any) -> None:
    arguments = inputs(nested(branch=1)) | {"input_ids": torch.zeros(1, 3, dtype=torch.int64), "position_ids": None}
    with pytest.raises(ValueError, match="one packed sequence of 40 tokens and no dropout, not 1 of 3"):
        model(**arguments)
