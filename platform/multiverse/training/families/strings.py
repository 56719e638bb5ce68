"""Work on the letters of words, which are given apart: ``p l a n``. Several words, or many changes to one."""

from importlib.resources import files

from multiverse.training.families.draw import Draw, listed
from multiverse.training.families.task import Part, Task, chained_task, split_task

WORDS = tuple(files(__package__).joinpath("words.txt").read_text(encoding="utf-8").split())
"""Common words of four letters."""


def backwards(draw: Draw) -> Task:
    """Words written backwards."""
    parts = [_turned(word) for word in _words(draw, draw.parts())]
    asked = draw.of(
        (
            "Write backwards: {}.",
            "Write these words backwards: {}.",
            "Turn around the letters of {}.",
            "Read each of these from the end: {}.",
            "Start with {}. Write each backwards. What do you get?",
            "Take the words {}. Write each of them backwards.",
        )
    )
    return split_task("backwards", asked.format(listed([part.outline for part in parts])), parts)


def letters(draw: Draw) -> Task:
    """How often a letter is in words, or which are their first and last letters."""
    words = _words(draw, draw.parts())
    if draw.random.random() < 0.5:
        letter = draw.of("".join(words))
        parts = [_counted(letter, word) for word in words]
        asked = draw.of(
            ("How many {letter} are there in {}?", "Count the letter {letter} in {}.", "How often is {letter} in {}?")
        )
    else:
        letter = ""
        parts = [_ends(word) for word in words]
        asked = draw.of(("Give the first and the last letter of {}.", "What are the first and last letters of {}?"))
    return split_task("letters", asked.format(listed([_spaced(word) for word in words]), letter=letter), parts)


def edits(draw: Draw) -> Task:
    """One word, changed several times."""
    (word,) = _words(draw, 1)
    now, lines = word, []
    asked: list[str] = []
    for _ in range(draw.number(2, 4)):
        what, after = _new_edit(draw, now, asked)
        asked.append(what)
        lines.append(f"{_spaced(now)}: {what}, so {_spaced(after)}.")
        now = after
    started = draw.of(
        ("Start with {word}. {steps}.", "Take the word {word}. {steps}.", "Change {word} like this: {steps}.")
    )
    steps = ". Then ".join(asked)
    steps = steps if "like this" in started else steps[0].upper() + steps[1:]
    question = f"{started.format(word=_spaced(word), steps=steps)} {draw.of(('What is left?', 'What do you get?'))}"
    return chained_task("edits", question, lines, _spaced(now))


def _words(draw: Draw, count: int) -> list[str]:
    return draw.several(count, lambda: draw.of(WORDS), lambda word: draw.mine(("word", word)))


def _spaced(word: str) -> str:
    return " ".join(word)


def _turned(word: str) -> Part:
    """A word backwards, its letters counted down."""
    down = ", ".join(f"{len(word) - place} {letter}" for place, letter in enumerate(word[::-1]))
    result = _spaced(word[::-1])
    return Part(_spaced(word), f"{_spaced(word)}: {_placed(word)}. Back: {down}. So {result}.", result)


def _counted(letter: str, word: str) -> Part:
    counts = [word[: place + 1].count(letter) for place in range(len(word))]
    running = ", ".join(f"{each} {count}" for each, count in zip(word, counts, strict=True))
    return Part(_spaced(word), f"{letter} in {_spaced(word)}: {running}. So {counts[-1]}.", str(counts[-1]))


def _ends(word: str) -> Part:
    return Part(
        _spaced(word), f"{_spaced(word)}: {_placed(word)}. First {word[0]}, last {word[-1]}.", f"{word[0]} {word[-1]}"
    )


def _placed(word: str) -> str:
    return ", ".join(f"{place} {letter}" for place, letter in enumerate(word, start=1))


def _new_edit(draw: Draw, word: str, before: list[str]) -> tuple[str, str]:
    """What is done, other than ``before``, and what comes of it."""
    return draw.one(lambda: _edit(draw, word), lambda edit: edit[0] not in before and len(edit[1]) > 2)


def _edit(draw: Draw, word: str) -> tuple[str, str]:
    letter = draw.of("abcdefghijklmnoprstuvwy")
    return draw.of(
        (
            (f"put {letter} at the end", word + letter),
            (f"put {letter} in front", letter + word),
            ("remove the first letter", word[1:]),
            ("remove the last letter", word[:-1]),
            ("write it backwards", word[::-1]),
        )
    )
