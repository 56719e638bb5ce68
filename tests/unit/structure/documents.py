"""Whole documents as trees, placed by recursion on the tree (not with intervals), and damaged ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from multiverse.structure.tags import TAGS, Vocabulary

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties of documents: on a busy machine one example may take long."""

VOCABULARY = Vocabulary(tag_ids={tag: int(kind) for tag, kind in TAGS.items()}, space_ids=frozenset({1}), size=14)
"""Token ids that are the kinds themselves; text is 0."""


@dataclass(frozen=True)
class Fork:
    """A block of a tree. ``spaced``: white space before every path and the conclusion."""

    branches: tuple["Body", ...]
    spaced: bool
    conclusion: tuple[str, ...]


Body = tuple["str | Fork", ...]

_WORD = st.sampled_from(["a", "b", " ", "\n"])
_PLAIN: st.SearchStrategy[Body] = st.lists(_WORD, max_size=4).map(tuple)


def _forking(inner: st.SearchStrategy[Body]) -> st.SearchStrategy[Body]:
    fork = st.builds(Fork, st.lists(inner, min_size=1, max_size=3).map(tuple), st.booleans(), _PLAIN)
    return st.lists(_WORD | fork, max_size=4).map(tuple)


BODIES: st.SearchStrategy[Body] = st.recursive(_PLAIN, _forking, max_leaves=8)


@dataclass
class Placed:
    """Words with their positions; ``branches``: for each word the (block, branch) pairs it is in."""

    words: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[dict[int, int]] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    next_position: int = 0

    def visible(self) -> list[str]:
        """Row q, column k: "1" if word q sees word k."""
        return ["".join(self._sees(query, key) for key in range(query + 1)) for query in range(len(self.words))]

    def _sees(self, query: int, key: int) -> str:
        own, other = self.branches[query], self.branches[key]
        return str(int(all(own[block] == other[block] for block in own.keys() & other.keys())))

    def body(self, body: Body, at: int, inside: dict[int, int]) -> int:
        for item in body:
            at = self._fork(item, at, inside) if isinstance(item, Fork) else self._write([item], at, inside)
        return at

    def _write(self, words: Sequence[str], at: int, inside: dict[int, int]) -> int:
        self.words += words
        self.positions += range(at, at + len(words))
        self.branches += [inside] * len(words)
        return at + len(words)

    def _fork(self, fork: Fork, at: int, inside: dict[int, int]) -> int:
        block, space = len(self.widths), ["\n"] * fork.spaced
        self.widths.append(len(fork.branches))
        outlines = [word for i in range(len(fork.branches)) for word in ("<Outline>", f"{i + 1}:", "</Outline>")]
        at = self._write(["<Parallel>", *space, "<Goal>", *outlines, "</Goal>"], at, inside)
        ends = []
        for i, branch in enumerate(fork.branches):
            own = inside | {block: i}
            end = self.body(branch, self._write([*space, "<Path>", f"{i + 1}:"], at, own), own)
            ends.append(self._write(["</Path>"], end, own))
        return self._write(
            [*space, "<Conclusion>", *fork.conclusion, "</Conclusion>", "</Parallel>"], max(ends), inside
        )


def place(body: Body) -> Placed:
    placed = Placed()
    placed.next_position = placed.body(body, 0, {})
    return placed


DOCUMENTS = BODIES.map(place)

_OPENING = ["<Parallel>", "\n", "<Goal>", "<Outline>", "a", "</Outline>", "<Outline>", "</Outline>", "</Goal>"]
_PIECES = [_OPENING, ["<Path>", "a"], ["</Path>"], ["a"], [" "], ["<Parallel>", "<Goal>"], *([tag] for tag in TAGS)]
_SOUP = st.lists(st.sampled_from(_PIECES), max_size=16).map(lambda pieces: [word for piece in pieces for word in piece])


@st.composite
def _damaged(draw: st.DrawFn) -> list[str]:
    words = list(draw(DOCUMENTS).words)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(words)))
        words[at : at + draw(st.integers(0, 2))] = draw(st.lists(st.sampled_from(["a", " ", *TAGS]), max_size=2))
    return words


SOUP = _SOUP | _damaged()
"""Words in which anything may be out of place."""
