"""Figures and reports, from answers whose figures are known beforehand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiverse.evaluation.accuracy.asking import AnswerError, Ask, Response
from multiverse.evaluation.accuracy.config import EndpointTarget
from multiverse.evaluation.accuracy.figures import figures
from multiverse.evaluation.accuracy.majority import majority_is_right
from multiverse.evaluation.accuracy.records import Record
from multiverse.evaluation.accuracy.report import write_report
from multiverse.evaluation.accuracy.run import Evaluated, evaluate
from multiverse.evaluation.grading.grader import Grader
from multiverse.training.families import FAMILIES, Task, generate
from tests.unit.evaluation.accuracy_fakes import Told, config, opener, right

TASKS = {task.question: task for task in generate(tuple(FAMILIES), "held_out", 40, 0)}
SPLITTING = [task for task in TASKS.values() if task.splits]


def structured(task: Task, right: bool = True, **values: Any) -> Response:
    """As an engine gives it: a block where the task splits, twice as many tokens as positions there."""
    text = task.text if right else f"{task.chain}\nAnswer: nothing of that"
    blocks = int(task.splits)
    given = {"text": text, "finish": "stop", "tokens": 100 * (1 + blocks), "critical_path": 100, "seconds": 0.5}
    return Response(**given | {"blocks": blocks, "width": task.width} | values)  # type: ignore[arg-type]


async def run(out: Path, ours: Any, theirs: Any = None, **values: Any) -> Evaluated:
    made = config(out, 40, **values | ({} if theirs is None else {"against": "theirs"}))
    return await evaluate(made, opener(made, ours=Told(ours), theirs=Told(theirs or ours)))


async def test_structure_and_parallelism_of_each_family(tmp_path: Path) -> None:
    spoiled = SPLITTING[0].question

    def answer(ask: Ask) -> Response:
        task = TASKS[ask.question]
        if ask.question == spoiled:
            return structured(task, text=task.text.replace("</Goal>", "", 1), width=9, fallbacks=("no_outlines",))
        return structured(task)

    found = figures(await run(tmp_path, answer))["generated"]
    rows = {row["family"]: row for row in found["groups"]["model"]}
    assert set(rows) == {*FAMILIES, "all that split", "all that do not", "all"}
    split, other = rows["all that split"], rows["all that do not"]
    assert (split["tasks"], split["parallel"], split["x"], split["tokens"]) == (len(SPLITTING), 1.0, 2.0, 200.0)
    assert split["valid"] == split["right_width"] == pytest.approx(1 - 1 / len(SPLITTING))
    assert (other["parallel"], other["valid"], other["x"]) == (0.0, None, 1.0)
    assert next(iter(rows)) in {task.family for task in SPLITTING}
    side = found["sides"]["model"]
    assert side["fallbacks"] == {"no_outlines": 1}
    assert side["critical_path"] == 100
    assert side["valid_of_parallel"] == pytest.approx(1 - 1 / len(SPLITTING))


async def test_two_models_are_compared_item_by_item(tmp_path: Path) -> None:
    order = list(TASKS)

    def theirs(ask: Ask) -> Response:
        return structured(TASKS[ask.question], right=order.index(ask.question) % 4 != 0)

    found = figures(await run(tmp_path, right(40), theirs))["generated"]["difference"]
    assert found["points"]["value"] == pytest.approx(25.0)
    assert 10 < found["points"]["low"] < 25 < found["points"]["high"] < 42
    assert (found["only_first"], found["only_second"]) == (10, 0)
    assert found["p_value"] == pytest.approx(2 / 2**10)


async def test_equal_models_do_not_differ(tmp_path: Path) -> None:
    found = figures(await run(tmp_path, right(40), right(40)))["generated"]["difference"]
    assert (found["points"], found["p_value"]) == ({"value": 0.0, "low": 0.0, "high": 0.0}, 1.0)


async def test_samples_give_averages_and_majorities(tmp_path: Path) -> None:
    """Of three answers two are right for the first half of the items, one for the second, wrong ones being equal."""
    order = list(TASKS)

    def answer(ask: Ask) -> Response:
        many = order.index(ask.question) < 20
        return structured(TASKS[ask.question], right=ask.sample < (2 if many else 1))

    side = figures(await run(tmp_path, answer, samples=3))["generated"]["sides"]["model"]
    assert side["avg@k"]["value"] == side["pass@1"]["value"] == pytest.approx(0.5)
    assert 0.4 < side["avg@k"]["low"] < 0.5 < side["avg@k"]["high"] < 0.6
    assert side["majority@k"]["value"] == 0.5
    assert (side["pass@k"], side["samples"], side["pass@1_wilson"]) == (1.0, 3, None)


async def test_budgets_have_a_mean_difference_over_all_of_them(tmp_path: Path) -> None:
    def thinker(at: dict[int, float]) -> Any:
        order = list(TASKS)

        def answer(ask: Ask) -> Response:
            share = 1.0 if ask.budget is None else at[ask.budget]
            cut = {"finish": "budget", "forced": True} if ask.budget == 50 else {}
            return structured(TASKS[ask.question], right=order.index(ask.question) < 40 * share, **cut)

        return answer

    ours, theirs = thinker({50: 0.5, 90: 0.75}), thinker({50: 0.25, 90: 0.75})
    run_ = await run(tmp_path, ours, theirs, budgets=[90, 50])
    found = figures(run_)["generated"]["budgets"]
    rows = found["rows"]
    assert [row["budget"] for row in rows] == [50, 90]
    assert [row["model"]["accuracy"]["value"] for row in rows] == [0.5, 0.75]
    assert [row["points"]["value"] for row in rows] == [25.0, 0.0]
    assert [row["model"]["forced"] for row in rows] == [1.0, 0.0]
    assert found["mean_points"]["value"] == 12.5
    assert 6 < found["mean_points"]["low"] < 12.5 < found["mean_points"]["high"] < 21
    report = write_report(run_)
    text = (tmp_path / "report.md").read_text()
    assert "| 50 | 50.0% (35.0% to 65.0%) |" in text
    assert "| budget | ours | theirs | forced, ours | forced, theirs | failed, ours | failed, theirs |" in text
    assert "| 100.0% | 100.0% | 0 | 0 | +25.0 points" in text
    assert "Mean difference over the budgets: +12.5 points" in text
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "generated-budgets.png").read_bytes().startswith(b"\x89PNG")


async def test_the_report_says_how_it_came_about(tmp_path: Path) -> None:
    found = await run(tmp_path / "run", right(40), report=str(tmp_path / "report"))
    report = write_report(found, "multiverse evaluate ours")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "multiverse evaluate ours" in text
    assert "1 answer per item, greedy, seed 0." in text
    assert report["suites"]["generated"]["sha256"] in text
    assert report["facts"]["versions"]["numpy"] in text
    assert set(report["facts"]) == {"date", "python", "versions", "code", "machine"}
    assert report["facts"]["machine"]["cores"] >= 1
    assert report["sampling"]["seeds"] == [0]
    whole = found.config.model_dump(mode="json")
    assert report["configuration"] == {name: value for name, value in whole.items() if name not in ("out", "report")}
    assert str(tmp_path) not in text
    assert '"backoff_seconds": 0.001' in text
    rows = (tmp_path / "report" / "rows.csv").read_text().splitlines()
    assert len(rows) == 41
    assert "answer line" in rows[1]
    assert not (tmp_path / "run" / "rows.csv").exists()


async def test_keys_in_further_fields_of_requests_are_in_no_report(tmp_path: Path) -> None:
    found = await run(tmp_path, right(40))
    server = EndpointTarget.model_validate(
        {"base_url": "http://h/v1", "key_env": "KEY", "extra_body": {"x": [{"api_key": "sk-1"}], "token": "sk-2"}}
    )
    config = found.config.model_copy(update={"model": server})
    report = write_report(replace(found, config=config, identities={"model": {"model": "served"}}))
    assert report["configuration"]["model"]["extra_body"] == {"x": [{"api_key": "..."}], "token": "..."}
    assert (report["sides"]["model"]["model"], report["configuration"]["model"]["key_env"]) == ("served", "KEY")
    assert report["configuration"]["answer_tokens"] == 64
    assert all("sk-" not in (tmp_path / name).read_text() for name in ("report.md", "report.json"))


async def test_a_budget_is_named_and_failed_answers_with_theirs(tmp_path: Path) -> None:
    order = list(TASKS)

    def theirs(ask: Ask) -> Response:
        if ask.budget is not None and order.index(ask.question) < 3:
            raise AnswerError("HTTP 500: out of order", retryable=False)
        return structured(TASKS[ask.question], finish="length" if ask.budget else "stop")

    found = await run(tmp_path, right(40), theirs, budgets=["25%", 3000])
    write_report(found)
    text = (tmp_path / "report.md").read_text()
    assert "| 100: 25 % quantile of theirs's lengths | " in text
    assert "\n| 3000 | " in text
    row = next(line for line in text.splitlines() if line.startswith("| 100: "))
    assert row.split(" | ")[5:7] == ["0", "3"]
    assert "| theirs | generated | " in text and " | 0 | 100 | 1 | HTTP 500: out of order |" in text


async def test_with_samples_the_difference_and_the_test_say_what_they_are_of(tmp_path: Path) -> None:
    write_report(await run(tmp_path, right(40), lambda ask: "Answer: no", samples=3))
    text = (tmp_path / "report.md").read_text()
    assert (
        "same items, of avg@3: +100.0 points (all items alike: the bootstrap cannot tell); by majority@3, only" in text
    )
    assert "| pass@1 | 100.0% (all items alike: the bootstrap cannot tell) | 0.0% (all" in text


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        ([("4", True), ("5", False), ("5", False)], False),
        ([("4", True), ("5", False), ("6", False), ("4.0", True)], True),
        ([("1/2", False), ("0.5", False), ("4", True)], False),
        ([("5", False), ("4", True)], False),
        ([("", False), ("", False), ("4", True)], True),
        ([("", False)], False),
    ],
)
async def test_the_majority_is_of_equal_answers(answers: list[tuple[str, bool]], right: bool) -> None:
    samples = [Record("s", "i", n, None, correct, answer) for n, (answer, correct) in enumerate(answers)]
    grader = Grader()
    try:
        assert await majority_is_right(samples, grader, compare=True) is right
    finally:
        grader.close()
