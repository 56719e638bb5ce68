"""The step tree of rewrite mode: its leaves, and which of its steps the LLM wants side by side.

The answer about groups is

    {"groups": [["2", "3"], ["3.1", "3.2", "3.3"]]}

where a group is steps of one level in a row, each a branch of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from multiverse.curation.chain.groups import Body, blocks, first_sentence, last_sentence
from multiverse.curation.chain.plan import Dependencies, Links, Step, label, numbers
from multiverse.curation.chain.replies import MOST_STEPS, PlanError, ReplyModel, read_reply
from multiverse.validation import shown


@dataclass(frozen=True, slots=True)
class Leaf:
    """``sentences[begin:end]``: a step without parts, or a part.

    What stands before the first step is "0", what stands in step 2 before its parts "2.0".
    """

    label: str
    title: str
    begin: int
    end: int


class GroupsReply(ReplyModel):
    groups: list[Annotated[list[str], Field(min_length=2, max_length=MOST_STEPS)]] = Field(
        max_length=MOST_STEPS, description="Steps of one level in a row that can be worked out at the same time."
    )


def leaves(steps: Sequence[Step]) -> tuple[Leaf, ...]:
    """The leaves in order; together they are all sentences."""
    found = [Leaf("0", "What comes first", 0, steps[0].begin)]
    for number, step in enumerate(steps, start=1):
        name = label((number,))
        if not step.parts:
            found.append(Leaf(name, step.title, step.begin, step.end))
            continue
        found.append(Leaf(f"{name}.0", step.title, step.begin, step.parts[0].begin))
        parts = enumerate(step.parts, start=1)
        found += [Leaf(label((number, place)), part.title, part.begin, part.end) for place, part in parts]
    return tuple(leaf for leaf in found if leaf.begin < leaf.end)


def groups_schema(steps: Sequence[Step]) -> dict[str, Any]:
    """The JSON schema of the answer about groups of ``steps``, for constrained decoding."""
    schema = GroupsReply.model_json_schema()
    names = [label(number) for number in numbers(steps)]
    groups = schema["properties"]["groups"]
    # A step is in one group at most. A model that cannot stop would otherwise go on up to MOST_STEPS.
    groups["maxItems"] = min(MOST_STEPS, max(1, len(names) // 2))
    groups["items"] |= {
        "items": {"type": "string", "enum": names},
        "maxItems": min(MOST_STEPS, max(2, len(names))),
    }
    return schema


def read_groups(reply: str, steps: Sequence[Step]) -> Dependencies:
    """The groups as what steps need: all before them, but for those of their group.

    Raises PlanError unless each group is at least two steps of one level in a row, and no step is in two of them.
    """
    found = read_reply(GroupsReply, reply).groups
    names = {label(number): number for number in numbers(steps)}
    begins: dict[tuple[int, ...], int] = {}
    for index, group in enumerate(found):
        for name in group:
            if name not in names:
                raise PlanError(f"groups[{index}] has {shown(name)}: must be one of {', '.join(names)}")
            if names[name] in begins:
                raise PlanError(f"groups[{index}] has {shown(name)}: must be in one group, and once")
            begins[names[name]] = names[group[0]][-1]
        for before, name in pairwise(group):
            *above, place = names[before]
            if names[name] != (*above, place + 1):
                raise PlanError(
                    f"groups[{index}] has {shown(name)} behind {shown(before)}: must be steps of one level in a row"
                )

    def links(above: tuple[int, ...], count: int) -> Links:
        firsts = [begins.get((*above, number), number) for number in range(1, count + 1)]
        return Links(tuple(frozenset(range(first - 1)) for first in firsts), (frozenset(),) * count)

    parts = tuple(links((number,), len(step.parts)) for number, step in enumerate(steps, start=1))
    return Dependencies(links((), len(steps)), parts)


def unseen(body: Body, parts: Sequence[Leaf]) -> dict[str, list[str]]:
    """Per leaf, by labels, those that stand in a sibling branch."""
    hidden: dict[str, list[str]] = {leaf.label: [] for leaf in parts}
    for block in blocks(body):
        branches = [
            [leaf.label for leaf in parts if first_sentence(branch.body) <= leaf.begin < last_sentence(branch.body)]
            for branch in block.branches
        ]
        for own in branches:
            others = [name for branch in branches if branch is not own for name in branch]
            for name in own:
                hidden[name] += others
    return hidden
