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

from multiverse.structure.grammar import Block, Document, Node, Path, Text, Think, parse
from multiverse.structure.tags import LEAD_IN


def flatten(document: Document) -> str:
    """The chain without its structure."""
    return _body(document.body)


def flatten_text(text: str) -> str:
    """`flatten` of a text. Raises GrammarError."""
    return flatten(parse(text))


def _body(nodes: Sequence[Node]) -> str:
    pieces: list[str] = []
    for index, node in enumerate(nodes):
        if isinstance(node, Text):
            text = node.text
            if index > 0 and isinstance(nodes[index - 1], Block):
                text = text.removeprefix("\n")
            if index + 1 < len(nodes) and isinstance(nodes[index + 1], Block):
                text = _without_lead_in(text)
            pieces.append(text)
        elif isinstance(node, Think):
            pieces.append(_body(node.body).removeprefix("\n").removesuffix("\n"))
        else:
            pieces += map(_path, node.paths)
    return "".join(pieces)


def _without_lead_in(text: str) -> str:
    line = text.removesuffix("\n")
    if line == LEAD_IN:
        return ""
    if line.endswith("\n" + LEAD_IN):
        return line.removesuffix("\n" + LEAD_IN)
    return line


def _path(path: Path) -> str:
    return _body(path.body).removeprefix(" ").removesuffix("\n")
