"""Does an answer equal the reference? Symbolically and numerically, by math-verify, within a time limit."""

import re

from multiverse.evaluation.grading.normalize import normalize, words

PARSE_SECONDS, COMPARE_SECONDS = 5, 5
_WORDS = re.compile(r"[^\W\d_]{2,}")
_MATH = re.compile(r"\\|[\d=<>^+*/|∞]")


def equal(answer: str, reference: str) -> bool:
    """Whether ``answer`` is right. math-verify's limits work by signals: in the main thread of a process only."""
    if not answer.strip():
        return False
    ours, theirs = normalize(answer), normalize(reference)
    if "".join(ours.split()) == "".join(theirs.split()):
        return True
    if not _MATH.search(theirs):
        # Words, names, or a letter: nothing to compute.
        return bool(words(ours)) and words(ours) == words(theirs)
    if _WORDS.search(_commands_out(ours)) and not _WORDS.search(_commands_out(theirs)):
        return False  # a sentence, in which some number might be right
    return _verify(ours, theirs)


def _commands_out(text: str) -> str:
    return re.sub(r"\\[A-Za-z]+", " ", text)


def _verify(answer: str, reference: str) -> bool:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    kinds = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    gold, found = (
        parse(f"${text}$", extraction_config=kinds, parsing_timeout=PARSE_SECONDS, fallback_mode="no_fallback")
        for text in (reference, answer)
    )
    if not gold or not found:
        return False
    return bool(verify(gold, found, timeout_seconds=COMPARE_SECONDS, strict=True, float_rounding=6))
