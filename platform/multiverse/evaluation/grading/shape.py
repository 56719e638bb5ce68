"""What an answer is made of: numbers and expressions in lists, sets, tuples, intervals, unions, matrices, equations."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from multiverse.evaluation.grading.numbers import read_number

Kind = Literal["scalar", "list", "set", "brackets", "union", "matrix", "equation", "base"]
NAME = re.compile(
    r"(?:\\?[A-Za-z]|\\[a-z]+|[A-Z]{2,4}|\\(?:overline|angle)\s*\{?\s*[A-Z]+\}?)(?:_\{?\w+\}?|')?(?:\^\{-1\})?(?:\([A-Za-z0-9,]+\))?"
)
_RELATION = r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|<|>"
_MATRIX = re.compile(
    r"\\begin\{(?:[pbB]?matrix|array)\}(?:\{[lcr|]*\})?(?P<body>.*?)\\end\{(?:[pbB]?matrix|array)\}", re.DOTALL
)
_BASE = re.compile(r"(?P<digits>[0-9A-F]+)\s*_\s*\{?\s*(?P<base>\d+)\s*\}?")
_WORD = {"or": r"(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])", "and": r"(?<![A-Za-z\\])and(?![A-Za-z])"}


@dataclass(frozen=True, slots=True)
class Shape:
    """text: of a scalar itself, of brackets the two ("(]"), of an equation its left side, of a base the base."""

    kind: Kind
    text: str = ""
    items: tuple["Shape", ...] = ()


def read_shape(text: str) -> Shape:
    """The shape of a normalised answer without units. An inequality in one variable is an interval."""
    text = _unbraced(text.strip())
    if read_number(text) is not None:
        return Shape("scalar", text)
    if len(parts := split(text, _WORD["or"])) > 1:
        return _either([read_shape(part) for part in parts])
    if len(parts := split(text, _WORD["and"] + "|,|;")) > 1:
        return _flat("list", [read_shape(part) for part in parts if part])
    if len(parts := split(text, r"\\cup(?![A-Za-z])")) > 1:
        return Shape("union", items=tuple(read_shape(part) for part in parts))
    if len(parts := split(text, r"\\in(?![A-Za-z])")) == 2 and NAME.fullmatch(parts[0]):
        return read_shape(parts[1])
    if (interval := _inequality(text)) is not None:
        return interval
    if len(parts := split(text, "=")) > 1 and all(parts):
        return Shape("equation", parts[0], (read_shape(parts[-1]),))
    if (body := _enclosed(text, "\\{", "\\}")) is not None:
        return _set(body)
    if text == "\\emptyset":
        return Shape("set")
    for opened in "([":
        for closed in ")]":
            if (body := _enclosed(text, opened, closed)) is not None:
                items = split(body, ",")
                if len(items) == 1 and opened + closed == "()":
                    return read_shape(body)
                return Shape("brackets", opened + closed, tuple(map(read_shape, items)))
    if found := _MATRIX.fullmatch(text):
        rows = [row for row in re.split(r"\\\\", found["body"]) if row.strip()]
        return Shape("matrix", items=tuple(Shape("list", items=tuple(map(read_shape, row.split("&")))) for row in rows))
    if "\\pm" in text or "\\mp" in text:
        signs = (text.replace("\\pm", a).replace("\\mp", b) for a, b in (("+", "-"), ("-", "+")))
        return Shape("list", items=tuple(read_shape(each.strip().removeprefix("+")) for each in signs))
    if found := _BASE.fullmatch(text):
        return Shape("base", found["base"], (Shape("scalar", found["digits"]),))
    return Shape("scalar", text)


def split(text: str, separator: str) -> list[str]:
    """``text`` at the separators (a pattern) that are in no brackets."""
    parts, depth, begun, at, pattern = [], 0, 0, 0, re.compile(separator)
    while at < len(text):
        if depth == 0 and (found := pattern.match(text, at)):
            parts.append(text[begun:at].strip())
            begun = at = found.end()
            continue
        if text.startswith("\\begin{", at) or text.startswith("\\end{", at):
            depth += 1 if text[at + 1] == "b" else -1
            at = text.find("}", at) + 1 or len(text)
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        at += 1
    return [*parts, text[begun:].strip()]


def _either(items: Sequence[Shape]) -> Shape:
    if all(item.kind == "brackets" for item in items):
        return Shape("union", items=tuple(items))
    return _flat("list", items)


def _flat(kind: Kind, items: Sequence[Shape]) -> Shape:
    r"""Lists within (as ``\pm`` makes them) are taken apart."""
    return Shape(kind, items=tuple(each for item in items for each in (item.items if item.kind == "list" else (item,))))


def _set(body: str) -> Shape:
    builder = split(body, r"\\mid(?![A-Za-z])|\||:")
    if len(builder) == 2 and NAME.fullmatch(split(builder[0], r"\\in(?![A-Za-z])")[0]):
        return read_shape(builder[1])
    return _flat("set", [read_shape(part) for part in split(body, ",") if part])


def _inequality(text: str) -> Shape | None:
    sides, signs = split(text, _RELATION), re.findall(_RELATION, text)
    if len(sides) - 1 != len(signs) or not all(sides):
        return None
    if len(sides) == 2:
        if NAME.fullmatch(sides[1]) and not NAME.fullmatch(sides[0]):
            sides, signs = sides[::-1], [_mirrored(signs[0])]
        if not NAME.fullmatch(sides[0]):
            return None
        strict, end = signs[0] in "<>", read_shape(sides[1])
        if signs[0] in ("<", "\\le"):
            return Shape("brackets", "(" + (")" if strict else "]"), (Shape("scalar", "-\\infty"), end))
        return Shape("brackets", ("(" if strict else "[") + ")", (end, Shape("scalar", "\\infty")))
    if len(sides) == 3 and NAME.fullmatch(sides[1]):
        if all(sign in (">", "\\ge") for sign in signs):
            sides, signs = sides[::-1], [_mirrored(sign) for sign in reversed(signs)]
        if all(sign in ("<", "\\le") for sign in signs):
            brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
            return Shape("brackets", brackets, (read_shape(sides[0]), read_shape(sides[2])))
    return None


def _mirrored(sign: str) -> str:
    return {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]


def _enclosed(text: str, opened: str, closed: str) -> str | None:
    """What is between brackets that open at the beginning and close at the end."""
    if not (text.startswith(opened) and text.endswith(closed) and len(text) >= len(opened + closed)):
        return None
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and letter in ")]}":
            return text[len(opened) : -len(closed)].strip() if at == len(text) - 1 else None
    return None


def _unbraced(text: str) -> str:
    while (body := _enclosed(text, "{", "}")) is not None:
        text = body
    return text
