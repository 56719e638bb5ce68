"""Chains cut into sentences."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curation.chain.sentences import Sentence, split

# Sentences are divided by "|" here.
CASES = [
    "",
    "One.",
    "No stop at all",
    "First one. |Second one.",
    "First one.  |Second one. ",
    "Really? |Yes! |Good.",
    "What?! |No.",
    'He said "stop." |Then he left.',
    "It is so (see below). |Then go on.",
    "(This is whole.) |And this too.",
    "**Bold end.** |*Next* one. |**Third** one.",
    "A line without a stop\n|another line",
    "A paragraph.\n\n|Another one.",
    "Windows line.\r\n|Next line.\r\n",
    "Indented:\n    |code line",
    "  Leading space. |Then.",
    "\n\nLeading breaks. |Then.",
    "   \n ",
    "Pi is 3.14159 or so. |Next.",
    "Add 1.5 and 2.5. |Then halve it.",
    "The sum is 5. |Then add 3.",
    "It costs $5. |She pays $10. |Then $3 are left.",
    "It costs $5 and not $6. |He pays.",
    "Use e.g. Newton's method. |Then stop.",
    "Use this, i.e. Take the root. |Then stop.",
    "Ask Dr. Smith and Mrs. Lee. |They know.",
    "By Eq. (3) and Fig. 2 it holds. |See Thm. 4.",
    "Smith et al. Show that. |Fine.",
    "Is it No. 5? |No. |It is not.",
    "On Jan. 5 it rained. |We met in Jan. |It rained.",
    "He came at 5 p.m. |She left.",
    "About 800 sq. ft. in total.",
    "Compare cats vs. Dogs. |Done.",
    "By G. H. Hardy and J. Littlewood. |Nice.",
    "Go on to point A. |Then turn.",
    "In the U.S. Army. |In the U.S. |The end.",
    "1. First item. |2. Second item.",
    "1. First\n|2. Second\n|10. Tenth",
    "- Item one. |More of it.\n|- Item two.",
    "a. Apples\n|b. Pears",
    "iv. Fourth item. |Then.",
    "**1.** Compute it. |Then stop.",
    "### 2. Heading\n|Text.",
    "Step 1. Compute the area. |Step 2. Halve it.",
    "Case 2. The other sign. |Done.",
    "Wait... maybe not. |No.",
    "Hmm... I think so. |Well.",
    "1, 2, ..., n and so on. |Then.",
    "Hmm… maybe. |Yes.",
    "Hmm... |Let me see.",
    "We have $x = 1. Then y$ here. |Next.",
    "Thus $x = 5.$ |Then $y = 6.$ |Good.",
    "Thus $$x = 5. Then$$ is it. |Next.",
    "So \\(a. B\\) is. |Then \\[ c. D\n e \\] ends. |Good.",
    "Take $a\n+ b_1$ here. |Then.",
    "So \\begin{align} a. B\n c \\end{align} holds. |Then.",
    "An open \\( is nothing. |Then \\[ too. |And $ too.",
    "Escaped \\$5. |Then \\$6.",
    "Code:\n|```python\nx = 1. \n\nY = 2\n```\n|Then.",
    "Code:\n|~~~\na. B\n~~~\n|Then.",
    "Call `a. B` now. |Then `c`.",
    "An open ``` is nothing. |Then.",
    "5! is 120. |And 6! = 720. |Great!",
    "So 3! * 2 is 12. |Then.",
    "approx. half of it. |Then.",
    "Lower case. then goes on. |Then.",
    "That is all.|Alternatively, go back.",
    "Is it so?|Then $J$.|But no.",
    "Take V.|The rest is x³.|So.",
    "See Node.js and www.example.com or math.Floor(x). |Then.",
    "With a Ph.D. he left. |Then.",
    "\u597d\u3002|\u597d\uff01|\u597d\uff1f",
    "\u00dcber alles. |\u00c4hnlich.",
    "x = 2;\ty = 3.\t|Then.",
]


@pytest.mark.parametrize("case", CASES)
def test_sentences(case: str) -> None:
    found = [sentence.text for sentence in split(case.replace("|", ""))]
    assert "|".join(found) == case


def test_places_are_in_characters() -> None:
    assert split("\u00e4. B.\n") == [Sentence(0, 3, "\u00e4. "), Sentence(3, 6, "B.\n")]


def test_a_bar_stays_in_its_sentence() -> None:
    assert [sentence.text for sentence in split("So |x| is 1. Then $|y|. Z$.")] == ["So |x| is 1. ", "Then $|y|. Z$."]


_PIECES = [
    "a",
    "Then",
    "e.g.",
    "J",
    ".",
    "?",
    "...",
    " ",
    "\n",
    "\r\n",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "`",
    "```",
]
_PIECES += ["1", "~~~", "\\begin{a}", "\\end{a}", "\\", "\u3002", "\u2028", "\ud800", "!", ")", '"', "A.", "<Path>"]


@given(st.text() | st.lists(st.sampled_from(_PIECES)).map("".join))
def test_sentences_are_the_text(text: str) -> None:
    found = split(text)
    assert "".join(sentence.text for sentence in found) == text
    assert all(sentence.text == text[sentence.start : sentence.end] != "" for sentence in found)
    assert [sentence.end for sentence in found[:-1]] == [sentence.start for sentence in found[1:]]


@given(st.lists(st.sampled_from(_PIECES)).map("".join))
def test_white_space_belongs_to_the_sentence_before(text: str) -> None:
    assert not any(sentence.text[0].isspace() for sentence in split(text)[1:])


@pytest.mark.parametrize(
    "piece", ["$ ", "\\(", "\\[", "`", "``` ", "a. b ", "... ", "(", "$a b\n", "I.T", "A. ", "\n", "<"]
)
def test_time_is_linear(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    begin = time.process_time()
    split(text)
    assert time.process_time() - begin < 5
