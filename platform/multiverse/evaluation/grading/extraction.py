"""What a response says the answer is, and by which rule that was found."""

import re
from dataclasses import dataclass

from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import GrammarError
from multiverse.structure.tags import TAG_PATTERN

_SAYS = re.compile(
    r"(?:final\s+)?answer\s*(?:is|was|=|:|to\s+\S+(?:\s+\S+){0,3}\s+is)\s*:?\s*(?P<answer>[^\n]+)", re.IGNORECASE
)
_MARK = re.compile(r"####\s*(?P<answer>[^\n]+)")
_NUMBER = re.compile(r"[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?%?")
_LETTER_BOXED = re.compile(r"^\W*(?:text)?\W*([A-J])\W*$")
_LETTER_SAID = re.compile(
    r"(?:answer|choice|option)\s*(?:is|:)?\s*(?:choice|option)?\s*[\[($\\{*_\s]*(?:boxed\{|text\{)?\(?([A-J])\b(?!['\u2019\w])",
    re.IGNORECASE,
)
_LETTER_ALONE = re.compile(r"(?:^|[\s(*])\(?([A-J])\)?[.:)*]*\s*$")


@dataclass(frozen=True, slots=True)
class Extracted:
    """rule: "boxed", "####", "answer is", "last number", "last line", "letter" or "none" (then answer is "")."""

    answer: str
    rule: str


def final_text(response: str) -> str:
    """What is said when thinking is over, without structure: a text that is no valid structure stays as it is."""
    _, closed, after = response.rpartition("</Think>")
    text = after if closed and after.strip() else response
    try:
        text = flatten_text(text)
    except GrammarError:
        text = TAG_PATTERN.sub("", text)
    return text


def extract(response: str) -> Extracted:
    """The answer to a question of mathematics, or of any other kind with a short answer."""
    text = final_text(response)
    if (boxed := last_boxed(text)) is not None:
        return Extracted(boxed.strip(), "boxed")
    if marked := _MARK.findall(text):
        return Extracted(_plain(marked[-1]), "####")
    if said := [found["answer"] for found in _SAYS.finditer(text)]:
        return Extracted(_plain(said[-1]), "answer is")
    if numbers := _NUMBER.findall(text):
        return Extracted(numbers[-1], "last number")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Extracted(_plain(lines[-1]), "last line") if lines else Extracted("", "none")


def extract_choice(response: str) -> Extracted:
    """The letter of a multiple choice."""
    text = final_text(response)
    boxed = last_boxed(text)
    if boxed is not None and (found := _LETTER_BOXED.match(boxed)):
        return Extracted(found[1], "boxed")
    if said := _LETTER_SAID.findall(text):
        return Extracted(said[-1].upper(), "answer is")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if alone := _LETTER_ALONE.search(last):
        return Extracted(alone[1], "letter")
    return Extracted("", "none")


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} whose braces close; of several in a row the last; None: there is none."""
    found = None
    for opened in re.finditer(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>[^\s{][^\s$]*))", text):
        if opened["bare"] is not None:
            found = opened["bare"].rstrip(".,")
            continue
        depth, at = 1, opened.end()
        while at < len(text) and depth:
            if text[at] == "\\":
                at += 1
            elif text[at] in "{}":
                depth += 1 if text[at] == "{" else -1
            at += 1
        if not depth:
            inner = text[opened.end() : at - 1]
            found = nested if (nested := last_boxed(inner)) is not None else inner
    return found


def _plain(answer: str) -> str:
    """Without the full stop and the emphasis around it."""
    answer = answer.strip().strip("*_").strip()
    return answer[:-1].rstrip() if answer.endswith(".") and not answer.endswith("..") else answer
