"""Does an answer equal the reference? Its parts are compared by rules, its numbers exactly, the rest by math-verify."""

import re
from collections.abc import Sequence
from typing import Any

from multiverse.evaluation.grading.normalize import FUNCTIONS, has_words, normalize, unwrap, words
from multiverse.evaluation.grading.numbers import read_number
from multiverse.evaluation.grading.shape import NAME, Shape, read_shape
from multiverse.evaluation.grading.symbolic import same_equation, same_expression
from multiverse.evaluation.grading.units import split_units

LONGEST = 1000
"""Characters of an answer. A longer one is none."""
_GREEK = "alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi varphi psi omega Delta Omega"
_VARIABLE = re.compile(rf"\\(?:{'|'.join(_GREEK.split())})(?![A-Za-z])|(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_CHOICE = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(r"\(([A-J])\)|([A-J])(?:[.:)]|$)")
_NAMED = re.compile(r"^[A-Za-z][A-Za-z ]+[:=]\s*(?=\S)")


def equal(answer: str, reference: str) -> bool:
    """Whether ``answer`` is right. Takes as long as sympy takes, which may be for ever: `Grader` has limits.

    Raises ValueError for an answer longer than `LONGEST`, and whatever sympy raises.
    """
    if not answer.strip():
        return False
    if len(answer) > LONGEST:
        raise ValueError(f"the answer has {len(answer)} characters: the most is {LONGEST}")
    ours, theirs = normalize(answer), normalize(reference)
    if _squeezed(ours) == _squeezed(theirs):
        return True
    if choice := _CHOICE.fullmatch(unwrap(theirs)):
        chosen = _CHOSEN.match(unwrap(ours))
        return chosen is not None and (chosen[1] or chosen[2]) == choice[1]
    (value, unit), (wanted, wanted_unit) = split_units(ours), split_units(theirs)
    if unit and wanted_unit and unit != wanted_unit:
        return False
    value, wanted = unwrap(value), unwrap(wanted)
    if has_words(_without_connectors(wanted)):
        return bool(words(answer)) and words(answer) == words(reference)
    value = _NAMED.sub("", value) if has_words(value) else value
    value, _ = split_units(value)
    if has_words(_without_connectors(value)):
        return False  # a sentence, in which some number might be right
    found, gold = read_shape(value), read_shape(wanted)
    if unit == "%" and not wanted_unit and found.kind == gold.kind == "scalar":
        # 75 % is 75 where the question asks for per cent, and 3/4 where it asks for a share.
        return _same(found, gold) or _same(Shape("scalar", rf"\frac{{{value}}}{{100}}"), gold)
    return _same(found, gold)


def _same(ours: Shape, theirs: Shape) -> bool:
    if "equation" in (ours.kind, theirs.kind):
        return _same_equations(ours, theirs)
    kinds = {ours.kind, theirs.kind}
    if kinds <= {"list", "set"} or kinds == {"union"}:
        return _matched(ours.items, theirs.items)
    if kinds == {"scalar", "set"}:
        one, other = (ours, theirs) if ours.kind == "set" else (theirs, ours)
        return len(one.items) == 1 and _same(one.items[0], other)
    if kinds == {"list", "brackets"}:
        # A point without its parentheses, or a list in parentheses: the order then counts.
        return "()" in (ours.text, theirs.text) and _in_order(ours.items, theirs.items)
    if kinds == {"base", "scalar"}:
        return theirs.kind == "base" and _squeezed(ours.text) == theirs.items[0].text  # the question names the base
    if len(kinds) > 1:
        return False
    if ours.kind == "scalar":
        return _same_scalars(ours.text, theirs.text)
    if ours.kind == "base":
        return (ours.text, ours.items[0].text) == (theirs.text, theirs.items[0].text)
    if ours.kind == "matrix":
        return len(ours.items) == len(theirs.items) and all(
            _in_order(a.items, b.items) for a, b in zip(ours.items, theirs.items, strict=True)
        )
    return ours.text == theirs.text and _in_order(ours.items, theirs.items)


def _same_equations(ours: Shape, theirs: Shape) -> bool:
    if ours.kind != theirs.kind:
        equation, other = (ours, theirs) if ours.kind == "equation" else (theirs, ours)
        if NAME.fullmatch(equation.text) or (equation is ours and not _variables(equation.text)):
            return _same(equation.items[0], theirs) if equation is ours else _same(ours, equation.items[0])
        return NAME.fullmatch(equation.items[0].text) is not None and _same_scalars(equation.text, other.text)
    (right,), (wanted,) = ours.items, theirs.items
    if NAME.fullmatch(ours.text) and _squeezed(ours.text) == _squeezed(theirs.text):
        return _same(right, wanted)
    if {right.kind, wanted.kind} != {"scalar"} or not _variables(f"{ours.text} {right.text}") <= _variables(
        f"{theirs.text} {wanted.text}"
    ):
        return False
    return same_equation((ours.text, right.text), (theirs.text, wanted.text))


def _matched(ours: Sequence[Shape], theirs: Sequence[Shape]) -> bool:
    """Whether each has one that is equal to it, in any order."""
    left = list(theirs)
    if len(ours) != len(left):
        return False
    for item in ours:
        place = next((place for place, other in enumerate(left) if _same(item, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _in_order(ours: Sequence[Shape], theirs: Sequence[Shape]) -> bool:
    return len(ours) == len(theirs) and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_scalars(ours: str, theirs: str) -> bool:
    if _squeezed(ours) == _squeezed(theirs):
        return True
    if re.search(r"(?<![_^\d.])[\d.]+\s+\d", ours) and read_number(ours) is None:
        return False  # two numbers, whatever they are to each other
    if not _variables(ours) <= _variables(theirs):
        return False
    return same_expression(ours, theirs)


def _variables(text: str) -> set[Any]:
    """Letters that stand for something: not functions, and not e and i."""
    for name in FUNCTIONS:
        text = re.sub(rf"(?<![A-Za-z]){name}(?![A-Za-z])", " ", text)
    text = re.sub(r"(?<![\\A-Za-z])([A-Za-z]{2})(?![A-Za-z])", lambda found: " ".join(found[1]), text)
    return set(_VARIABLE.findall(text)) - {"e", "i"}


def _without_connectors(text: str) -> str:
    return re.sub(r"(?<![A-Za-z])(?:or|and)(?![A-Za-z])", ",", text)


def _squeezed(text: str) -> str:
    """Without the spaces that part no digits."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)
