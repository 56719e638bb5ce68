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
    r"(?:(?:therefore|thus|hence|simply|just|equal to)\s+)?(?=(?P<answer>[^\n]{1,2000}))",
    re.IGNORECASE,
)
_MARK = re.compile(r"####\s*(?P<answer>[^\n]+)")
_NUMBER = re.compile(r"(?:(?<![\w)}])[-\u2212])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?%?|(?<!\d)\.\d+")
_FORMULA = re.compile(
    r"\$\$?(?![\s$])(?P<a>[^$\n]*[^\s$])\$\$?|\\\((?P<b>.{1,500}?)\\\)|\\\[(?P<c>.{1,500}?)\\\]", re.DOTALL
)
_BARE_FORMULA = re.compile(r"=\s*(?P<answer>(?:[^=\n$\\]|\\[a-z{},])*\\[a-z]+(?:[^=\n$\\]|\\[a-z{},])*)$")
_BRACES = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s*\{)"
    r"|\\(?:boxed|fbox)(?![A-Za-z])\s*(?P<bare>[-\u2212]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?"
    r"|[^\W\d_](?![^\W\d_])|\\(?!boxed|fbox)[A-Za-z]+(?:\{[^{}]*\}|\d)*)"
    r"|\\.|[{}]",
    re.DOTALL,
)
_OPEN_BOX = re.compile(r"^\$*\\boxed\s*\{")
"""A box that the answer was cut off in, for instance by a budget: closed ones have a rule of their own."""
_REASON = re.compile(r"\.\s+(?=[A-Z(])|,?\s+(?:because|since|as\s+(?:we|the)|which)\s", re.IGNORECASE)
_VERDICT = re.compile(
    r"(?:not|(?:in)?correct|right|wrong|(?:un)?clear|(?:in)?consistent|(?:un)?reasonable|plausible|valid|verified"
    r"|confirmed|as follows|fine|ok(?:ay)?)\b"
)
"""What an answer is called, which is none itself."""
_VALUE = re.compile(r"[\d$\\]|\b(?!I\b)[A-Z]|(?<!\w)[\"'`\u2018\u201c]")
LONGEST_FORMULA = 300
"""Characters of a formula that is not marked as one."""
_THOUGHT = re.compile(r"</think>", re.IGNORECASE)
_OTHER_TAGS = re.compile(r"</?think>|<\|[a-z_]+\|>", re.IGNORECASE)
_LETTER_BOXED = re.compile(r"^\W*(?:(?:text|textbf|mathrm|mathbf)(?=\W))?\W*([A-J])(?:\W*$|[).:])")
_LETTER = (
    r"[\s\[$\\{*_]*(?:(?i:choice|option|boxed|text|textbf|mathrm|mathbf)\b[\s\[$\\{*_]*){0,4}"
    r"(?:\((?P<bracketed>[A-Ja-j])\)|\(?(?P<bare>[A-HJ]|I(?!\s+[a-z]))(?![\w'\u2019]))"
    r"(?![)\]}*_$]*\s+(?:(?:is|was|would\s+be)(?:n['\u2019]t|\s+(?:\w+ly\s+|also\s+)?(?:not|wrong|incorrect|false))"
    r"|fails|cannot|can['\u2019]t|does\s+not|doesn['\u2019]t)\b)"
)
"""A letter and what is around it, unless it is said to be wrong."""
_LETTER_SAID = (
    re.compile(
        r"(?i:answer|choice|option)[*_]*(?:\s+(?i:is)\b(?:\s*:)?|[^\S\n]*[:\n])"
        + _LETTER
        + r"|(?:(?<=\()|\b)(?P<praised>[A-J])[)}$*_]*\s+is\s+(?:the\s+)?(?:correct|right|best|(?:final\s+)?answer)\b"
    ),
    re.compile(
        r"(?i:\b(?:pick|choose|choosing|chose|select|go(?:ing)?\s+with|went\s+with|opt(?:ing)?\s+for|settl(?:e|ing)\s+(?:on|for))"
        r"[a-z]*\s+(?:the\s+)?(?:answer|choice|option))" + _LETTER
    ),
    re.compile(r"(?i:answer|choice|option)" + _LETTER + r"\W*\Z"),
)
"""Said to be the answer, chosen, and what the text ends with."""
_UNSAID = re.compile(
    r"(?:\b(?:never|neither|nor|or|if|whether|might|may|could)|not|n['\u2019]t)[ ]+"
    r"(?:(?:think|believe|say|mean|true|that|i|we|you|the|correct|right|best|final|answer|option|choice)[ ]+){0,6}"
    r"[^\w\n]*$",
    re.IGNORECASE,
)
"""In front of a statement that is denied or only supposed."""
_NO_CHOICE = re.compile(
    r"(?:\b(?:or|and|nor)|not|n['\u2019]t)\s+(?:(?:be|the|answer|option|choice)\s+){0,3}\W*$", re.IGNORECASE
)
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
    """The letter of a multiple choice: boxed, said to be the answer, chosen, or at the end; the last of several."""
    text = final_text(response)
    boxed = last_boxed(text)
    if boxed is not None and (found := _LETTER_BOXED.match(boxed)):
        return Extracted(found[1], "boxed")
    for pattern in _LETTER_SAID:
        said = [
            each for each in pattern.finditer(text) if not _UNSAID.search(text, max(0, each.start() - 80), each.start())
        ]
        if said:
            return Extracted(next(letter for letter in said[-1].groups() if letter).upper(), "answer is")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if (alone := _LETTER_ALONE.search(last)) and not _NO_CHOICE.search(last, 0, alone.start(1)):
        return Extracted(alone[1], "letter")
    return Extracted("", "none")


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} that is not empty and whose braces close; None: there is none.

    Of nested ones the innermost. Without braces it holds one number, letter or command. One pass, since a model that
    repeats itself may open thousands.
    """
    found, found_at = None, -1
    opened: list[int | None] = []  # of each open brace where the content begins, None: it is no box's
    for mark in _BRACES.finditer(text):
        if mark["bare"] is not None:
            found, found_at = mark["bare"], mark.start("bare")
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
    """What is last said to be the answer; mere words do not take the place of a value or a name."""
    found = [each["answer"] for each in _SAYS.finditer(text)]
    values = (answer for answer in map(_stated, reversed(found)) if _is_value(answer))
    return next(values, _stated(found[-1]) if found else "")


def _stated(answer: str) -> str:
    """The answer without why it is."""
    answer = _OPEN_BOX.sub("", answer.strip())
    if formula := _FORMULA.match(answer):
        return formula[0]
    if answer.startswith("**") and (end := answer.find("**", 2)) > 2:
        return _plain(answer[2:end])
    return _plain(_REASON.split(answer, maxsplit=1)[0])


def _is_value(answer: str) -> bool:
    return not _VERDICT.match(answer) and (_VALUE.search(answer) is not None or not has_words(answer))


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
