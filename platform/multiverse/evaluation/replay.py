"""Continue a structured document at its forks and joins, and say what the layout's forward says about the same tokens.

A *probe* is a place in a document from which tokens are generated greedily: behind the header of a branch, or behind a
join. What a probe may see is the document up to it, without the branches its place hides. The reference is one
transformers forward over the document with all continuations appended, each seeing what its probe sees:

    keys      document ........................ | continuation of probe a | continuation of probe b
    query of a  visible as from a's place         causal                    hidden
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from multiverse.models.reference import visible
from multiverse.structure.layout import Layout, layout
from multiverse.structure.tags import Kind, Vocabulary


@dataclass(frozen=True, slots=True)
class Probe:
    """``place``: index of the last document token before the continuation."""

    kind: Literal["branch", "join"]
    place: int


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids of one structured document with its layout and probes."""

    name: str
    tokens: tuple[int, ...]
    layout: Layout
    probes: tuple[Probe, ...]

    @classmethod
    def of(cls, name: str, tokens: Sequence[int], vocabulary: Vocabulary, header: int) -> "Document":
        """A probe per branch, ``header`` tokens behind its ``<Path>``, and one per join behind its ``<Conclusion>``."""
        kinds = vocabulary.kinds(list(tokens))
        placed = layout(kinds)
        probes = []
        for block in placed.blocks:
            for span in filter(lambda span: span.closed, block.spans):
                path = span.start + int(np.argmax(kinds[span.start : span.end] == Kind.PATH))
                probes.append(Probe("branch", min(path + header, span.end - 2)))
            if block.end is not None:
                rest = kinds[block.end : block.end + 4]
                behind = int(np.argmax(rest == Kind.CONCLUSION)) if (rest == Kind.CONCLUSION).any() else 0
                probes.append(Probe("join", min(block.end + behind, len(tokens) - 1)))
        return cls(name, tuple(tokens), placed, tuple(probes))

    def seen(self, place: int) -> np.ndarray:
        """Indices of the tokens that the token at ``place`` sees, itself included, int64."""
        shown = np.ones(place + 1, dtype=bool)
        for start, stop in self.layout.hidden(place):
            shown[start:stop] = False
        return np.flatnonzero(shown)

    def prompt(self, probe: Probe) -> list[int]:
        """The token ids a continuation of ``probe`` is asked for with."""
        return [self.tokens[index] for index in self.seen(probe.place)]


def whole_blocks(tokens: Sequence[int], vocabulary: Vocabulary, limit: int) -> list[int]:
    """The beginning of a document of at most ``limit`` tokens that ends behind a block of the outermost depth; where
    not even the first one fits, behind the last branch that does. Raises ValueError if there is none."""
    if len(tokens) <= limit:
        return list(tokens)
    placed = layout(vocabulary.kinds(list(tokens)))
    outermost = [block for block in placed.blocks if block.depth == min(block.depth for block in placed.blocks)]
    kinds = vocabulary.kinds(list(tokens))
    ends = []
    for block in outermost:
        if block.end is not None:
            closing = np.flatnonzero(kinds[block.end :] == Kind.PARALLEL_END)
            ends.append(block.end + int(closing[0]) + 1 if len(closing) else block.end)
    branches = (span.end for block in outermost for span in block.spans if span.closed)
    for places in (ends, branches):
        if fitting := [end for end in places if end <= limit]:
            return list(tokens[: max(fitting)])
    raise ValueError(f"no branch ends within the first {limit} tokens: take more of it (--max-tokens)")


@torch.inference_mode()
def reference_logprobs(
    model: Any, document: Document, continuations: Sequence[Sequence[int]], causal: bool = False
) -> list[torch.Tensor]:
    """Log-probabilities at each continuation's tokens, one ``[len(continuation), vocab] float32`` per probe.

    ``causal``: the control, plain causal attention and positions over the document instead of the layout's.
    """
    count = len(document.tokens)
    total = count + sum(map(len, continuations))
    seen = np.tri(total, dtype=bool)
    positions = np.arange(total)
    if not causal:
        positions[:count] = document.layout.positions
        seen[:count, :count] = visible(document.layout).numpy()
    tokens, rows, begin = list(document.tokens), [], count
    for probe, continuation in zip(document.probes, continuations, strict=True):
        end = begin + len(continuation)
        seen[begin:end, :begin] = False
        seen[begin:end, :count] = seen[probe.place, :count]
        positions[begin:end] = positions[probe.place] + 1 + np.arange(end - begin)
        rows.append([probe.place, *range(begin, end - 1)])
        tokens += continuation
        begin = end
    device = next(model.parameters()).device
    hidden = model.get_decoder()(
        input_ids=torch.tensor([tokens], device=device),
        position_ids=torch.from_numpy(positions)[None].to(device),
        attention_mask=torch.from_numpy(seen)[None, None].to(device),
        use_cache=False,
    ).last_hidden_state[0]
    head = model.get_output_embeddings()
    return [torch.log_softmax(head(hidden[row]).float(), -1).cpu() for row in rows]
