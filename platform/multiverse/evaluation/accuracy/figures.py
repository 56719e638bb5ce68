"""The figures of a run, as JSON takes them, from its records."""

import re
import statistics as plain
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from multiverse.evaluation.accuracy.config import Target
from multiverse.evaluation.accuracy.questions import Question, Questions
from multiverse.evaluation.accuracy.records import Record
from multiverse.evaluation.accuracy.run import Evaluated
from multiverse.evaluation.statistics import average_at_k, compare, mcnemar, mean, pass_at, share

Items = Sequence[Sequence[Record]]
"""Per item its samples."""

_SECRET = re.compile(r"(key|secret|password|authorization|(^|auth_|access_|api_)token)$", re.IGNORECASE)


def figures(run: Evaluated) -> dict[str, Any]:
    """By suite: both sides, their difference, groups, budgets."""
    return {suite.suite: _suite(run, suite) for suite in run.questions}


def _suite(run: Evaluated, suite: Questions) -> dict[str, Any]:
    sides = {side: run.items(side, suite) for side in run.config.sides}
    majorities = {
        side: [run.majorities[side][suite.suite, item.id] for item in suite.items] for side in run.config.sides
    }
    found: dict[str, Any] = {
        "source": suite.source,
        "sha256": suite.sha256,
        "items": len(suite.items),
        "max_tokens": suite.max_tokens,
        "sides": {side: side_figures(items, majorities[side]) for side, items in sides.items()},
    }
    if "against" in sides:
        found["difference"] = difference(sides["model"], sides["against"], majorities["model"], majorities["against"])
    if any(item.group for item in suite.items):
        found["groups"] = {side: groups(suite.items, items) for side, items in sides.items()}
    if budgets := run.budgets[suite.suite]:
        found["budgets"] = budget_figures(
            {budget: {side: run.items(side, suite, budget) for side in sides} for budget in budgets}, budgets
        )
    return found


def side_figures(items: Items, majorities: Sequence[bool]) -> dict[str, Any]:
    """One model on one suite. Intervals are at 95 %, by the bootstrap over items; of one sample Wilson's besides.

    pass@1 and avg@k are the same mean over items; with k samples it also has majority@k and pass@k.
    """
    k = len(items[0])
    records = [record for item in items for record in item]
    parallel = [record for record in records if record.blocks]
    correct = [[record.correct for record in item] for item in items]
    accuracy = asdict(average_at_k(correct))
    return {
        "answers": len(records),
        "samples": k,
        "pass@1": accuracy,
        "pass@1_wilson": asdict(share([item[0] for item in correct])) if k == 1 else None,
        "avg@k": accuracy,
        "pass@k": pass_at(correct, k),
        "majority@k": accuracy if k == 1 else asdict(mean([float(right) for right in majorities])),
        "parallel": _share(record.blocks > 0 for record in records),
        "valid_of_parallel": _share(record.valid for record in parallel) if parallel else None,
        "x": _mean(record.parallelism for record in records),
        "tokens": _mean(record.tokens for record in records),
        "critical_path": _mean(record.critical_path for record in records),
        "finish": dict(Counter(record.finish or "failed" for record in records).most_common()),
        "fallbacks": dict(Counter(reason for record in records for reason in record.fallbacks).most_common()),
        "rules": dict(Counter(record.rule or "none" for record in records).most_common()),
        "not_compared": sum(bool(record.note) for record in records),
        "failed": sum(bool(record.error) for record in records),
        "retried": sum(record.attempts > 1 for record in records),
    }


def difference(
    first: Items, second: Items, first_right: Sequence[bool], second_right: Sequence[bool]
) -> dict[str, Any]:
    """First minus second on the same items: points with the bootstrap's interval, and McNemar's exact test.

    With several samples, points are of avg@k and the test of majority@k.
    """
    tested = compare(first_right, second_right)
    averages = [
        100 * (_share(record.correct for record in a) - _share(record.correct for record in b))
        for a, b in zip(first, second, strict=True)
    ]
    return {
        "points": asdict(mean(averages)),
        "only_first": tested.only_first,
        "only_second": tested.only_second,
        "p_value": mcnemar(tested.only_first, tested.only_second),
    }


def budget_figures(budgets: Mapping[int, Mapping[str, Items]], quantiles: Mapping[int, str]) -> dict[str, Any]:
    """Per budget the accuracy of each side, and the mean difference over the budgets. quantiles: "" for none."""
    rows = []
    differences: list[list[float]] = []
    for budget, sides in budgets.items():
        row: dict[str, Any] = {"budget": budget, "quantile": quantiles[budget] or None}
        for side, items in sides.items():
            records = [record for item in items for record in item]
            row[side] = {
                "accuracy": asdict(average_at_k([[record.correct for record in item] for item in items])),
                "forced": _share(record.forced for record in records),
                "tokens": _mean(record.tokens for record in records),
                "critical_path": _mean(record.critical_path for record in records),
                "failed": sum(bool(record.error) for record in records),
            }
        if "against" in sides:
            pairs = zip(sides["model"], sides["against"], strict=True)
            points = [100 * (_share(r.correct for r in a) - _share(r.correct for r in b)) for a, b in pairs]
            differences.append(points)
            row["points"] = asdict(mean(points))
        rows.append(row)
    found: dict[str, Any] = {"rows": rows}
    if differences:
        # Items are drawn, not budgets: an item's answers at several budgets are no independent draws.
        found["mean_points"] = asdict(mean([plain.fmean(item) for item in zip(*differences, strict=True)]))
    return found


def groups(questions: Sequence[Question], items: Items) -> list[dict[str, Any]]:
    """A row per group, those whose tasks split first, then all that split, all that do not, and all."""
    pairs = list(zip(questions, items, strict=True))
    names = sorted({(not question.splits, question.group) for question in questions})
    rows = [_group(name, [pair for pair in pairs if pair[0].group == name]) for _, name in names]
    rows += [
        _group("all that split", [pair for pair in pairs if pair[0].splits]),
        _group("all that do not", [pair for pair in pairs if pair[0].splits is False]),
        _group("all", pairs),
    ]
    return [row for row in rows if row["tasks"]]


def _group(name: str, pairs: Sequence[tuple[Question, Sequence[Record]]]) -> dict[str, Any]:
    records = [(question, record) for question, item in pairs for record in item]
    parallel = [(question, record) for question, record in records if record.blocks]
    return {
        "family": name,
        "tasks": len(pairs),
        "solved": _share(record.correct for _, record in records),
        "parallel": _share(record.blocks > 0 for _, record in records),
        "valid": _share(record.valid for _, record in parallel) if parallel else None,
        "right_width": _share(record.width == question.width for question, record in parallel) if parallel else None,
        "x": _mean(record.parallelism for _, record in records),
        "tokens": _mean(record.tokens for _, record in records),
    }


def failures(run: Evaluated) -> list[dict[str, Any]]:
    """The answers that there are not, and why; they count as wrong."""
    return [
        {
            "side": side,
            "suite": record.suite,
            "item": record.item,
            "sample": record.sample,
            "budget": record.budget,
            "attempts": record.attempts,
            "reason": record.error,
        }
        for side, records in run.records.items()
        for record in records.values()
        if record.error
    ]


def described(target: Target, identity: Mapping[str, Any]) -> dict[str, Any]:
    """A side, for people: where it is, which model that is, and what it is asked with."""
    essence = target.essence() | dict(identity)
    found: dict[str, Any] = without_secrets({name: value for name, value in essence.items() if value not in (None, "")})
    return {"name": target.name} | found


def without_secrets(values: Any) -> Any:
    """Further fields of requests may hold a key."""
    if isinstance(values, Mapping):
        return {name: "..." if _SECRET.search(str(name)) else without_secrets(value) for name, value in values.items()}
    return [without_secrets(value) for value in values] if isinstance(values, list) else values


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return plain.fmean(found) if found else None
