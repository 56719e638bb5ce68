"""What stands behind or before a number and is no part of it: units, currencies, per cent, what was counted."""

import calendar
import re

from multiverse.evaluation.grading.normalize import FUNCTIONS

_SPELLINGS = {
    "%": "% percent pct",
    "degree": "degree degrees deg",
    "celsius": "celsius",
    "fahrenheit": "fahrenheit",
    "dollar": "USD dollar dollars usd",
    "cent": "cent cents",
    "euro": "EUR euro euros eur",
    "pound": "GBP gbp",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "mph": "mph",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "gram": "g gram grams",
    "kg": "kg kilogram kilograms",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs",
    "ounce": "oz ounce ounces",
    "liter": "l L liter liters litre litres",
    "ml": "ml mL milliliter milliliters millilitre millilitres",
    "gallon": "gallon gallons",
    "radian": "rad radian radians",
    "a.m.": "am a.m. AM",
    "p.m.": "pm p.m. PM",
}
_KNOWN = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_KNOWN |= {month.lower(): month for month in calendar.month_name[1:]}
_MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NO_UNIT = (
    FUNCTIONS
    | {
        "or",
        "and",
        "is",
        "not",
        "no",
        "are",
        "was",
        "if",
        "for",
        "to",
        "than",
        "when",
        "where",
        "but",
        "maybe",
        "about",
    }
    | {"about", "over", "squared", "cubed", "factorial", "plus", "minus", "times", "by", "divided", "equals", "unclear"}
    | {
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
        "quarters",
        "fourth",
        "fourths",
        "fifth",
        "fifths",
        "none",
        "wrong",
    }
)
_POWER = r"(?:\s*\^\s*\{?\s*([23])\s*\}?)?"
_TEXT_TAIL = re.compile(rf"\\(?:text(?:rm)?|mathrm|mbox|rm)\s*\{{\s*([^{{}}\d]*?)\s*\}}{_POWER}\s*$")
_WORDS_TAIL = re.compile(rf"(?<![\\A-Za-z_{{])((?:[A-Za-z]+\.?(?:\s+|\s*/\s*|-))*[A-Za-z]+\.?){_POWER}\s*$")
_CURRENCY = re.compile(r"^(-?)\s*(USD|EUR|GBP)\s*")


def split_units(text: str) -> tuple[str, str]:
    r"""A normalised answer and its unit: ``5\text{ cm}`` is ("5", "cm"). Unit "": none, or only what is counted.

    "5 million" is ("(5)*1000000", ""). An answer that has nothing before the words stays whole.
    """
    if found := _CURRENCY.match(text):
        rest, _ = split_units(found[1] + text[found.end() :])
        return rest, _KNOWN[found[2]]
    if text.endswith("%"):
        return text[:-1].strip(), "%"
    if text.endswith("^\\circ"):
        return text.removesuffix("^\\circ").strip(), "degree"
    in_text = _TEXT_TAIL.search(text)
    found = in_text or _WORDS_TAIL.search(text)
    if found is None or not _is_amount(core := text[: found.start()].rstrip()):
        return text, ""
    names = re.findall(r"%|\b[ap]\.m\.|[^\W\d_]+", found[1])
    if not names or any(name.lower() in _NO_UNIT for name in names):
        return text, ""
    if not in_text and any(len(name) == 1 and name not in _KNOWN for name in names):
        return text, ""
    if not in_text and len(names[0]) == 1 and not text[: found.start()].endswith(" "):
        return text, ""  # 5m: a product
    if names[0].lower() in _MULTIPLES:
        core, names = f"({core})*{_MULTIPLES[names[0].lower()]}", names[1:]
    inner, before = split_units(core)
    return inner, _unit(names, found[2]) or before


def _is_amount(core: str) -> bool:
    """Whether it ends like something that can be counted or measured."""
    return bool(re.search(r"(?:[\d})\]!.%]|\\pi|\\circ|[A-Za-z^]\^\d)$", core)) and bool(re.search(r"\d|\\", core))


def _unit(names: list[str], power: str | None) -> str:
    lower = {name.lower() for name in names}
    if power is None:
        power = "2" if lower & {"square", "sq"} else "3" if lower & {"cubic", "cu"} else None
    known = [_KNOWN.get(name) or _KNOWN.get(name.lower()) for name in names]
    found = "/".join(unit for unit in known if unit)
    return f"{found}^{power}" if found and power else found
