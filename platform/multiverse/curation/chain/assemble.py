"""The structured chain, put together by code from a chain's own sentences and the texts written for its blocks.

Flattening what comes out gives the chain back, byte for byte: that is checked for every chain. Where first words of
branches were rewritten, it gives the chain with just those words replaced.
"""

from collections.abc import Iterator, Sequence

from multiverse.curation.chain.groups import Block, Body, Span, blocks, first_sentence
from multiverse.curation.chain.plan import BlockTexts, Opening
from multiverse.curation.chain.sentences import Sentence
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import GrammarError
from multiverse.structure.tags import LEAD_IN, TAG_PATTERN


class AssemblyError(ValueError):
    """A chain that has no structured form, or would not be restored from it; the message says why."""


def assemble(chain: str, sentences: Sequence[Sentence], body: Body, texts: Sequence[BlockTexts]) -> str:
    """The structured form of ``chain``; without blocks in ``body`` that is the chain itself.

    body: all sentences in order. texts: one per block, in the order of forks.
    Raises AssemblyError for a chain that holds tags or is no UTF-8, and if flattening does not restore the chain.
    """
    check_chain(chain)
    openings = _openings(list(blocks(body)), texts)
    pieces = [sentence.text for sentence in sentences]
    expected = chain
    for index in sorted(openings, reverse=True):
        opening = openings[index]
        rest = pieces[index].removeprefix(opening.original)
        if rest == pieces[index]:
            raise AssemblyError(
                f"sentence {index + 1} does not begin with {opening.original!r}, which is to be rewritten"
            )
        start = sentences[index].start
        pieces[index] = opening.rewrite + rest
        expected = expected[:start] + opening.rewrite + expected[start + len(opening.original) :]
    check_chain(expected)
    text = _render(body, pieces, iter(texts), "")
    try:
        restored = flatten_text(text)
    except GrammarError as error:
        raise AssemblyError(f"the structured chain is not valid: {error}") from error
    if restored != expected:
        raise AssemblyError(f"the chain is not restored: {_difference(restored, expected)}")
    return text


def check_chain(chain: str, name: str = "the chain") -> None:
    """Raises AssemblyError if a chain cannot be structured, whatever the plan: before any model is asked.

    name: of the chain, or of a part of it, in the message.
    """
    if found := TAG_PATTERN.search(chain):
        raise AssemblyError(f"{name} holds the tag {found.group()} at character {found.start()}")
    try:
        chain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AssemblyError(f"{name} is no UTF-8: a lone surrogate at character {error.start}") from error


def _openings(forks: Sequence[Block], texts: Sequence[BlockTexts]) -> dict[int, Opening]:
    """The openings by the index of the sentence that each begins."""
    widths = [len(block.branches) for block in forks]
    if widths != (found := [len(written.outlines) for written in texts]):
        raise AssemblyError(f"there are blocks of {widths} branches, but outlines for {found}")
    openings: dict[int, Opening] = {}
    for block, written in zip(forks, texts, strict=True):
        for branch, opening in zip(block.branches, written.openings, strict=True):
            index = first_sentence(branch.body)
            if opening is None:
                continue
            if index in openings:
                raise AssemblyError(f"the first words of sentence {index + 1} are to be rewritten twice")
            openings[index] = opening
    return openings


def _render(body: Body, pieces: Sequence[str], texts: Iterator[BlockTexts], parent: str) -> str:
    """A body of sentences ``pieces``; ``parent``: the number of its path, with a dot."""
    rendered = ""
    for index, node in enumerate(body):
        if isinstance(node, Span):
            text = "".join(pieces[node.begin : node.end])
        else:
            text = f"{LEAD_IN}\n{_render_block(node, pieces, texts, parent)}"
        # One line break between a block and what is beside it.
        is_beside = index > 0 and (isinstance(node, Block) or isinstance(body[index - 1], Block))
        rendered += f"\n{text}" if is_beside else text
    return rendered


def _render_block(block: Block, pieces: Sequence[str], texts: Iterator[BlockTexts], parent: str) -> str:
    written = next(texts)
    numbers = [f"{parent}{number}" for number in range(1, len(block.branches) + 1)]
    outlines = "".join(
        f"<Outline>\n{number}: {outline}\n</Outline>\n"
        for number, outline in zip(numbers, written.outlines, strict=True)
    )
    paths = "".join(
        f"<Path>\n{number}: {_render(branch.body, pieces, texts, f'{number}.')}\n</Path>\n"
        for number, branch in zip(numbers, block.branches, strict=True)
    )
    return (
        f"<Parallel>\n<Goal>\n{outlines}</Goal>\n{paths}<Conclusion>\n{written.conclusion}\n</Conclusion>\n</Parallel>"
    )


def _difference(found: str, expected: str) -> str:
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), min(len(found), len(expected)))
    return f"from character {at} on there is {found[at : at + 40]!r} instead of {expected[at : at + 40]!r}"
