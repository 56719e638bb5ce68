"""Numbers as they are written: exact fractions, never floats."""

import re
from dataclasses import dataclass
from fractions import Fraction

ENOUGH_DIGITS = 6
"""Significant digits from which on a decimal stands for the number that it is cut or rounded from."""
_LARGEST_EXPONENT = 1000
_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<digits>{_DECIMAL})"
    rf"(?:\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*(?:\{{\s*(?P<braced>[-+]?\d+)\s*\}}|(?P<bare>[-+]?\d+))|[eE](?P<e>[-+]?\d+))?"
)
_REPEATING = re.compile(r"(?P<sign>-?)\s*(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:over)?(?:line|bar)\s*\{(?P<again>\d+)\}")
_POWER_OF_TEN = re.compile(r"(?P<sign>[-+]?)\s*10\s*\^\s*(?:\{\s*(?P<braced>[-+]?\d+)\s*\}|(?P<bare>\d+))")
_FRACTION = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<whole>\d+(?=\s*\\frac)|\d+(?=\s+\d))?\s*"
    rf"(?:\\frac\s*\{{\s*(?P<top>-?\s*{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>-?\s*{_DECIMAL})\s*\}}"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>-?\s*{_DECIMAL}))"
)


@dataclass(frozen=True, slots=True)
class Number:
    """digits: significant ones of a decimal with a point, else 0. step: the value of one in its last place."""

    value: Fraction
    digits: int = 0
    step: Fraction = Fraction(0)


def read_number(text: str) -> Number | None:
    """A decimal, also with a power of ten or a part that repeats, a fraction or a mixed number; None: no such."""
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"[, ]", "", text)
    if found := _PLAIN.fullmatch(text):
        return _decimal(found["sign"], found["digits"], found["braced"] or found["bare"] or found["e"] or "0")
    if found := _POWER_OF_TEN.fullmatch(text):
        return _decimal(found["sign"], "1", found["braced"] or found["bare"])
    if found := _REPEATING.fullmatch(text):
        shift = Fraction(1, 10 ** len(found["fixed"]))
        value = Fraction(int(f"0{found['whole']}{found['fixed']}")) * shift
        value += Fraction(int(found["again"]), 10 ** len(found["again"]) - 1) * shift
        return Number(-value if found["sign"] else value)
    if found := _FRACTION.fullmatch(text):
        top, bottom = (
            Fraction("".join(part.split()))
            for part in (found["top"] or found["over"], found["bottom"] or found["under"])
        )
        if not bottom or (found["whole"] and (top < 0 or bottom < 0)):
            return None
        value = Fraction(found["whole"] or 0) + top / bottom
        return Number(-value if found["sign"] == "-" else value)
    return None


def same_number(first: Number, second: Number) -> bool:
    """Whether they are equal: exactly, or one is a long decimal of the other, which is none."""
    return first.value == second.value or any(
        not other.digits and stands_for(decimal, other.value) for decimal, other in ((first, second), (second, first))
    )


def stands_for(decimal: Number, value: Fraction) -> bool:
    """Whether a decimal of enough digits is ``value`` cut or rounded there. Integers stand for themselves only."""
    if decimal.digits < ENOUGH_DIGITS or value.denominator == 1:
        return False
    cut = int(value / decimal.step) * decimal.step
    return decimal.value == cut or 2 * abs(decimal.value - value) <= decimal.step


def _decimal(sign: str, digits: str, exponent: str) -> Number | None:
    if len(exponent) > 5 or abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    scale = Fraction(10) ** int(exponent)
    value = Fraction(digits.rstrip(".") if digits.endswith(".") else digits) * scale
    value = -value if sign == "-" else value
    whole, point, places = digits.partition(".")
    if not point or not places:
        return Number(value)
    return Number(value, len((whole + places).lstrip("0")), scale / 10 ** len(places))
