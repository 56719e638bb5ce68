"""What the model is made to write: for each stretch of an answer of a given shape, the tokens that follow.

    prompt | <Parallel> ... </Goal>           stretch 1, behind the prompt
           | \\n <Path> \\n 1: | text </Path>   stretch 2, behind what branch 1 sees when it begins
           | ... | \\n <Conclusion> | text     stretch 4, behind the join

A stretch is found by what stands before it from the end of the prompt on, so that one script serves all requests of a
batch, and a request that was cut off goes on where it was.
"""

import hashlib
import itertools
import json
import os
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multiverse.evaluation.speed.shape import OVERHEAD, Shape
from multiverse.models.tokens import Tokens
from multiverse.serving.sequencing.pieces import encode


def key(tokens: Sequence[int]) -> str:
    """A name of ``tokens``, the same in every process."""
    return hashlib.blake2b(array("q", tokens).tobytes(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Script:
    """start: tokens before the answer, the same for all requests. stretches: by `key`, what follows."""

    start: int
    stretches: dict[str, tuple[int, ...]]

    def following(self, prompt: Sequence[int]) -> tuple[int, ...] | None:
        """What the model writes behind ``prompt``; None where the script does not say."""
        answer = prompt[self.start :]
        for cut in range(len(answer) + 1):
            begun = len(answer) - cut
            stretch = self.stretches.get(key(answer[:begun]))
            if stretch is not None:
                return stretch[cut:] if stretch[:cut] == tuple(answer[begun:]) else None
        return None

    def save(self, path: Path) -> None:
        """The file appears whole or not at all."""
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps({"start": self.start, "stretches": self.stretches}), encoding="utf-8")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "Script":
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(fields["start"], {name: tuple(ids) for name, ids in fields["stretches"].items()})


@dataclass(frozen=True, slots=True)
class Written:
    """An answer. tokens: all of it, in reading order. goal: how many of them lie before its first ``</Goal>``.
    stretches: see `Script`."""

    tokens: tuple[int, ...]
    goal: int
    stretches: dict[str, tuple[int, ...]]

    def script(self, start: int) -> Script:
        return Script(start, self.stretches)


@dataclass(slots=True)
class Writer:
    """Writes answers of given shapes in random words. Deterministic for a seed.

    Each word is one token and stays so when the text is tokenized again.
    """

    tokens: Tokens
    seed: int = 0
    _draw: random.Random = field(init=False)
    _words: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        ids = self.tokens.vocabulary.ordinary_ids
        self._words = [id for id in ids if self._stays_one(id)]

    def _stays_one(self, id: int) -> bool:
        text = self.tokens.decode([id])
        return text[:1] == " " and text[1:].isascii() and text[1:].isalpha()

    def text(self, count: int) -> list[int]:
        return self._draw.choices(self._words, k=count)

    def answer(self, shape: Shape) -> Written:
        """An answer of this shape, with the end of sequence as the last thing that is written."""
        stretches: dict[str, tuple[int, ...]] = {}
        tokens, begun = self._region([], shape, stretches)
        stretches[key(tokens[:begun])] = (*tokens[begun:], self.tokens.eos_ids[0])
        return Written(tuple(tokens), tokens.index(self.tokens.tag("</Goal>")), stretches)

    def _region(
        self, seen: Sequence[int], shape: Shape, stretches: dict[str, tuple[int, ...]]
    ) -> tuple[list[int], int]:
        """The tokens that are seen behind ``shape``, and where in them the last stretch begins, which is the caller's
        to end."""
        tokens, begun = list(seen), len(seen)
        for part in shape.parts:
            if isinstance(part, int):
                tokens += self.text(part)
                continue
            tokens += self._goal(len(part.branches))
            stretches[key(tokens[:begun])] = tuple(tokens[begun:])
            spans = [self._branch(tokens, number, branch, stretches) for number, branch in enumerate(part.branches, 1)]
            tokens += [*itertools.chain(*spans), *encode(self.tokens, ("\n", "<Conclusion>"))]
            begun = len(tokens)
            tokens += [*self.text(part.conclusion), *encode(self.tokens, ("</Conclusion>", "\n", "</Parallel>"))]
        return tokens, begun

    def _branch(
        self, seen: Sequence[int], number: int, shape: Shape, stretches: dict[str, tuple[int, ...]]
    ) -> list[int]:
        head = encode(self.tokens, ("\n", "<Path>", "\n", f"{number}:"))
        # The head's line break and label are part of what the shape counts as text.
        parts, spare = list(shape.parts), len(head) - OVERHEAD + 1
        if parts and isinstance(parts[0], int):
            parts[0] = max(1, parts[0] - spare)
        tokens, begun = self._region([*seen, *head], Shape(tuple(parts)), stretches)
        tokens.append(self.tokens.tag("</Path>"))
        stretches[key(tokens[:begun])] = tuple(tokens[begun:])
        return tokens[len(seen) :]

    def _goal(self, width: int) -> list[int]:
        goal = encode(self.tokens, ("<Parallel>", "\n", "<Goal>", "\n"))
        for number in range(1, width + 1):
            goal += encode(self.tokens, ("<Outline>", "\n", f"{number}:"))
            goal += [*self.text(3), *encode(self.tokens, ("\n", "</Outline>", "\n"))]
        return [*goal, self.tokens.tag("</Goal>")]
