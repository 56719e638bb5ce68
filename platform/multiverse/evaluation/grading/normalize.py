"""Spellings that mean the same, before mathematics looks at an answer."""

import re

_UNITS = (
    "degrees? celsius|degrees? fahrenheit|degrees?|dollars?|cents?|euros?|pounds?|percent|square|cubic|cm|mm|km|m|in|"
    "ft|yd|inch(?:es)?|feet|foot|yards?|miles?|meters?|metres?|centimeters?|centimetres?|kilometers?|kilometres?|mph|kph|"
    "hours?|hrs?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|units?|grams?|kg|kilograms?|g|mg|lbs?|"
    "ounces?|liters?|litres?|l|ml|gallons?|people|students|children|ways|points|radians|rad|times|apples|pieces|items|old|per|an?"
)
_UNIT_TAIL = re.compile(
    rf"(?<=[\d}})\]])(?:~|\s)*(?:(?:{_UNITS})(?:\s*\^?\s*\{{?[23]\}}?|[\u00b2\u00b3])?(?:\s*/\s*|\s+|\.)?)+$",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname|rm)\s*\{([^{}]*)\}")
_MIXED = re.compile(r"(?<![\d.\w}])(-?)(\d+)\s*\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_MIXED_PLAIN = re.compile(r"^(-?)(\d+)\s+(\d+)\s*/\s*(\d+)$")
_THOUSANDS = re.compile(r"(?<!\d)(\d{1,3})((?:\{?,\}?(?:\\!)?\d{3})+)(?!\d)")
_ASSIGNED = re.compile(r"^\s*(?:[A-Za-z](?:_\{?\w+\}?)?|[A-Za-z]\([a-z]\))\s*(?:=|\\in)\s*(?P<value>[^=]+)$")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_SCIENTIFIC = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[x\u00d7*])\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?")
_E_NOTATION = re.compile(r"(?<=\d)[eE]([-+]?\d+)\b")
_SPACE = re.compile(r"(?<!\\)\\([,;:! ])")
_REPLACED = {
    "\u2212": "-",
    "\u00b0": "",
    "\u03c0": "\\pi ",
    "\u221a": "\\sqrt ",
    "\u221e": "\\infty ",
    "\\left": "",
    "\\right": "",
    "\\$": "",
    "\\%": "%",
    "dfrac": "frac",
    "tfrac": "frac",
    "^{\\circ}": "",
    "^\\circ": "",
    "\\displaystyle": "",
    "$": "",
    "\\(": "",
    "\\)": "",
    "\\[": "",
    "\\]": "",
}


def normalize(answer: str) -> str:
    """An answer without what makes no difference: dollars, degrees, units, commas of thousands, ``x =``, commands."""
    text = answer.strip()
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = _SPACE.sub(lambda found: "" if found[1] == "!" else " ", text)
    text = _TEXT.sub(r" \1 ", text)
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    if is_number_with_commas(text):
        text = _THOUSANDS.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), text)
    text = _UNIT_TAIL.sub("", text.strip())
    text = _MIXED.sub(r"\1(\2+\\frac{\3}{\4})", text)
    text = _MIXED_PLAIN.sub(r"\1(\2+\\frac{\3}{\4})", text.strip())
    text = _SCIENTIFIC.sub(r"*10^{\1}", text)
    text = _E_NOTATION.sub(r"*10^{\1}", text)
    if assigned := _ASSIGNED.match(text):
        text = assigned["value"]
    text = text.strip().rstrip("%").strip() if re.fullmatch(r"[-+\d.\s\\a-z{}/]*%", text.strip()) else text.strip()
    return text.removeprefix("+").strip().rstrip(".").strip()


def is_number_with_commas(text: str) -> bool:
    """Whether its commas are within one number: ``1,234`` is one, ``(1,234)`` and ``1, 234`` are two."""
    return not re.search(r"[(\[{]\s*-?\d{1,3},\d{3}\s*[)\]]", text) and not re.search(r"\d,\s+\d", text)


def words(answer: str) -> str:
    """For answers that are words: letters and digits in lower case, with single spaces."""
    return " ".join(re.findall(r"[^\W_]+", normalize(answer).casefold()))
