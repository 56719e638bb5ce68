"""What a language model is asked about a chain, and the strict reading of its answers.

It is asked three times, and answers in JSON each time:

    steps         {"steps": [{"title": "...", "first": 1, "last": 4, "sub_steps": [...]}, ...]}
    dependencies  {"needs": {"1": [], "2": [1], "2.1": [], "2.2": [1], ...}, "alternatives": [["3", "4"], ...]}
    texts         {"blocks": [{"outlines": ["...", "..."], "conclusion": "...", "openings": [...]}, ...]}

Sentences, steps and sub-steps are numbered from 1, ``first`` and ``last`` are inclusive; "2.1" is the first sub-step of
step 2, and what it needs are numbers of its own level. Sentences before the first
step (of a step: before its first sub-step) stay outside and are sequential; any other sentence that is not covered
joins the step before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from multiverse.structure.tags import TAG_PATTERN
from multiverse.validation import explain, shown

LONGEST_TITLE = 120
LONGEST_OUTLINE = 300
LONGEST_CONCLUSION = 1_500
LONGEST_OPENING = 80
"""Characters of an opening and of its rewriting."""
OPENING_WORDS = 8
MOST_STEPS = 200

_FENCED = re.compile(r"\s*```[a-z]*\s*\n(.*)\n\s*```\s*", re.DOTALL)
NUMBERED = re.compile(r"\d+(?:\.\d+)*[.:)]\s")
"""A text that begins with a number of its own, as list items do."""


class PlanError(ValueError):
    """An answer that is no plan for its chain. The message tells its author what to change."""


def _no_tags(text: str) -> str:
    if found := TAG_PATTERN.search(text):
        raise ValueError(f"must not hold the tag {found.group()}")
    return text


def _one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise ValueError("must be one line")
    return _no_tags(text)


def _no_number(text: str) -> str:
    if NUMBERED.match(text):
        raise ValueError("must not begin with a number: numbers are written by code")
    return text


Number = Annotated[int, Field(ge=1)]
Title = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TITLE), AfterValidator(_one_line)
]
OutlineText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_OUTLINE),
    AfterValidator(_one_line),
    AfterValidator(_no_number),
]
ConclusionText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_CONCLUSION), AfterValidator(_no_tags)
]
OpeningText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_OPENING), AfterValidator(_one_line)
]


class ReplyModel(BaseModel):
    """The JSON object of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SubStepReply(ReplyModel):
    title: Title = Field(description="What it does, in a few words.")
    first: Number = Field(description="Its first sentence.")
    last: Number = Field(description="Its last sentence.")


class StepReply(SubStepReply):
    sub_steps: list[SubStepReply] = Field(default=[], max_length=MOST_STEPS, description="Its parts, if it has any.")


class StepsReply(ReplyModel):
    steps: list[StepReply] = Field(min_length=1, max_length=MOST_STEPS, description="The steps, in reading order.")


class DependenciesReply(ReplyModel):
    needs: dict[str, Annotated[list[Number], Field(max_length=MOST_STEPS)]] = Field(
        description="For every step and sub-step the earlier ones of its level whose results it uses."
    )
    alternatives: list[Annotated[list[str], Field(min_length=2, max_length=MOST_STEPS)]] = Field(
        default=[], max_length=MOST_STEPS, description="Steps of one level that attempt the same thing in several ways."
    )


class OpeningReply(ReplyModel):
    branch: Number
    original: OpeningText = Field(description="The first words of the branch, exactly as they stand there.")
    rewrite: OpeningText = Field(description="What stands there instead, without leaning on another branch.")


class BlockReply(ReplyModel):
    outlines: list[OutlineText] = Field(
        min_length=2, max_length=MOST_STEPS, description="Per branch what it will do, not how, and no results."
    )
    conclusion: ConclusionText = Field(description="What the branches found, in short.")
    openings: list[OpeningReply] = Field(
        default=[],
        max_length=MOST_STEPS,
        description='Only for branches whose first words ("Similarly,") lean on another.',
    )


class TextsReply(ReplyModel):
    blocks: list[BlockReply] = Field(max_length=MOST_STEPS, description="Every block, in the order of their forks.")


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


def steps_schema(sentences: int) -> dict[str, Any]:
    """The JSON schema of the answer about a chain of so many sentences, for constrained decoding."""
    schema = StepsReply.model_json_schema()
    # No two of a level share a sentence. A model that cannot stop would otherwise go on up to MOST_STEPS.
    most = min(MOST_STEPS, sentences)
    schema["properties"]["steps"]["maxItems"] = most
    schema["$defs"]["StepReply"]["properties"]["sub_steps"]["maxItems"] = most
    for name in ("StepReply", "SubStepReply"):
        for field in ("first", "last"):
            schema["$defs"][name]["properties"][field]["maximum"] = sentences
    return schema


def dependencies_schema(steps: Sequence[Step]) -> dict[str, Any]:
    """The JSON schema of the answer about the dependencies of ``steps``: each of them once, in order."""
    schema = DependenciesReply.model_json_schema()
    names = [label(number) for number in numbers(steps)]
    earlier = {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": len(steps)}
    schema["properties"]["needs"] = {
        "type": "object",
        "properties": dict.fromkeys(names, earlier),
        "required": names,
        "additionalProperties": False,
    }
    alternatives = schema["properties"]["alternatives"]
    most = min(MOST_STEPS, max(2, len(names)))
    alternatives["maxItems"] = most
    alternatives["items"] |= {"items": {"type": "string", "enum": names}, "maxItems": most}
    return schema


def texts_schema(blocks: Sequence[Sequence[str]], openings: bool = True) -> dict[str, Any]:
    """The JSON schema of the answer with outlines and conclusions of ``blocks``, as `read_texts` has them."""
    schema = TextsReply.model_json_schema()
    schema["properties"]["blocks"] |= {"minItems": len(blocks), "maxItems": len(blocks)}
    widths = [len(block) for block in blocks] or [0]
    block = schema["$defs"]["BlockReply"]["properties"]
    block["outlines"] |= {"minItems": min(widths), "maxItems": max(widths)}
    block["openings"]["maxItems"] = max(widths)
    if not openings:
        del block["openings"], schema["$defs"]["OpeningReply"]
    return schema


def read_steps(reply: str, sentences: int) -> tuple[Step, ...]:
    """The steps of a chain of so many sentences. Raises PlanError if they are not in order, apart and inside of it."""
    found = read_reply(StepsReply, reply).steps
    ends = _ends([(step.first, step.last) for step in found], "steps", 1, sentences, sentences)
    steps = []
    for index, (step, end) in enumerate(zip(found, ends, strict=True)):
        spans = [(part.first, part.last) for part in step.sub_steps]
        part_ends = _ends(spans, f"steps[{index}].sub_steps", step.first, step.last, end)
        parts = zip(step.sub_steps, part_ends, strict=True)
        inner = tuple(Step(part.title, part.first - 1, part_end) for part, part_end in parts)
        steps.append(Step(step.title, step.first - 1, end, inner))
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
    if len(found) != len(blocks):
        raise PlanError(f"blocks has {len(found)} items: must have {len(blocks)}, one per block")
    return tuple(
        _block_texts(block, branches, f"blocks[{index}]")
        for index, (block, branches) in enumerate(zip(found, blocks, strict=True))
    )


_ReplyType = TypeVar("_ReplyType", bound=ReplyModel)


def unfenced(reply: str) -> str:
    """The answer without the Markdown code block that it may stand in."""
    fenced = _FENCED.fullmatch(reply)
    return fenced.group(1) if fenced else reply


def read_reply(kind: type[_ReplyType], reply: str) -> _ReplyType:
    """The answer in JSON, which may stand in a Markdown code block. Raises PlanError if it is no such object."""
    try:
        value = from_json(unfenced(reply).encode("utf-8"), allow_inf_nan=False)
    except ValueError as error:
        raise PlanError(f"the reply is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise PlanError(f"the reply must be a JSON object, not {shown(value)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise PlanError(explain(error)[1]) from error


def _ends(spans: Sequence[tuple[int, int]], where: str, first: int, last: int, end: int) -> list[int]:
    """Per span the number of the last sentence it takes with those behind it that no span covers, up to ``end``."""
    free, reason = first, "where the text begins"
    for index, (begin, stop) in enumerate(spans):
        if begin < free:
            raise PlanError(f"{where}[{index}].first is {begin}: must be at least {free}, {reason}")
        if stop < begin:
            raise PlanError(f"{where}[{index}].last is {stop}: must be at least its first, {begin}")
        if stop > last:
            raise PlanError(f"{where}[{index}].last is {stop}: must be at most {last}, where the text ends")
        free, reason = stop + 1, f"behind the end of {where}[{index}]"
    return [begin - 1 for begin, _ in spans[1:]] + [end] if spans else []


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
