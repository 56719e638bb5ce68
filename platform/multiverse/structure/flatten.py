"""The sequential chain inside a structured one.

What goes: the optional lead-in line, all tags, the goal, the conclusion, each path's number with one space, and the
line breaks the renderer puts there. Those are, each where there is one:

    text -\\n- Let's think in parallel. -\\n- <Parallel>
    <Path> -\\n- 1:_ ...kept... -\\n- </Path>
    </Parallel> -\\n- text
    <Think> -\\n- ...kept... -\\n- </Think>

Every other line break is the source's and stays, so what is left is the source chain, byte for byte.
"""

from collections.abc import Sequence

from multiverse.structure.grammar import Block, Document, Node, Text, Think, parse
from multiverse.structure.tags import LEAD_IN


def flatten(document: Document) -> str:
    """The chain without its structure."""
    return _body(document.body)


def flatten_text(text: str) -> str:
    """`flatten` of a text. Raises GrammarError."""
    return flatten(parse(text))


def _body(nodes: Sequence[Node], opening: str = "", closing: str = "") -> str:
    """What is left of a body; ``opening`` and ``closing`` go if its own text begins and ends with them."""
    pieces: list[str] = []
    for index, node in enumerate(nodes):
        if isinstance(node, Text):
            after_block = index > 0 and isinstance(nodes[index - 1], Block)
            text = node.text.removeprefix("\n" if after_block else opening if index == 0 else "")
            if index + 1 == len(nodes):
                text = text.removesuffix(closing)
            elif isinstance(nodes[index + 1], Block):
                text = _without_lead_in(text)
            pieces.append(text)
        elif isinstance(node, Think):
            pieces.append(_body(node.body, opening="\n", closing="\n"))
        else:
            pieces += (_body(path.body, opening=" ", closing="\n") for path in node.paths)
    return "".join(pieces)


def _without_lead_in(text: str) -> str:
    line = text.removesuffix("\n")
    return "" if line == LEAD_IN else line.removesuffix("\n" + LEAD_IN)
