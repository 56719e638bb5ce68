"""What a response says the answer is, and by which rule that was found."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from multiverse.evaluation.grading.normalize import has_words, unwrap
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import GrammarError
from multiverse.structure.tags import TAG_PATTERN

_SAYS = re.compile(
    r"(?:final\s+)?answer\s*(?:is|was|=|:|to\s+\S+(?:\s+\S+){0,3}\s+is)\s*:?\s*"
    r"(?:(?:therefore|thus|hence|simply|just|equal to)\s+)?(?=(?P<answer>[^\n]+))",
    re.IGNORECASE,
)
_MARK = re.compile(r"####\s*(?P<answer>[^\n]+)")
_NUMBER = re.compile(r"(?:(?<![\w)}])[-\u2212])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?%?|(?<!\d)\.\d+")
_FORMULA = re.compile(
    r"\$\$?(?![\s$])(?P<a>[^$\n]*[^\s$])\$\$?|\\\((?P<b>.{1,500}?)\\\)|\\\[(?P<c>.{1,500}?)\\\]", re.DOTALL
)
_BARE_FORMULA = re.compile(r"=\s*(?P<answer>(?:[^=\n$\\]|\\[a-z{},])*\\[a-z]+(?:[^=\n$\\]|\\[a-z{},])*)$")
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\(?:boxed|fbox)\s*(?P<bare>[^\s{$][^\s$]*)|\\.|[{}]", re.DOTALL)
_OPEN_BOX = re.compile(r"^\$*\\boxed\s*\{")
"""A box that the answer was cut off in, for instance by a budget: closed ones have a rule of their own."""
_REASON = re.compile(r"\.\s+(?=[A-Z(])|,?\s+(?:because|since|as\s+(?:we|the)|which)\s", re.IGNORECASE)
LONGEST_FORMULA = 300
"""Characters of a formula that is not marked as one."""
_THOUGHT = re.compile(r"</think>", re.IGNORECASE)
_OTHER_TAGS = re.compile(r"</?think>|<\|[a-z_]+\|>", re.IGNORECASE)
_LETTER_BOXED = re.compile(r"^\W*(?:(?:text|textbf|mathrm|mathbf)(?=\W))?\W*([A-J])(?:\W*$|[).:])")
_LETTER_SAID = re.compile(
    r"(?i:answer|choice|option)\s*(?i:is|:)?\s*:?\s*(?i:choice|option)?\s*[\[$\\{*_\s]*(?:boxed\{|text\{|textbf\{)*\s*"
    r"(?:\((?P<bracketed>[A-Ja-j])\)|\(?(?P<bare>[A-HJ]|I(?!\s+[a-z]))(?![\w'\u2019]))"
    r"|(?:(?<=\()|\b)(?P<praised>[A-J])[)*]*\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
)
_NO_CHOICE = re.compile(r"\b(?:not|or|and|nor)\s+\W*$", re.IGNORECASE)
_LETTER_ALONE = re.compile(r"(?:^|[\s(*])\(?([A-J])\)?[.:)*]*\s*$")


@dataclass(frozen=True, slots=True)
class Extracted:
    """rule: "boxed", "####", "answer is", "last formula", "last number", "last line", "letter", or "none" of them."""

    answer: str
    rule: str


def final_text(response: str) -> str:
    """What is said when thinking is over, without structure: a text that is no valid structure loses its tags."""
    said = _THOUGHT.split(response)[-1]
    return _plain_text(said if said.strip() else response)


def extract(response: str) -> Extracted:
    """The answer to a question of mathematics, or of any other kind with a short answer.

    What stands behind the thinking counts before what is in it. The last of several counts, by the first of the rules
    that finds any: boxed, behind ####, said to be the answer, a formula at the end, a number, and else the last line.
    """
    said = final_text(response)
    texts = (said,) if (whole := _plain_text(response)) == said else (said, whole)
    for text in texts:
        for rule, find in _RULES:
            if found := find(text):
                return Extracted(found, rule)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Extracted(_plain(lines[-1]), "last line") if lines else Extracted("", "none")


def extract_choice(response: str) -> Extracted:
    """The letter of a multiple choice."""
    text = final_text(response)
    boxed = last_boxed(text)
    if boxed is not None and (found := _LETTER_BOXED.match(boxed)):
        return Extracted(found[1], "boxed")
    if said := list(_LETTER_SAID.finditer(text)):
        return Extracted((said[-1]["bracketed"] or said[-1]["bare"] or said[-1]["praised"]).upper(), "answer is")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if (alone := _LETTER_ALONE.search(last)) and not _NO_CHOICE.search(last, 0, alone.start(1)):
        return Extracted(alone[1], "letter")
    return Extracted("", "none")


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} that is not empty and whose braces close; None: there is none.

    Of nested ones the innermost. One pass, since a model that repeats itself may open thousands.
    """
    found, found_at = None, -1
    opened: list[int | None] = []  # of each open brace where the content begins, None: it is no box's
    for mark in _BRACES.finditer(text):
        if mark["bare"] is not None:
            found, found_at = mark["bare"].rstrip(".,"), mark.start("bare")
        elif mark["box"] is not None:
            opened.append(mark.end())
        elif mark[0] == "{":
            opened.append(None)
        elif mark[0] == "}" and opened:
            begun = opened.pop()
            if begun is not None and found_at < begun and (inner := text[begun : mark.start()]).strip():
                found, found_at = inner, begun
    return found


def _plain_text(text: str) -> str:
    try:
        text = flatten_text(text)
    except GrammarError:
        text = TAG_PATTERN.sub("", text)
    return _OTHER_TAGS.sub("", text)


def _boxed(text: str) -> str:
    return (last_boxed(text) or "").strip()


def _marked(text: str) -> str:
    found = _MARK.findall(text)
    return _plain(found[-1]) if found else ""


def _said(text: str) -> str:
    """What is said to be the answer, without why it is."""
    found = list(_SAYS.finditer(text))
    if not found:
        return ""
    answer = _OPEN_BOX.sub("", found[-1]["answer"].strip())
    if formula := _FORMULA.match(answer):
        return formula[0]
    if answer.startswith("**") and (end := answer.find("**", 2)) > 2:
        return _plain(answer[2:end])
    return _plain(_REASON.split(answer, maxsplit=1)[0])


def _formula(text: str) -> str:
    """The formula that the text ends with: no number and no word of mathematics behind it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and (bare := _BARE_FORMULA.search(lines[-1][-LONGEST_FORMULA:])) and not has_words(bare["answer"]):
        return _plain(bare["answer"])
    found = [each for each in _FORMULA.finditer(text) if not has_words(unwrap(each[0]))]
    if not found or _NUMBER.search(text, found[-1].end()):
        return ""
    return (found[-1]["a"] or found[-1]["b"] or found[-1]["c"]).strip().rstrip(".,")


def _number(text: str) -> str:
    found = _NUMBER.findall(text)
    return found[-1] if found else ""


_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("boxed", _boxed),
    ("####", _marked),
    ("answer is", _said),
    ("last formula", _formula),
    ("last number", _number),
)


def _plain(answer: str) -> str:
    """Without the full stop and the emphasis around it."""
    answer = answer.strip().strip("*_").strip()
    return answer[:-1].rstrip() if answer.endswith(".") and not answer.endswith("..") else answer
