"""Expressions and equations, compared by sympy and math-verify."""

import logging
from fractions import Fraction
from typing import Any

from multiverse.evaluation.grading.numbers import Number, read_number, same_number, stands_for

# It warns that its own time limits are off: `Grader` has others, which also end what signals cannot.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_DIGITS = 50
_CLOSE = 10.0**-30
"""Constants whose first 30 digits are equal are equal: no answer is that near another by chance."""


def same_expression(ours: str, theirs: str) -> bool:
    """Whether two expressions are equal: numbers exactly, constants to 30 digits, others as functions of their letters.

    A decimal of six digits or more stands for a number that it is cut or rounded from.
    """
    number, wanted = read_number(ours), read_number(theirs)
    if number is not None and wanted is not None:
        return same_number(number, wanted)
    found, gold = _parsed(ours), _parsed(theirs)
    if found is None or gold is None:
        return False
    if _is_constant(found) and _is_constant(gold):
        return _same_constants(found, number, gold, wanted)
    from math_verify import verify

    return bool(verify([gold], [found], strict=True, timeout_seconds=0))


def same_equation(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
    """Whether left minus right of the one is left minus right of the other, times a constant."""
    from sympy import simplify

    parts = [_parsed(side) for side in (*ours, *theirs)]
    if any(part is None for part in parts):
        return False
    left, right, wanted_left, wanted_right = parts
    wanted = simplify(wanted_left - wanted_right)
    if wanted == 0:
        return False
    ratio = simplify((left - right) / wanted)
    return not ratio.free_symbols and ratio.is_number and bool(ratio.is_finite) and ratio != 0


def _parsed(text: str) -> Any:
    """As sympy's expression; None: math-verify cannot read it. Its own time limit, by signals, is off."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from sympy import Float, I, Rational, Symbol

    as_it_is = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    found = parse(
        f"${text}$",
        extraction_config=(
            LatexExtractionConfig(boxed_match_priority=-1, normalization_config=as_it_is),
            ExprExtractionConfig(),
        ),
        fallback_mode="no_fallback",
        parsing_timeout=0,
    )
    if not found:
        return None
    value = found[0].doit()
    exact = {number: Rational(str(number)) for number in value.atoms(Float)}
    return value.xreplace(exact | {letter: I for letter in value.atoms(Symbol) if letter.name == "i"})


def _is_constant(value: Any) -> bool:
    from sympy import Expr

    return isinstance(value, Expr) and not value.free_symbols and bool(value.is_number)


def _same_constants(found: Any, number: Number | None, gold: Any, wanted: Number | None) -> bool:
    if found == gold:
        return True
    ours, theirs = found.evalf(_DIGITS), gold.evalf(_DIGITS)
    if not ours.is_finite or not theirs.is_finite:
        return False
    if abs(ours - theirs) <= _CLOSE * max(abs(theirs), _CLOSE):
        return True
    for decimal, other in ((number, theirs), (wanted, ours)):
        if decimal is not None and decimal.digits and other.is_real and stands_for(decimal, Fraction(str(other))):
            return True
    return False
