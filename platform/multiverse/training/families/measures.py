"""Units, days and months: several conversions or dates, or one date moved several times."""

from multiverse.training.families.draw import Draw, listed
from multiverse.training.families.task import NAMED, Part, Task, chained_task, split_task

UNITS = (
    ("h", "h", "min", 60, 5),
    ("m", "m", "cm", 100, 9),
    ("week", "weeks", "days", 7, 9),
    ("year", "years", "months", 12, 5),
    ("foot", "feet", "inches", 12, 5),
    ("euro", "euros", "cents", 100, 9),
    ("kg", "kg", "g", 1000, 9),
)
"""One large unit, several, the small unit, how many of it make one large, and the most large ones asked about."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


WAYS = {"after": "forward", "before": "back"}


def units(draw: Draw) -> Task:
    """Amounts in two units, converted to the smaller one."""

    def make() -> tuple[int, int, int]:
        unit = draw.number(0, len(UNITS) - 1)
        *_, factor, most = UNITS[unit]
        return unit, draw.number(2, most), draw.number(1, min(factor, 60) - 1)

    amounts = draw.several(draw.parts(), make, lambda amount: draw.mine(("units", *amount)))
    told, parts = [], []
    for name, (unit, count, more) in zip(NAMED, amounts, strict=False):
        one, several, small, factor, _ = UNITS[unit]
        whole, amount = count * factor, f"{count} {several} {more} {small}"
        work = (
            f"{name}: {amount}. 1 {one} is {factor} {small}, {count} {several} are {whole} {small}, "
            f"{whole} + {more} = {whole + more}."
        )
        told.append(f"{name}: {amount}")
        parts.append(Part(name, work, str(whole + more)))
    asked = draw.of(
        (
            "How much is each in the smaller unit? {}.",
            "Convert to the smaller unit: {}.",
            "Change to the smaller unit: {}.",
            "Write in the smaller unit: {}.",
        )
    )
    return split_task("units", asked.format("; ".join(told)), parts)


def dates(draw: Draw) -> Task:
    """Days of the week and months, some steps from others."""

    def make() -> tuple[int, str, str, str]:
        unit, names = draw.of((("days", DAYS), ("months", MONTHS)))
        return draw.number(4, 8), unit, draw.of(("after", "before")), draw.of(names)

    counted = draw.several(draw.parts(), make, draw.mine)
    parts, moves = [], []
    for count, unit, direction, start in counted:
        names = _moved(start, direction, count)
        what = f"{count} {unit} {direction} {start}"
        parts.append(Part(what, f"{what}: {_counted(names)}. So {names[-1]}.", names[-1]))
        moves.append(f"from {start} go {count} {unit} {WAYS[direction]}")
    if draw.random.random() < 0.4:
        question = f"{listed(moves)}. {draw.of(('Where do you end each time?', 'What comes then, each time?'))}"
        return split_task("dates", question[0].upper() + question[1:], parts)
    phrase = draw.of(("What comes {}?", "Tell me what comes {}.", "What is {}?", "I want to know what comes {}."))
    return split_task("dates", phrase.format(listed([part.outline for part in parts])), parts)


def hops(draw: Draw) -> Task:
    """One day of the week or month, moved several times."""
    unit, names = draw.of((("days", DAYS), ("months", MONTHS)))
    first = draw.of(names)
    moves = draw.one(
        lambda: tuple((draw.number(2, 4), draw.of(("after", "before"))) for _ in range(draw.number(2, 4))),
        lambda moves: draw.mine(("hops", first, *(part for move in moves for part in move))),
    )
    now, lines = first, []
    for count, direction in moves:
        passed = _moved(now, direction, count)
        lines.append(f"{count} {unit} {direction} {now}: {_counted(passed)}.")
        now = passed[-1]
    steps = [f"{count} {unit} {WAYS[direction]}" for count, direction in moves]
    asked = draw.of(
        (
            "Start at {first} and go {steps}. Where do you end?",
            "From {first} go {steps}. What comes then?",
        )
    )
    return chained_task("hops", asked.format(first=first, steps=", then ".join(steps)), lines, now)


def _moved(start: str, direction: str, count: int) -> list[str]:
    """The days or months from the one next to ``start`` to the one that is ``count`` away."""
    names = DAYS if start in DAYS else MONTHS
    at, step = names.index(start), 1 if direction == "after" else -1
    return [names[(at + step * place) % len(names)] for place in range(1, count + 1)]


def _counted(names: list[str]) -> str:
    return ", ".join(f"{place} {name}" for place, name in enumerate(names, start=1))
