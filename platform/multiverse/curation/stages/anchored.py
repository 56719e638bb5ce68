"""Anchored mode: the LLM answers with indices and short texts; every word of the chain stays where it was."""

from multiverse.curation.chain.groups import blocks, group
from multiverse.curation.chain.listing import block_lines, example_needs, step_lines, step_question
from multiverse.curation.chain.plan import read_dependencies, read_steps
from multiverse.curation.chain.schemas import dependencies_schema, steps_schema
from multiverse.curation.llm.calls import LLM
from multiverse.curation.stages.conversation import Conversation
from multiverse.curation.stages.independence import Scorer, independent
from multiverse.curation.stages.outcome import Curated, Spent, curated
from multiverse.curation.stages.prompts import load_prompts
from multiverse.curation.stages.row import ask_texts, cut
from multiverse.curation.stages.settings import Settings

VERSION = "anchored-1"
STAGES = ("steps", "dependencies", "texts")


async def curate(
    question: str, chain: str, llm: LLM, settings: Settings, spent: Spent, scorer: Scorer | None = None
) -> Curated:
    """The structured form of one chain; without blocks if nothing in it can run in parallel.

    Raises RowRejectedError, and EndpointError if the LLM takes no calls.
    """
    sentences = cut(chain)
    prompts = load_prompts(VERSION)
    conversation = Conversation(llm, prompts, settings.asking, spent)
    count = len(sentences)
    steps = await conversation.ask(
        "steps",
        prompts.fill("steps", **step_question(question, sentences)),
        lambda reply: read_steps(reply, count),
        steps_schema(count),
    )
    named = "\n".join(f"{number}: {text}" for number, text in step_lines(steps))
    dependencies = await conversation.ask(
        "dependencies",
        prompts.fill("dependencies", steps=named, example=example_needs(steps)),
        lambda reply: read_dependencies(reply, steps),
        dependencies_schema(steps),
    )
    body = group(sentences, steps, dependencies, settings.min_saving)
    body, gaps, merged = await independent(question, sentences, body, scorer, settings.max_gap)
    forks = list(blocks(body))
    if not forks:
        return curated(chain, chain, gaps, merged)
    openings = prompts.fill("openings") if settings.rewrite_openings else ""
    asked = prompts.fill("texts", blocks=block_lines(forks, sentences), openings=openings)
    structured = await ask_texts(conversation, "texts", asked, question, sentences, body, settings.rewrite_openings)
    return curated(chain, structured, gaps, merged)
