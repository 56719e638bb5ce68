"""What most of an item's answers agree on."""

from collections.abc import Sequence

from multiverse.evaluation.accuracy.records import Record
from multiverse.evaluation.grading.grader import Grader


async def majority_is_right(samples: Sequence[Record], grader: Grader, compare: bool) -> bool:
    """Whether the answer that most are equal to is right; of several, the one that came first. Empty ones do not count.

    compare: wrong answers of different form are compared as mathematics. Right ones are equal to the reference, and so
    to each other.
    """
    groups: list[list[Record]] = []
    for record in samples:
        if not record.answer:
            continue
        for group in groups:
            if await _same(record, group[0], grader, compare):
                group.append(record)
                break
        else:
            groups.append([record])
    return bool(groups) and max(groups, key=len)[0].correct


async def _same(one: Record, other: Record, grader: Grader, compare: bool) -> bool:
    if one.correct or other.correct:
        return one.correct and other.correct
    if " ".join(one.answer.split()).casefold() == " ".join(other.answer.split()).casefold():
        return True
    return compare and (await grader.equal(one.answer, other.answer))[0]
