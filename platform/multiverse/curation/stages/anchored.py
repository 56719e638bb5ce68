"""Anchored mode: the LLM answers with indices and short texts; every word of the chain stays where it was."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multiverse.curation.chain.assemble import Assembled, AssemblyError, assemble, check_chain
from multiverse.curation.chain.groups import Block, Body, blocks, first_sentence, group, merge
from multiverse.curation.chain.plan import (
    BlockTexts,
    PlanError,
    Step,
    dependencies_schema,
    label,
    read_dependencies,
    read_steps,
    read_texts,
    steps_schema,
    texts_schema,
)
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.curation.checks.distance import normalized_distance
from multiverse.curation.checks.figures import row_figures
from multiverse.curation.checks.findings import check_grammar, check_numbering, check_outlines
from multiverse.curation.llm.calls import LLM, EndpointError, LLMError
from multiverse.curation.stages.conversation import Asking, Conversation
from multiverse.curation.stages.outcome import Curated, RowRejectedError, Spent
from multiverse.curation.stages.prompts import load_prompts
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import parse

VERSION = "anchored-1"
STAGES = ("steps", "dependencies", "texts")
_SHOWN_BRANCH = 400
"""Characters of a branch that are shown at its beginning and at its end: its sentences stand in the conversation."""


class Scorer(Protocol):
    """The independence check's language model."""

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float | None:
        """Nats per token by which the branches are predicted worse if they do not see those before them: their mean.

        question, before: what all of them see. None: too long to be measured. Raises LLMError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """min_saving: characters that a block must take off the critical path. rewrite_openings: part (d) of the mode.

    max_gap: nats per token above which a block is made sequential again, where there is a scorer; one that cannot be
    measured stays.
    """

    asking: Asking = field(default_factory=Asking)
    min_saving: int = 100
    rewrite_openings: bool = True
    max_gap: float = 0.5


async def curate(
    question: str, chain: str, llm: LLM, settings: Settings, spent: Spent, scorer: Scorer | None = None
) -> Curated:
    """The structured form of one chain; without blocks if nothing in it can run in parallel.

    Raises RowRejectedError, and EndpointError if the LLM takes no calls.
    """
    try:
        check_chain(chain)
    except AssemblyError as error:
        raise RowRejectedError("chain", str(error)) from error
    sentences = split(chain)
    if not any(sentence.text.strip() for sentence in sentences):
        raise RowRejectedError("chain", "the chain is empty")
    prompts = load_prompts(VERSION)
    conversation = Conversation(llm, prompts, settings.asking, spent)
    count = len(sentences)
    steps = await conversation.ask(
        "steps",
        prompts.fill("steps", question=question, sentences=str(count), chain=numbered(sentences)),
        lambda reply: read_steps(reply, count),
        steps_schema(count),
    )
    named = step_lines(steps)
    numbers = ", ".join(f'"{number}"' for number, _ in named)
    dependencies = await conversation.ask(
        "dependencies",
        prompts.fill("dependencies", steps="\n".join(f"{number}: {text}" for number, text in named), numbers=numbers),
        lambda reply: read_dependencies(reply, steps),
        dependencies_schema(steps),
    )
    body = group(sentences, steps, dependencies, settings.min_saving)
    gaps: dict[str, float | None] = {}
    merged = 0
    if scorer is not None:
        body, gaps, merged = await _independent(question, sentences, body, scorer, settings.max_gap)
    forks = list(blocks(body))
    if not forks:
        return _curated(chain, assemble(chain, sentences, body, []), gaps, merged)
    firsts = [[sentences[first_sentence(branch.body)].text for branch in block.branches] for block in forks]

    def read(reply: str) -> Assembled:
        return _assembled(question, chain, sentences, body, read_texts(reply, firsts), settings.rewrite_openings)

    openings = prompts.fill("openings") if settings.rewrite_openings else ""
    asked = prompts.fill("texts", blocks=block_lines(forks, sentences), openings=openings)
    schema = texts_schema(firsts, settings.rewrite_openings)
    assembled = await conversation.ask("texts", asked, read, schema)
    return _curated(chain, assembled, gaps, merged)


def numbered(sentences: Sequence[Sentence]) -> str:
    """A line per sentence, ``[3] text``; line breaks inside of one are kept."""
    return "\n".join(f"[{number}] {sentence.text.strip()}" for number, sentence in enumerate(sentences, start=1))


def step_lines(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Number and description of all steps and sub-steps, in order."""
    lines = []
    for number, step in enumerate(steps, start=1):
        lines.append((label((number,)), _described(step)))
        lines += [(label((number, place)), _described(part)) for place, part in enumerate(step.parts, start=1)]
    return lines


def block_lines(forks: Sequence[Block], sentences: Sequence[Sentence]) -> str:
    """Per block its branches: their sentences' numbers, titles and how they begin."""
    lines = []
    for number, block in enumerate(forks, start=1):
        lines.append(f"Block {number}, {len(block.branches)} branches:")
        for place, branch in enumerate(block.branches, start=1):
            first, last = first_sentence(branch.body), last_sentence(branch.body)
            begins = sentences[first].text.strip()[:_SHOWN_BRANCH]
            titles = "; ".join(branch.titles)
            lines.append(f'- branch {place}: sentences {first + 1} to {last} ({titles}), begins "{begins}"')
    return "\n".join(lines)


def last_sentence(body: Body) -> int:
    """The number of the sentence that a body ends with."""
    node = body[-1]
    return last_sentence(node.branches[-1].body) if isinstance(node, Block) else node.end


def _described(step: Step) -> str:
    return f"sentences {step.begin + 1} to {step.end}, {step.title}"


async def _independent(
    question: str, sentences: Sequence[Sentence], body: Body, scorer: Scorer, max_gap: float
) -> tuple[Body, dict[str, float | None], int]:
    """``body`` without the blocks whose branches lean on each other; the gaps by sentences (``"4-9"``)."""
    gaps: dict[str, float | None] = {}
    dependent = []
    for block in blocks(body):
        ranges = [(first_sentence(branch.body), last_sentence(branch.body)) for branch in block.branches]
        texts = ["".join(one.text for one in sentences[begin:end]) for begin, end in ranges]
        before = "".join(one.text for one in sentences[: ranges[0][0]])
        try:
            gap = await scorer.gap(question, before, texts)
        except EndpointError:
            raise
        except LLMError as error:
            raise RowRejectedError("independence", str(error), error.retryable) from error
        gaps[f"{ranges[0][0] + 1}-{ranges[-1][1]}"] = gap
        if gap is not None and gap > max_gap:
            dependent.append(block)
    return merge(body, dependent), gaps, len(dependent)


def _assembled(
    question: str,
    chain: str,
    sentences: Sequence[Sentence],
    body: Body,
    texts: tuple[BlockTexts, ...],
    rewrite_openings: bool,
) -> Assembled:
    """Raises PlanError where texts do not pass the checks: that is for their author to mend."""
    if not rewrite_openings:
        texts = tuple(BlockTexts(one.outlines, one.conclusion, (None,) * len(one.openings)) for one in texts)
    try:
        assembled = assemble(chain, sentences, body, texts)
    except AssemblyError as error:
        raise PlanError(str(error)) from error
    if findings := check_grammar(assembled.text):
        raise PlanError(findings[0].message)
    document = parse(assembled.text)
    if findings := [*check_numbering(document), *check_outlines(document, question)]:
        raise PlanError("; ".join(finding.message for finding in findings))
    return assembled


def _curated(chain: str, assembled: Assembled, gaps: dict[str, float | None], merged: int) -> Curated:
    sequential = flatten_text(assembled.text)
    if not assembled.diff and sequential != chain:
        raise RowRejectedError("assembly", "the chain is not restored")
    return Curated(
        chain=assembled.text,
        sequential=sequential,
        diff=assembled.diff,
        distance=normalized_distance(chain, sequential) if assembled.diff else 0.0,
        figures=row_figures(assembled.text),
        gaps=gaps,
        merged=merged,
    )
