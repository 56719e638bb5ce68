"""Rewrite mode: the LLM writes every step anew so that it stands where it is, close to its source.

Five stages: it sums the chain up as a tree of steps, names those that can run in parallel, writes the structure with a
placeholder per step, fills each in from its sentences, and writes what forks and joins say. Code puts it together.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from multiverse.curation.chain.assemble import AssemblyError, check_chain
from multiverse.curation.chain.groups import Body, blocks, group
from multiverse.curation.chain.listing import block_lines, step_lines, step_question
from multiverse.curation.chain.plan import read_steps
from multiverse.curation.chain.replies import NUMBERED, PlanError, unfenced
from multiverse.curation.chain.schemas import steps_schema
from multiverse.curation.chain.sentences import Sentence
from multiverse.curation.chain.skeleton import marks, read_skeleton
from multiverse.curation.chain.tree import Leaf, groups_schema, leaves, read_groups, unseen
from multiverse.curation.checks.findings import MAX_DISTANCE, check_content, check_step, content_distance
from multiverse.curation.llm.calls import LLM, EndpointError
from multiverse.curation.stages.conversation import Conversation
from multiverse.curation.stages.independence import Scorer, independent
from multiverse.curation.stages.outcome import Curated, Spent, curated
from multiverse.curation.stages.prompts import Prompts, load_prompts
from multiverse.curation.stages.row import ask_texts, cut
from multiverse.curation.stages.settings import Settings

VERSION = "rewrite-1"
STAGES = ("summary", "groups", "reformat", "refill", "map_reduce")

_Result = TypeVar("_Result")


async def curate(
    question: str, chain: str, llm: LLM, settings: Settings, spent: Spent, scorer: Scorer | None = None
) -> Curated:
    """The structured form of one chain; the chain as it came if nothing in it can run in parallel.

    scorer: looks at the groups as they stand in the source, before anything is written.
    Raises RowRejectedError, and EndpointError if the LLM takes no calls.
    """
    sentences = cut(chain)
    prompts = load_prompts(VERSION)
    conversation = Conversation(llm, prompts, settings.asking, spent)
    count = len(sentences)
    steps = await conversation.ask(
        "summary",
        prompts.fill("summary", **step_question(question, sentences)),
        lambda reply: read_steps(reply, count),
        steps_schema(count),
    )
    named = "\n".join(f"{number}: {text}" for number, text in step_lines(steps))
    dependencies = await conversation.ask(
        "groups", prompts.fill("groups", steps=named), lambda reply: read_groups(reply, steps), groups_schema(steps)
    )
    body = group(sentences, steps, dependencies, settings.min_saving)
    body, gaps, merged = await independent(question, sentences, body, scorer, settings.max_gap)
    forks = list(blocks(body))
    if not forks:
        return curated(chain, chain, gaps, merged)
    parts = leaves(steps)
    form = marks(body, parts)
    await conversation.ask(
        "reformat", prompts.fill("reformat", form=" ".join(form)), lambda reply: read_skeleton(reply, form)
    )
    texts = await _refill(conversation, prompts, _tasks(sentences, body, parts))
    rewritten = _rewritten(sentences, parts, texts)
    asked = prompts.fill("map_reduce", blocks=block_lines(forks, rewritten))
    structured = await ask_texts(conversation, "map_reduce", asked, question, rewritten, body, rewrite_openings=False)
    return curated(chain, structured, gaps, merged)


@dataclass(frozen=True, slots=True)
class _Task:
    """A leaf to be written from ``source``; ``unseen``: labels of the leaves that its reader does not see."""

    name: str
    title: str
    source: str
    unseen: Sequence[str]


def _tasks(sentences: Sequence[Sentence], body: Body, parts: Sequence[Leaf]) -> list[_Task]:
    hidden = unseen(body, parts)
    return [
        _Task(
            f"step {leaf.label}",
            leaf.title,
            "".join(sentence.text for sentence in sentences[leaf.begin : leaf.end]),
            hidden[leaf.label],
        )
        for leaf in parts
    ]


async def _refill(conversation: Conversation, prompts: Prompts, tasks: Sequence[_Task]) -> list[str]:
    """The text of each task. All are asked for at once, and none sees another's answer."""

    def ask(at: int, most: float = MAX_DISTANCE, refused: tuple[str, str] | None = None) -> Coroutine[Any, Any, str]:
        task = tasks[at]
        hidden = ", ".join(task.unseen) if task.unseen else "none"
        asked = prompts.fill("refill", step=task.name, title=task.title, unseen=hidden, source=task.source.strip())

        def read(reply: str) -> str:
            text = _read_text(reply, task)
            if findings := check_step(task.name, task.source, text, most):
                raise PlanError(findings[0].message)
            return text

        return conversation.ask("refill", asked, read, keep=False, refused=refused)

    sources = [task.source for task in tasks]
    texts = await _all([ask(at) for at in range(len(tasks))])
    # Each step is close enough, the whole may not be: some grew, others shrank. Those that changed most have to give,
    # one after another, which always suffices: steps within half of the bound are together within the bound.
    changed = [content_distance(source, text) * len(source) for source, text in zip(sources, texts, strict=True)]
    for at in sorted(range(len(tasks)), key=lambda at: -changed[at]):
        if not check_content([*zip(sources, texts, strict=True)]):
            break
        if findings := check_step(tasks[at].name, sources[at], texts[at], MAX_DISTANCE / 2):
            texts[at] = await ask(at, MAX_DISTANCE / 2, (texts[at].strip(), findings[0].message))
    return texts


def _read_text(reply: str, task: _Task) -> str:
    """A step's text between the white space that its source begins and ends with."""
    source = task.source.strip()
    text = (reply if source.startswith("```") else unfenced(reply)).strip()
    if NUMBERED.match(text) and not NUMBERED.match(source):
        raise PlanError(f"{task.name} must not begin with a number: numbers are written by code")
    try:
        check_chain(text, task.name)
    except AssemblyError as error:
        raise PlanError(str(error)) from error
    if findings := check_step(task.name, source, text):
        raise PlanError(findings[0].message)
    before, _, after = task.source.partition(source)
    return f"{before}{text}{after}"


def _rewritten(sentences: Sequence[Sentence], parts: Sequence[Leaf], texts: Sequence[str]) -> list[Sentence]:
    """As many sentences as before, so that the body still fits them: the first of each leaf is all of its text."""
    pieces = [""] * len(sentences)
    for leaf, text in zip(parts, texts, strict=True):
        pieces[leaf.begin] = text
    found, start = [], 0
    for piece in pieces:
        found.append(Sentence(start, start + len(piece), piece))
        start += len(piece)
    return found


async def _all(asked: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All results. If there are errors, the endpoint's, or else the first in order: the same whichever comes first."""
    results = await asyncio.gather(*asked, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, EndpointError)), errors[0])
    return [result for result in results if not isinstance(result, BaseException)]
