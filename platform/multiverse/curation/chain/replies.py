"""The answers of a language model in JSON: their form, the schemas for constrained decoding, and their reading."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
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

_FENCED = re.compile(r"\s*```[A-Za-z]*\s*\n(.*)\n\s*```\s*", re.DOTALL)
_INNER_BLOCK = re.compile(r"^```[A-Za-z]*[ \t]*\n(.*?)\n```[ \t]*$", re.DOTALL | re.MULTILINE)
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

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, value: Any) -> Any:
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class StepsReply(ReplyModel):
    steps: dict[str, Title] = Field(
        min_length=1, max_length=MOST_STEPS, description="Per step the number of its first sentence and a short title."
    )
    sub_steps: dict[str, Title] = Field(default={}, max_length=MOST_STEPS, description="The same for parts of steps.")


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
    blocks: dict[str, BlockReply] = Field(max_length=MOST_STEPS, description="Every block by its number.")


_ReplyType = TypeVar("_ReplyType", bound=ReplyModel)


def unfenced(reply: str) -> str:
    """The answer without the Markdown code block that it may stand in."""
    fenced = _FENCED.fullmatch(reply)
    return fenced.group(1) if fenced else reply


def read_reply(kind: type[_ReplyType], reply: str) -> _ReplyType:
    """The answer in JSON, which may stand in a Markdown code block with words around it, fields that are null left out.

    Raises PlanError if it is no such object.
    """
    blocks = _INNER_BLOCK.findall(reply)
    text = blocks[0] if len(blocks) == 1 else unfenced(reply)
    try:
        value = from_json(text.removeprefix("\ufeff").encode("utf-8"), allow_inf_nan=False)
    except ValueError as error:
        raise PlanError(f"the reply is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise PlanError(f"the reply must be a JSON object, not {shown(value)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise PlanError(explain(error)[1]) from error
