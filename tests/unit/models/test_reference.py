from pathlib import Path
from typing import Any

import pytest
import torch

from multiverse.models.manifest import Manifest
from multiverse.models.reference import layout_logits, load_reference
from multiverse.models.tokens import Tokens
from multiverse.structure.layout import layout
from multiverse.structure.tags import Vocabulary

OPENING = "one<Parallel>\n<Goal>\n{}</Goal>"
OUTLINE = "<Outline>\nthe\n</Outline>\n"
CLOSING = "\n<Conclusion>\nfour\n</Conclusion>\n</Parallel>\nand"


@pytest.fixture(scope="module")
def model(prepared: Path) -> Any:
    return load_reference(prepared)


@pytest.fixture(scope="module")
def vocabulary(prepared: Path) -> Vocabulary:
    return Manifest.load(prepared).vocabulary()


def test_a_block_of_one_branch_is_plain_causal_text(model: Any, tokens: Tokens, vocabulary: Vocabulary) -> None:
    ids = tokens.encode_structured(OPENING.format(OUTLINE) + "\n<Path>\n1: one\n</Path>" + CLOSING)
    with torch.inference_mode():
        causal = model(input_ids=torch.tensor([ids])).logits[0]
    assert _difference(layout_logits(model, ids, layout(vocabulary.kinds(ids))), causal) < 1e-5


def test_a_branch_is_computed_as_if_it_were_alone(model: Any, tokens: Tokens, vocabulary: Vocabulary) -> None:
    prefix, branches, ids = _three_branches(tokens)
    logits = layout_logits(model, ids, layout(vocabulary.kinds(ids)))
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([prefix + branches[1]])).logits[0]
        causal = model(input_ids=torch.tensor([ids])).logits[0]
    start = len(prefix) + len(branches[0])
    second = slice(start, start + len(branches[1]))
    assert _difference(logits[second], alone[len(prefix) :]) < 1e-4
    assert _difference(logits[second], causal[second]) > 1e-2


def test_what_follows_the_join_sees_every_branch(model: Any, tokens: Tokens, vocabulary: Vocabulary) -> None:
    prefix, branches, ids = _three_branches(tokens)
    before = layout_logits(model, ids, layout(vocabulary.kinds(ids)))[-1]
    start = len(prefix)
    for branch in branches:
        changed = list(ids)
        changed[start + 5] = tokens.encode_plain("z")[0]
        assert changed != ids
        assert _difference(layout_logits(model, changed, layout(vocabulary.kinds(changed)))[-1], before) > 1e-3
        start += len(branch)


def test_logits_are_float32_for_a_bfloat16_model(prepared: Path, tokens: Tokens, vocabulary: Vocabulary) -> None:
    _, _, ids = _three_branches(tokens)
    logits = layout_logits(load_reference(prepared, torch.bfloat16), ids, layout(vocabulary.kinds(ids)))
    assert (logits.dtype, logits.shape) == (torch.float32, (len(ids), 320))


def _three_branches(tokens: Tokens) -> tuple[list[int], list[list[int]], list[int]]:
    prefix = tokens.encode_structured(OPENING.format(3 * OUTLINE))
    texts = ("1: one and two", "2: three", "3: sum of four, find it")
    branches = [tokens.encode_structured(f"\n<Path>\n{text}\n</Path>") for text in texts]
    spans = [prefix, *branches, tokens.encode_structured(CLOSING)]
    return prefix, branches, [token for span in spans for token in span]


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
