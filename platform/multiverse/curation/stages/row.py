"""How a row begins and how it ends, in either mode: cut into sentences, and with texts for its blocks."""

from collections.abc import Sequence
from dataclasses import replace

from multiverse.curation.chain.assemble import AssemblyError, assemble, check_chain
from multiverse.curation.chain.groups import Body, blocks, first_sentence
from multiverse.curation.chain.plan import read_texts
from multiverse.curation.chain.replies import PlanError
from multiverse.curation.chain.schemas import texts_schema
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.curation.checks.findings import check_numbering, check_outlines
from multiverse.curation.stages.conversation import Conversation
from multiverse.curation.stages.outcome import RowRejectedError
from multiverse.structure.grammar import parse


def cut(chain: str) -> list[Sentence]:
    """The chain's sentences. Raises RowRejectedError if it is empty or no mode can structure it."""
    try:
        check_chain(chain)
    except AssemblyError as error:
        raise RowRejectedError("chain", str(error)) from error
    if not chain.strip():
        raise RowRejectedError("chain", "the chain is empty")
    return split(chain)


async def ask_texts(
    conversation: Conversation,
    stage: str,
    asked: str,
    question: str,
    sentences: Sequence[Sentence],
    body: Body,
    rewrite_openings: bool,
) -> str:
    """The structured chain, with outlines and conclusions as the LLM writes them when it is ``asked``.

    question: the row's. Raises RowRejectedError, and EndpointError if the LLM takes no calls.
    """
    chain = "".join(sentence.text for sentence in sentences)
    firsts = [[sentences[first_sentence(branch.body)].text for branch in block.branches] for block in blocks(body)]

    def read(reply: str) -> str:
        texts = read_texts(reply, firsts)
        if not rewrite_openings:
            texts = tuple(replace(one, openings=(None,) * len(one.openings)) for one in texts)
        try:
            structured = assemble(chain, sentences, body, texts)
        except AssemblyError as error:
            raise PlanError(str(error)) from error
        document = parse(structured)
        if findings := [*check_numbering(document), *check_outlines(document, question)]:
            raise PlanError("; ".join(finding.message for finding in findings))
        return structured

    return await conversation.ask(stage, asked, read, texts_schema(firsts, rewrite_openings))
