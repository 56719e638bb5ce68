"""What a language model is asked about a chain, and the strict reading of its answers.

It is asked three times, and answers in JSON each time:

    steps         {"steps": {"1": "Set up", "3": "Try the cases"}, "sub_steps": {"3": "Even n", "7": "Odd n"}}
    dependencies  {"needs": {"1": [], "2": [1], "2.1": [], "2.2": []}, "alternatives": [["2.1", "2.2"], ...]}
    texts         {"blocks": {"1": {"outlines": ["...", "..."], "conclusion": "...", "openings": [...]}, ...}}

Sentences, steps and sub-steps are numbered from 1. A step has the number of the sentence it begins with and reaches to
where the next begins, a sub-step to where the next or the next step begins: so no two of a level overlap, whatever is
answered. Sentences before the first step (of a step: before its first sub-step) stay outside and are sequential. In the
answers behind, "2.1" is the first sub-step of step 2, and what it needs are numbers of its own level.

The schemas leave as little as they can to chance: what constrained decoding lets through is mostly a plan.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multiverse.curation.chain.replies import (
    LONGEST_OPENING,
    OPENING_WORDS,
    BlockReply,
    DependenciesReply,
    OpeningReply,
    PlanError,
    StepsReply,
    TextsReply,
    read_reply,
)
from multiverse.validation import shown


@dataclass(frozen=True, slots=True)
class Step:
    """``sentences[begin:end]``, from 0; ``parts`` lie in it in order, without gaps up to its end."""

    title: str
    begin: int
    end: int
    parts: tuple["Step", ...] = ()


@dataclass(frozen=True, slots=True)
class Links:
    """How the steps of one level hang together, from 0: per step the earlier ones it needs or is an alternative to."""

    needs: tuple[frozenset[int], ...]
    alternatives: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """``parts``: per step the links of its parts."""

    steps: Links
    parts: tuple[Links, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """The first words of a branch, and what is written instead."""

    original: str
    rewrite: str


@dataclass(frozen=True, slots=True)
class BlockTexts:
    """What is written for a block. ``openings``: per branch, None where its first words stay."""

    outlines: tuple[str, ...]
    conclusion: str
    openings: tuple[Opening | None, ...]


def read_steps(reply: str, sentences: int) -> tuple[Step, ...]:
    """The steps of a chain of so many sentences. Raises PlanError for other numbers, and for parts of no step."""
    found = read_reply(StepsReply, reply)
    begins = _starts(found.steps, "steps", sentences)
    parts: list[list[int]] = [[] for _ in begins]
    for begin in _starts(found.sub_steps, "sub_steps", sentences):
        if begin < begins[0]:
            raise PlanError(f"sub_steps has {begin + 1}: must lie in a step, the first begins with {begins[0] + 1}")
        parts[bisect_right(begins, begin) - 1].append(begin)
    steps = []
    for begin, end, inner in zip(begins, [*begins[1:], sentences], parts, strict=True):
        spans = zip(inner, [*inner[1:], end], strict=False)
        within = tuple(Step(found.sub_steps[str(first + 1)], first, last) for first, last in spans)
        steps.append(Step(found.steps[str(begin + 1)], begin, end, within))
    return tuple(steps)


def read_dependencies(reply: str, steps: Sequence[Step]) -> Dependencies:
    """How ``steps`` and their parts hang together.

    Raises PlanError unless each is there, and names earlier ones of its level only.
    """
    found = read_reply(DependenciesReply, reply)
    names = {label(number): number for number in numbers(steps)}
    if missing := [name for name in names if name not in found.needs]:
        raise PlanError(f"needs.{missing[0]} is missing: every step and sub-step must be there, if only with []")
    if unknown := [name for name in found.needs if name not in names]:
        raise PlanError(f"needs has {shown(unknown[0])}: must be one of {', '.join(names)}")
    for name, needs in found.needs.items():
        own = names[name][-1]
        for number in needs:
            if number >= own:
                raise PlanError(f"needs.{name} has {number}: must name earlier ones of its level only, below {own}")
    attempts: dict[tuple[int, ...], set[int]] = {}
    for index, group in enumerate(found.alternatives):
        for name in group:
            if name not in names:
                raise PlanError(f"alternatives[{index}] has {shown(name)}: must be one of {', '.join(names)}")
        first, *others = sorted({names[name] for name in group})
        if any(other[:-1] != first[:-1] for other in others):
            raise PlanError(f"alternatives[{index}] is {shown(group)}: must be of one level and one step")
        for other in others:
            attempts.setdefault(other, set()).add(first[-1])

    def links(above: tuple[int, ...], count: int) -> Links:
        own = [(*above, number) for number in range(1, count + 1)]
        return Links(
            tuple(frozenset(other - 1 for other in found.needs[label(number)]) for number in own),
            tuple(frozenset(other - 1 for other in attempts.get(number, ())) for number in own),
        )

    parts = tuple(links((number,), len(step.parts)) for number, step in enumerate(steps, start=1))
    return Dependencies(links((), len(steps)), parts)


def label(number: tuple[int, ...]) -> str:
    """``(2, 1)``, the first part of the second step, as "2.1"."""
    return ".".join(map(str, number))


def read_texts(reply: str, blocks: Sequence[Sequence[str]]) -> tuple[BlockTexts, ...]:
    """Outlines, conclusion and openings per block.

    blocks: per block, in the order of forks, the first sentence of each branch.
    Raises PlanError if blocks or outlines are too few or too many, or an opening is not how its branch begins.
    """
    found = read_reply(TextsReply, reply).blocks
    names = [str(number) for number in range(1, len(blocks) + 1)]
    if wrong := sorted(found.keys() ^ set(names)):
        raise PlanError(
            f"blocks has {', '.join(found) or 'none'}: must have {', '.join(names) or 'none'}; see {wrong[0]}"
        )
    return tuple(
        _block_texts(found[name], branches, f"blocks.{name}") for name, branches in zip(names, blocks, strict=True)
    )


def _starts(found: Mapping[str, str], where: str, sentences: int) -> list[int]:
    """The sentences that steps begin with, in order, from 0."""
    known = {str(number) for number in range(1, sentences + 1)}
    if unknown := [key for key in found if key not in known]:
        raise PlanError(f"{where} has {shown(unknown[0])}: must be a sentence's number, 1 to {sentences}")
    return sorted(int(key) - 1 for key in found)


def numbers(steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """Of all steps and their parts, from 1, each step before its parts."""
    found: list[tuple[int, ...]] = []
    for number, step in enumerate(steps, start=1):
        found.append((number,))
        found += [(number, part) for part in range(1, len(step.parts) + 1)]
    return found


def _block_texts(found: BlockReply, branches: Sequence[str], where: str) -> BlockTexts:
    outlines = found.outlines
    if len(outlines) != len(branches):
        raise PlanError(f"{where}.outlines has {len(outlines)} items: must have {len(branches)}, one per branch")
    for index, outline in enumerate(outlines):
        if outline in outlines[:index]:
            raise PlanError(f"{where}.outlines[{index}] is {shown(outline)}: must differ from those before it")
    openings: list[Opening | None] = [None] * len(branches)
    for index, opening in enumerate(found.openings):
        at, branch = f"{where}.openings[{index}]", opening.branch
        if branch > len(branches):
            raise PlanError(f"{at}.branch is {branch}: must be at most {len(branches)}")
        if openings[branch - 1] is not None:
            raise PlanError(f"{at}.branch is {branch}: must differ from those before it")
        _check_opening(opening, branches[branch - 1], at)
        openings[branch - 1] = Opening(opening.original, opening.rewrite)
    return BlockTexts(tuple(outlines), found.conclusion, tuple(openings))


def _check_opening(opening: OpeningReply, branch: str, where: str) -> None:
    if not branch.startswith(opening.original):
        begins = shown(branch[:LONGEST_OPENING])
        raise PlanError(f"{where}.original is {shown(opening.original)}: must be how the branch begins, {begins}")
    for field, words in (("original", opening.original), ("rewrite", opening.rewrite)):
        if len(words.split()) > OPENING_WORDS:
            raise PlanError(f"{where}.{field} is {shown(words)}: must be at most {OPENING_WORDS} words")
        if words[-1].isalnum() and branch[len(opening.original) :][:1].isalnum():
            raise PlanError(f"{where}.{field} is {shown(words)}: must end where a word ends")
