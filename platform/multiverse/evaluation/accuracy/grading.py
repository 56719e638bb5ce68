"""Outcomes to records: graded, by the rules of the suite."""

from multiverse.evaluation.accuracy.answering import Outcome
from multiverse.evaluation.accuracy.asking import Ask
from multiverse.evaluation.accuracy.questions import Question
from multiverse.evaluation.accuracy.records import Record
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
        )
    found = await _grade(response.text, question, grader)
    return Record(
        suite=ask.suite,
        item=ask.item,
        sample=ask.sample,
        budget=ask.budget,
        correct=found.correct,
        answer=found.answer,
        rule=found.rule,
        note=found.note,
        reference=question.reference,
        finish=response.finish,
        tokens=response.tokens,
        critical_path=response.critical_path,
        blocks=response.blocks,
        width=response.width,
        valid=response.finish == "stop" and not response.fallbacks and is_document(response.text),
        fallbacks=response.fallbacks,
        forced=response.forced,
        seconds=round(response.seconds, 3),
        attempts=outcome.attempts,
        text=response.text,
    )


async def _grade(text: str, question: Question, grader: Grader) -> Grade:
    if question.graded_by != "task":
        return await grader.grade(text, question.reference, question.graded_by)
    answer = answer_of(text)
    return Grade(grade(question.reference, text), answer or "", "none" if answer is None else "answer line")
