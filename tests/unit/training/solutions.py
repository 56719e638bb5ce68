"""Answers to the families' questions, read from the question alone and computed in other ways than the tasks do."""

import re
from collections.abc import Callable
from datetime import date, timedelta

Solution = tuple[list[str], set[object]]
"""The answers in their order, and the problems that the question is made of."""

UNITS = {
    ("h", "min"): 60,
    ("m", "cm"): 100,
    ("weeks", "days"): 7,
    ("years", "months"): 12,
    ("feet", "inches"): 12,
    ("euros", "cents"): 100,
    ("kg", "g"): 1000,
}
TIMES = {"twice": 2, "three times": 3, "four times": 4}
_WORD = re.compile(r"\b[a-z](?: [a-z]){3}\b")
_STEP = re.compile(r"(add|put|\+|take away|subtract|-) (\d+)")


def solve(family: str, question: str) -> Solution:
    return SOLVERS[family](question)


def _arithmetic(question: str) -> Solution:
    problems = re.findall(r"(\d+) ([+-]) (\d+)", question)
    return [str(int(a) + int(sign + b)) for a, sign, b in problems], {
        _problem(int(a), int(s + b)) for a, s, b in problems
    }


def _mixed(question: str) -> Solution:
    answers, problems = [], set[object]()
    for part in re.split(r"[A-E]: ", question)[1:]:
        value = int(re.search(r"\d+", part)[0])  # type: ignore[index]
        value, found = _follow(value, part)
        answers.append(str(value))
        problems |= found
    return answers, problems


def _steps(question: str) -> Solution:
    value, found = _follow(int(re.search(r"\d+", question)[0]), question)  # type: ignore[index]
    for name, before in re.findall(r"([B-E]): (?:start with|take|begin with) (\w+)", question):
        assert ord(name) == ord(before) + 1
    return [str(value)], found


def _follow(value: int, text: str) -> tuple[int, set[object]]:
    problems: set[object] = set()
    for verb, operand in _STEP.findall(text):
        change = int(operand) if verb in ("add", "put", "+") else -int(operand)
        problems.add(_problem(value, change))
        value += change
    return value, problems


def _problem(value: int, change: int) -> object:
    return frozenset((value, change)) if change > 0 else (value, change)


def _comparisons(question: str) -> Solution:
    found = [tuple(map(int, numbers)) for numbers in re.findall(r"(\d+) \+ (\d+) or (\d+)", question)]
    return [str(max(a + b, c)) for a, b, c in found], {_problem(a, b) for a, b, _ in found}


def _conditions(question: str) -> Solution:
    number = re.search(r"\d+", question)[0]  # type: ignore[index]
    tests: dict[str, Callable[[int], bool]] = {
        "even": lambda _: number[-1] in "02468",
        "odd": lambda _: number[-1] in "13579",
        "greater than": lambda other: int(number) > other,
        "less than": lambda other: int(number) < other,
        "a multiple of": lambda of: int(number) % of == 0,
        "written with a greater digit first": lambda _: number[0] > number[1],
    }
    asked = re.findall(rf"({'|'.join(tests)})(?: (\d+))?", question)
    return (
        ["yes" if tests[what](int(other or 0)) else "no" for what, other in asked],
        {(number, what, other) for what, other in asked},
    )


def _rule(question: str) -> tuple[Callable[[int], int], str]:
    text, _, rest = question.partition(". ")
    *border, more, less = map(int, re.findall(r"\d+", text))
    return lambda n: more if (n < border[0] if border else n % 2 == 0) else -less, rest


def _cases(question: str) -> Solution:
    change, rest = _rule(question)
    numbers = [int(number) for number in re.findall(r"\d+", rest)]
    return [str(n + change(n)) for n in numbers], {_problem(n, change(n)) for n in numbers}


def _rounds(question: str) -> Solution:
    change, rest = _rule(question)
    (number,) = map(int, re.findall(r"\d+", rest))
    (times,) = [count for text, count in TIMES.items() if text in rest]
    problems = set[object]()
    for _ in range(times):
        problems.add(_problem(number, change(number)))
        number += change(number)
    return [str(number)], problems


def _backwards(question: str) -> Solution:
    words = _WORD.findall(question)
    return [word[::-1] for word in words], set(words)


def _letters(question: str) -> Solution:
    words = _WORD.findall(question)
    counted = re.search(r"(?:many|letter|is) ([a-z]) ", question)
    return [str(word.count(counted[1])) if counted else f"{word[0]} {word[-1]}" for word in words], set(words)


def _edits(question: str) -> Solution:
    start = _WORD.search(question)[0]  # type: ignore[index]
    word = start.replace(" ", "")
    for edit in re.findall(
        r"put ([a-z]) (at the end|in front)|remove the (first|last) letter|(backwards)",
        question.split(start)[1].lower(),
    ):
        letter, where, removed, turned = edit
        if where:
            word = word + letter if where == "at the end" else letter + word
        elif removed:
            word = word[1:] if removed == "first" else word[:-1]
        elif turned:
            word = "".join(reversed(word))
    return [" ".join(word)], {start}


def _lists(question: str) -> Solution:
    lists = [list(map(int, numbers.split())) for numbers in re.findall(r"\d+(?: \d+)+", question)]
    (of,) = [
        of for name, of in {"largest": max, "smallest": min, "total": sum, "order": sorted, "Sort": sorted}.items()
        if name in question.replace("smallest first", "")
    ]  # fmt: skip
    found = [of(numbers) for numbers in lists]
    answers = [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in found]
    return answers, {tuple(sorted(numbers)) for numbers in lists}


def _running(question: str) -> Solution:
    (numbers,) = [list(map(int, found.split())) for found in re.findall(r"\d+(?: \d+)+", question)]
    (of,) = [of for name, of in {"largest": max, "smallest": min, "total": sum}.items() if name in question]
    return [str(of(numbers[:end])) for end in range(1, len(numbers) + 1)], {tuple(sorted(numbers))}


def _units(question: str) -> Solution:
    found = re.findall(r"(\d+) (\w+) (\d+) (\w+)", question)
    return [str(int(a) * UNITS[large, small] + int(b)) for a, large, b, small in found], set(found)


def _dates(question: str) -> Solution:
    found = re.findall(r"(\d+) (?:days|months) (after|before) (\w+)", question)
    found += [
        (count, "after" if way == "forward" else "before", start)
        for start, count, way in re.findall(r"[Ff]rom (\w+) go (\d+) (?:days|months) (forward|back)", question)
    ]
    return [_day_or_month(start, int(count) if way == "after" else -int(count)) for count, way, start in found], set(
        found
    )


def _hops(question: str) -> Solution:
    moves = re.findall(r"(\d+) (?:days|months) (forward|back)", question)
    start = re.search(r"[A-Z][a-z]+day|" + "|".join(MONTHS), question)[0]  # type: ignore[index]
    return (
        [_day_or_month(start, sum(int(count) if way == "forward" else -int(count) for count, way in moves))],
        {(start, *moves)},
    )


MONTHS = [date(2024, month, 1).strftime("%B") for month in range(1, 13)]
DAYS = {(date(2024, 1, 1) + timedelta(day)).strftime("%A"): date(2024, 1, 1) + timedelta(day) for day in range(7)}


def _day_or_month(start: str, count: int) -> str:
    if start in DAYS:
        return (DAYS[start] + timedelta(count)).strftime("%A")
    return MONTHS[(MONTHS.index(start) + count) % 12]


def _passes(question: str) -> Solution:
    told, asked = re.match(r"(.*? and \w+ gives to \w+)\. (.*)", question).groups()  # type: ignore[union-attr]
    gives = dict(re.findall(r"(\w+) gives to (\w+)", told))
    passes = int(re.search(r"\d+", asked)[0])  # type: ignore[index]
    answers, problems = [], set[object]()
    for first in (name for name in re.findall(r"[A-Z][a-z]+", asked) if name in gives):
        holders = [first]
        for _ in range(passes):
            holders.append(gives[holders[-1]])
        answers.append(holders[-1])
        problems.add(tuple(holders))
    return answers, problems


def _teams(question: str) -> Solution:
    rounds = [re.findall(r"\d \d \d", one) for one in re.findall(r"\w+ scored ([^.]*)\.", question)]
    return (
        [str(sum(int(max(scores.split())) for scores in one)) for one in rounds],
        {"".join(sorted(scores)).strip() for one in rounds for scores in one},
    )


def _baskets(question: str) -> Solution:
    baskets = [re.findall(r"(\d) \w+ at (\d)", one) for one in re.findall(r"\w+ buys ([^.]*)\.", question)]
    return (
        [str(sum(int(price) for count, price in one for _ in range(int(count)))) for one in baskets],
        {tuple(sorted(one)) for one in baskets},
    )


SOLVERS: dict[str, Callable[[str], Solution]] = {
    "sums": _arithmetic,
    "differences": _arithmetic,
    "mixed": _mixed,
    "comparisons": _comparisons,
    "conditions": _conditions,
    "cases": _cases,
    "backwards": _backwards,
    "letters": _letters,
    "lists": _lists,
    "units": _units,
    "dates": _dates,
    "parcels": _passes,
    "teams": _teams,
    "baskets": _baskets,
    "steps": _steps,
    "rounds": _rounds,
    "edits": _edits,
    "running": _running,
    "hops": _hops,
    "handovers": _passes,
}
