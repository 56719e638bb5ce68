"""A chain cut into sentences; put behind each other they are the chain again, byte for byte.

A line break ends a sentence, and so does a stop before white space where a new sentence can begin. White space belongs
to the sentence before it, at the beginning of the text to the first. Nothing is cut inside math, code, list markers,
numbers, abbreviations, initials and ellipses. A stop that was glued to the next word ("done.But") is a border too:
chains that were joined from pieces have such.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise

import yaml

_LINE_BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_STOP = re.compile(r"([.!?…]+)[\"'\u201d\u2019)\]}*_»]*$")
_MATH_STOP = re.compile(r"(\.)(?:\$\$?|\\[)\]])$")
_OPENER = re.compile(r"\\begin\{([A-Za-z]+\*?)\}|\\[\s\S]|\$\$?|`+|(?m:^[ \t]*)~~~+")
_MATH = re.compile(r"[\\^_{]")
_LONGEST_MATH = 4_000
_MARKER = re.compile(
    r"[\s>#*_(\-+•]*(?:(?:step|case|part|option|method|approach|claim|example|question|problem)\s+)?"
    r"(?:\d{1,3}(?:\.\d+)*|[A-Za-z]|[ivx]{1,5})",
    re.IGNORECASE,
)
_LONGEST_STOP = 20
_LONGEST_WORD = 60
_WORD = re.compile(r"[^\s(\[{\"\u201c\u2018']*$")
_LETTERS = re.compile(r"[^\W\d_]+")
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_WORDS = {
    name: frozenset(words.split())
    for name, words in yaml.safe_load((resources.files(__package__) / "words.yaml").read_text(encoding="utf-8")).items()
}
_GLUED = "|".join(sorted(word for word in _WORDS["starters"] if len(word) > 1))
_BORDER = re.compile(
    r"\s+|(?<=[a-z0-9)$}\]])[.?!](?=[A-Z][^\W\d_]*[ ,:'\u2019])|[\u3002\uff01\uff1f]+"
    rf"|(?<=[^\s.])[.?!](?=(?:{_GLUED})\b)"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """``chain[start:end] == text``, in characters."""

    start: int
    end: int
    text: str


def split(text: str) -> list[Sentence]:
    """The sentences of ``text``, in order: ``"".join(s.text for s in split(text)) == text``. Time is linear."""
    pairs = pairwise([0, *_borders(text), len(text)])
    return [Sentence(start, end, text[start:end]) for start, end in pairs if start < end]


def _borders(text: str) -> Iterator[int]:
    whole = list(_whole(text))
    begins = [begin for begin, _ in whole]
    start = 0
    for found in _BORDER.finditer(text):
        span = bisect_right(begins, found.start()) - 1
        if (span >= 0 and found.start() < whole[span][1]) or found.end() <= start:
            continue
        if not found.group().isspace():
            border = _behind_space(text, found.end())
        elif found.start() > start and (_LINE_BREAKS.search(found.group()) or _ends(text, start, *found.span())):
            border = found.end()
        else:
            continue
        start = border
        yield border


def _behind_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _whole(text: str) -> Iterator[tuple[int, int]]:
    """Ranges that stay in one piece: math and code, in order and apart."""
    at = 0
    unclosed: set[str] = set()
    while opener := _OPENER.search(text, at):
        at = opener.end()
        token = opener.group().strip()
        closer = _closer(token, opener.group(1))
        if closer is None or closer in unclosed:
            continue
        is_code = token[0] in "`~" or opener.group(1) is not None
        end = text.find(closer, at) if is_code else text.find(closer, at, at + _LONGEST_MATH)
        if end < 0:
            if is_code:
                unclosed.add(closer)
        elif _is_one_piece(text, token, at, end):
            at = end + len(closer)
            yield opener.start(), at


def _closer(token: str, environment: str | None) -> str | None:
    if environment is not None:
        return f"\\end{{{environment}}}"
    return {"\\(": "\\)", "\\[": "\\]"}.get(token, None if token[0] == "\\" else token)


def _is_one_piece(text: str, token: str, begin: int, end: int) -> bool:
    """Whether text[begin:end] is the inside of math or code that ``token`` opens."""
    if token in ("`", "``"):
        return text.find("\n", begin, end) < 0
    if token[0] in "`~" or token.startswith("\\begin"):
        return True
    inside = text[begin:end]
    if _BLANK_LINE.search(inside):
        return False
    if token != "$":
        return True
    # A dollar before a number is money as often as math: "$5 or $6".
    if not inside or inside[0].isspace() or inside[-1].isspace() or text[end + 1 : end + 2].isdigit():
        return False
    return "\n" not in inside or _MATH.search(inside) is not None


def _ends(text: str, start: int, stop: int, after: int) -> bool:
    """Whether the sentence from ``start`` ends with the stop before the white space text[stop:after]."""
    if after == len(text) or text[stop - 1].isalnum() or not _can_begin(text, after):
        return False
    begin = max(start, stop - _LONGEST_STOP)
    found = _STOP.search(text, begin, stop) or _MATH_STOP.search(text, begin, stop)
    if found is None:
        return False
    mark = found.group(1)
    following = _LETTERS.match(text, after)
    next_word = following.group() if following else ""
    if "…" in mark or mark.startswith(".."):
        return len(next_word) > 1 and next_word[0].isupper()
    before = text[max(start, found.start() - _LONGEST_WORD) : found.start()]
    if "!" in mark and before[-1:].isdigit() and not next_word[:1].isupper():
        return False
    return mark != "." or not _is_abbreviated(before, next_word, text[after])


def _can_begin(text: str, at: int) -> bool:
    character = text[at]
    if character in "*_":
        return text[at + 1 : at + 2] in ("*", "_") or text[at + 1 : at + 2].isalpha()
    return not character.islower() and character not in ",;:)]}=+/<>^%|&.!?…·\u00d7÷"


def _is_abbreviated(before: str, next_word: str, next_character: str) -> bool:
    """Whether a period behind ``before`` belongs to its last word."""
    if _MARKER.fullmatch(before):
        return True
    found = _WORD.search(before)
    word = found.group() if found else ""
    if word in _WORDS["never_last"] or word.casefold() in ("e.g", "i.e"):
        return True
    if word in _WORDS["before_number"] and next_character.isdigit():
        return True
    if word in ("a.m", "p.m"):
        return next_character.isdigit()
    if (len(word) == 1 and word.isupper()) or _DOTTED.fullmatch(word):
        return bool(next_word) and next_word not in _WORDS["starters"]
    return False
