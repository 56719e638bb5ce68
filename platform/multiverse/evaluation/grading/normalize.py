"""Spellings that mean the same, before an answer is taken apart."""

import re

FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log"}
) | {"ln", "exp", "sqrt", "lim", "min", "max", "gcd", "lcm", "mod", "det", "pi"}
"""Names of mathematics that are letters but no words and no variables."""
_SPELLED = (
    ("\u2212", "-"),
    ("\u2013", "-"),
    ("\u00b0", "^\\circ "),
    ("\u03c0", "\\pi "),
    ("\u221e", "\\infty "),
    ("\u00d7", "\\times "),
    ("\u00b7", "\\cdot "),
    ("\u00f7", "/"),
    ("\u2264", "\\le "),
    ("\u2265", "\\ge "),
    ("\u222a", "\\cup "),
    ("\u2208", "\\in "),
    ("\u2205", "\\emptyset "),
    ("\u00b1", "\\pm "),
    ("\u00b2", "^2"),
    ("\u00b3", "^3"),
    ("\u00bd", "\\frac{1}{2}"),
    ("\u20ac", "EUR "),
    ("\u00a3", "GBP "),
    ("\\pounds", "GBP "),
    ("\\euro", "EUR "),
    ("\\$", "USD "),
    ("\\%", "%"),
    ("\\(", ""),
    ("\\)", ""),
    ("\\[", ""),
    ("\\]", ""),
    ("<=", "\\le "),
    (">=", "\\ge "),
    ("\\langle", "("),
    ("\\rangle", ")"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("**", "^"),
)
_PATTERNS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|phantom\{[^{}]*\})", ""),
        (r"(?<=\d)\s*(?:\{,\}|,\s*\\!)\s*(?=\d{3})", ""),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad\b|~", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (r"\u221a\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\u221a\s*(\d+|\w)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing", r"\\emptyset"),
        (r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ|\\degree", r"^\\circ "),
        (r"(\\(?:sin|cos|tan|cot|sec|csc))\s*\(?\s*(\d+)\s*\^\\circ\s*\)?", r"\1(\\frac{\2\\pi}{180})"),
        (r"\s*\(?\bbase\s+(\d+)\)?$", r"_{\1}"),
        (r"\s+", " "),
    )
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|mathrm|mathbf|mathbb|mbox|operatorname|rm|bf)\s*\{([^{}]*)\}")
_BASE_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*\(?base\s+(\d+)\)?\s*\}\s*$")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w)", re.IGNORECASE)


def normalize(answer: str) -> str:
    """An answer in one of the ways to spell LaTeX; what it means stays, and so do texts and units."""
    text = _dollars(answer.strip())
    for old, new in _SPELLED:
        text = text.replace(old, new)
    text = _BASE_TEXT.sub(r"_{\1}", text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".,;").strip().removeprefix("+").strip()


def _dollars(text: str) -> str:
    """``$`` before an amount is a currency, in pairs it is LaTeX's."""
    bare = re.findall(r"(?<!\\)\$", text)
    if len(bare) % 2:
        text = re.sub(r"(?<!\\)\$(?=\s*[\d.])", r"\\$", text, count=1)
    return re.sub(r"(?<!\\)\$", "", text)


def unwrap(text: str) -> str:
    r"""Without ``\text{...}`` and its like: what is in them stays, with spaces around it."""
    return _TEXT.sub(r" \1 ", text).strip()


def has_words(text: str) -> bool:
    """Whether there are words in it, which are no commands, functions or products of two variables."""
    plain = re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", " ", text)
    return any(word.lower() not in FUNCTIONS for word in re.findall(r"[^\W\d_]{3,}", plain))


def words(answer: str) -> str:
    """For answers that are words: letters and digits in lower case, with single spaces, without an article."""
    return " ".join(re.findall(r"[^\W_]+", _ARTICLE.sub("", unwrap(normalize(answer))).casefold()))
