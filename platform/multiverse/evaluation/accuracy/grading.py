"""Outcomes to records: graded, by the rules of the suite."""

from collections.abc import Sequence
from dataclasses import replace

from multiverse.evaluation.accuracy.answering import Outcome
from multiverse.evaluation.accuracy.asking import Ask
from multiverse.evaluation.accuracy.questions import Question, Questions
from multiverse.evaluation.accuracy.records import Record, Results
from multiverse.evaluation.grading.grader import Grade, Grader
from multiverse.structure.grammar import is_document
from multiverse.training.families import answer_of, grade


async def graded(ask: Ask, question: Question, outcome: Outcome, grader: Grader) -> Record:
    """The record of an outcome. A failed one is wrong."""
    response = outcome.response
    if response is None:
        return Record(
            suite=ask.suite,
            item=ask.item,
            sample=ask.sample,
            budget=ask.budget,
            correct=False,
            reference=question.reference,
            attempts=outcome.attempts,
            error=outcome.error or "unknown",
            question=question.digest,
        )
    record = Record(
        suite=ask.suite,
        item=ask.item,
        sample=ask.sample,
        budget=ask.budget,
        correct=False,
        finish=response.finish,
        tokens=response.tokens,
        critical_path=response.critical_path,
        blocks=response.blocks,
        width=response.width,
        fallbacks=response.fallbacks,
        forced=response.forced,
        seconds=round(response.seconds, 3),
        attempts=outcome.attempts,
        text=response.text,
        question=question.digest,
    )
    return await _regraded(record, question, grader)


async def grade_anew(results: Results, questions: Sequence[Questions], grader: Grader) -> None:
    """Bring what is kept up to date with the questions, their references and the rules that there are now.

    Answers to other questions are forgotten; texts stay, and what changes of their grades is kept.
    """
    items = {(suite.suite, item.id): item for suite in questions for item in suite.items}
    for record in list(results.records.values()):
        item = items.get((record.suite, record.item))
        if item is None:
            continue
        if record.question != item.digest:
            del results.records[record.key]
        elif not record.error and (now := await _regraded(record, item, grader)) != record:
            results.append(now)


async def _regraded(record: Record, question: Question, grader: Grader) -> Record:
    found = await _grade(record.text, question, grader)
    return replace(
        record,
        correct=found.correct,
        answer=found.answer,
        rule=found.rule,
        note=found.note,
        reference=question.reference,
        valid=record.finish == "stop" and not record.fallbacks and is_document(record.text),
    )


async def _grade(text: str, question: Question, grader: Grader) -> Grade:
    if question.graded_by != "task":
        return await grader.grade(text, question.reference, question.graded_by)
    answer = answer_of(text)
    return Grade(grade(question.reference, text), answer or "", "none" if answer is None else "answer line")
