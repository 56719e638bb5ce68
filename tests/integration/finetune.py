"""Fine-tunes a prepared model on a few hundred tasks, in minutes on a CPU: enough for structure, not for answers."""

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from multiverse.models.manifest import Manifest
from multiverse.models.reference import load_reference, visible
from multiverse.models.tokens import Tokens
from multiverse.serving.sequencing.pieces import encode
from multiverse.structure.layout import layout
from multiverse.structure.tags import Vocabulary
from tests.integration.sums import Task

LEARNING_RATE = 2e-4
WARM_UP = 10
"""Steps in which the learning rate rises to its value."""


@dataclass(frozen=True, slots=True)
class Example:
    """ids: prompt, answer and end of sequence. sampled: which of them the model itself writes when serving."""

    ids: list[int]
    sampled: list[bool]


@dataclass(frozen=True, slots=True)
class Training:
    """What a training run did. losses: mean cross-entropy of each step, an example, in nats per token."""

    tokens: int
    seconds: float
    losses: list[float]

    def __str__(self) -> str:
        last = self.losses[-10:]
        return (
            f"{len(self.losses)} examples, {self.tokens} tokens, {self.seconds:.0f} s, "
            f"loss {self.losses[0]:.3f} -> {sum(last) / len(last):.4f}"
        )


def to_example(tokens: Tokens, task: Task) -> Example:
    """Tokenize a task as its tokens come about when serving.

    What the engine writes is tokenized apart from what surrounds it. The model is never asked for that, so it is not
    taught it: what stands before a second branch is the first one's ``</Path>``, from which it does not go on.
    """
    ids = tokens.chat([{"role": "user", "content": task.question}])
    sampled = [False] * len(ids)
    for turn in task.answer:
        more = tokens.encode_structured(turn) if isinstance(turn, str) else encode(tokens, turn)
        ids += more
        sampled += [isinstance(turn, str)] * len(more)
    return Example([*ids, tokens.eos_ids[0]], [*sampled, True])


def finetune(source: Path, target: Path, tasks: Sequence[Task], *, seconds: float, seed: int = 0) -> Training:
    """Train all weights of the prepared checkpoint ``source`` and save them as the trained checkpoint ``target``.

    One pass over ``tasks`` in random order, ended with the step that reaches ``seconds``. A step is one example: on a
    CPU several take as much longer, so they only make for fewer steps, and a loss many times as high.
    """
    tokens, manifest = Tokens.load(source), Manifest.load(source)
    examples = [to_example(tokens, task) for task in tasks]
    random.Random(seed).shuffle(examples)
    model = load_reference(source, torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP)
    losses: list[float] = []
    seen = 0
    began = time.perf_counter()
    for example in examples:
        loss = _loss(model, example, tokens.vocabulary)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        warm_up.step()
        losses.append(loss.item())
        seen += len(example.ids)
        if time.perf_counter() - began >= seconds:
            break
    training = Training(seen, time.perf_counter() - began, losses)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(target)
    replace(manifest, source=str(source), trained=True, fingerprint=f"trained from {manifest.fingerprint}").save(target)
    return training


def _loss(model: Any, example: Example, vocabulary: Vocabulary) -> torch.Tensor:
    """Mean cross-entropy of the sampled tokens, with the layout's positions and visibility."""
    placed = layout(vocabulary.kinds(example.ids))
    ids, positions = torch.tensor(example.ids), torch.from_numpy(placed.positions.astype("int64"))
    mask = visible(placed)[None, None]
    hidden = model.model(input_ids=ids[None], position_ids=positions[None], attention_mask=mask)[0][0]
    targets = torch.tensor(example.sampled).nonzero()[:, 0]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[targets - 1]).float(), ids[targets])
