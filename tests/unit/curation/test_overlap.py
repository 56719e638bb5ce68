"""Rows that share text with evaluation questions, or with each other."""

from multiverse.curation.checks.overlap import Duplicates, EvaluationQuestions, words

QUESTION = "A train leaves at noon and goes 60 miles an hour; how far is it by five?"
WORDS = [f"word{number}" for number in range(19)]


def test_words_are_compared_without_case_and_signs() -> None:
    assert words("$X_1$ is 3.5, \u00dcBER all!") == ["x", "1", "is", "3", "5", "\u00fcber", "all"]


def test_thirteen_words_in_a_row_are_found() -> None:
    questions = EvaluationQuestions({"set/1": "What is one and one?", "set/2": QUESTION})
    assert questions.find("Q", "We know: a TRAIN leaves at noon -- and goes 60 miles an hour, how far") == "set/2"
    assert questions.find(QUESTION, "") == "set/2"
    assert questions.find("Q", "A train leaves at noon and goes 60 miles an hour, but how") is None


def test_short_questions_are_found_whole_only() -> None:
    questions = EvaluationQuestions({"set/1": "What is one and one?", "set/2": "??"})
    assert questions.find("what is One and one", "") == "set/1"
    assert questions.find("Say, what is one and one?", "") is None
    assert questions.find("", "") is None


def test_a_row_that_comes_again_is_a_duplicate() -> None:
    seen = Duplicates()
    assert seen.add("1", "Two and two is four.") is None
    assert seen.add("2", "Two and three is five.") is None
    assert seen.add("3", "two and TWO is: four") == "1"


def test_a_row_that_is_nearly_the_same_is_a_duplicate() -> None:
    seen = Duplicates()
    long = [f"{one} {other}" for one in WORDS for other in WORDS]
    assert seen.add("1", " ".join(long)) is None
    changed = [*long[:100], "changed", *long[101:]]
    assert seen.add("2", " ".join(changed)) == "1"
    assert seen.add("3", " ".join(long[::-1])) is None
    half = long[: len(long) // 2]
    assert seen.add("4", " ".join(half)) is None
