"""The harness: is it right, does it go on, what becomes of failures?"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from multiverse.config import ConfigError
from multiverse.evaluation.accuracy.asking import AnswerError, Ask, Response, TargetError
from multiverse.evaluation.accuracy.figures import failures, figures, side_figures
from multiverse.evaluation.accuracy.records import Record, RecordsError, open_results
from multiverse.evaluation.accuracy.run import Evaluated, Progress, evaluate
from multiverse.telemetry.export import build
from tests.unit.evaluation.accuracy_fakes import Told, config, failing, opener, right, right_answers, sometimes


async def run(out: Path, told: Told, count: int = 40, **values: Any) -> Evaluated:
    made = config(out, count, **values)
    return await evaluate(made, opener(made, ours=told))


def side(found: Evaluated, name: str = "model") -> dict[str, Any]:
    return figures(found)["generated"]["sides"][name]  # type: ignore[no-any-return]


async def test_an_oracle_has_all_right(tmp_path: Path) -> None:
    found = side(await run(tmp_path, Told(right(40))))
    assert found["pass@1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["rules"] == {"answer line": 40}
    assert found["finish"] == {"stop": 40}


async def test_who_is_wrong_has_none_right(tmp_path: Path) -> None:
    found = side(await run(tmp_path, Told(lambda ask: "Answer: nothing of that")))
    assert found["pass@1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["pass@1_wilson"]["high"] == pytest.approx(0.0876, abs=1e-3)


async def test_who_is_right_now_and_then_has_the_share_of_its_right_answers(tmp_path: Path) -> None:
    answers = sometimes(120, 0.3, 5)
    told: list[bool] = []

    def answer(ask: Ask) -> str | Response:
        found = answers(ask)
        told.append(found != "Answer: nothing of that")
        return found

    found = side(await run(tmp_path, Told(answer), 120))
    assert found["pass@1"]["value"] == pytest.approx(sum(told) / 120)
    assert found["pass@1"]["low"] <= 0.3 <= found["pass@1"]["high"]


def test_intervals_hold_the_true_share_in_93_of_100_runs() -> None:
    held = {"pass@1": 0, "pass@1_wilson": 0}
    for seed in range(100):
        random = Random(seed)
        right = [random.random() < 0.3 for _ in range(300)]
        items = [[Record("generated", str(n), 0, None, correct)] for n, correct in enumerate(right)]
        found = side_figures(items, right)
        for name in held:
            held[name] += found[name]["low"] <= 0.3 <= found[name]["high"]
    assert min(held.values()) >= 93, held


async def test_the_same_run_asks_nothing_again(tmp_path: Path) -> None:
    first = await run(tmp_path, Told(right(40)))
    again = Told(right(40))
    assert (await run(tmp_path, again)).records == first.records
    assert again.asked == []


async def test_more_items_samples_and_budgets_are_added_to_a_run(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(20)), 20, temperature=0.5)
    before = {json.loads(line)["item"] for line in (tmp_path / "answers-model.jsonl").read_text().splitlines()}
    more = Told(right(40))
    await run(tmp_path, more, 40, samples=2, temperature=0.5, budgets=[1])
    asked = {(ask.item, ask.sample, ask.budget) for ask in more.asked}
    assert len(asked) == len(more.asked) == 40 * 2 * 2 - len({ask.item for ask in more.asked} & before)
    assert {ask.seed for ask in more.asked} == {0, 1}


async def test_a_line_that_was_half_written_is_asked_again(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(40)))
    path = tmp_path / "answers-model.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-25])
    again = Told(right(40))
    found = await run(tmp_path, again)
    assert len(again.asked) == 1
    assert side(found)["pass@1"]["value"] == 1.0
    assert sorted(path.read_bytes().splitlines()) == sorted(content.splitlines())


async def test_a_run_goes_on_behind_an_abrupt_end(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    answers, count = right(40), 0

    def answer(ask: Ask) -> str | Response:
        nonlocal count
        count += 1
        if count > 25:
            raise Killed
        return answers(ask)

    class Slowly(Told):
        async def answer(self, ask: Ask) -> Response:
            await asyncio.sleep(0.001)
            return await super().answer(ask)

    with pytest.raises(Killed):
        await run(tmp_path, Slowly(answer), concurrency=1)
    kept = len((tmp_path / "answers-model.jsonl").read_text().splitlines())
    assert 20 <= kept <= 25
    again = Told(right(40))
    await run(tmp_path, again)
    assert len(again.asked) == 40 - kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.7}, "sampling.temperature is 0.0 there and 0.7 here"),
        ({"model": {"model": "ours", "suffix": " Think."}}, "sides.model.suffix is '' there and ' Think.' here"),
        ({"suites": [{"name": "generated", "max_tokens": 9}]}, "suites.generated.max_tokens is 600 there and 9 here"),
    ],
)
async def test_another_run_does_not_go_on_in_its_folder(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    await run(tmp_path, Told(right(40)))
    with pytest.raises(ConfigError, match="holds another run") as caught:
        await run(tmp_path, Told(right(40)), **change)
    assert message in str(caught.value)


async def test_another_model_at_the_same_place_is_another_run(tmp_path: Path) -> None:
    weights = tmp_path / "ours" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"old")
    model = str(weights.parent)
    await run(tmp_path / "run", Told(right(40)), model=model)
    again = Told(right(40))
    await run(tmp_path / "run", again, model=model)
    assert again.asked == []
    weights.write_bytes(b"new")
    with pytest.raises(ConfigError, match=r"holds another run: sides\.model\.fingerprint is '"):
        await run(tmp_path / "run", Told(right(40)), model=model)


async def test_fields_of_a_side_that_only_one_has_are_another_run(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(40)))
    path = tmp_path / "run.json"
    values = json.loads(path.read_text())
    del values["sides"]["model"]["logits_processors"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"sides.model.logits_processors is None there and \[\] here"):
        await run(tmp_path, Told(right(40)))


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"sides": {}, "suites": 3}'])
async def test_a_state_that_is_none_is_said_plainly(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json is no state of a run"):
        await run(tmp_path, Told(right(40)))


async def test_stored_texts_are_graded_anew_and_what_changes_is_kept(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(40)))
    path = tmp_path / "answers-model.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"correct": False, "reference": "?"}) + "\n" for line in lines))
    again = Told(right(40))
    found = await run(tmp_path, again)
    assert (side(found)["pass@1"]["value"], again.asked) == (1.0, [])
    assert "?" not in {record.reference for record in found.records["model"].values()}
    assert len(path.read_text().splitlines()) == 80


async def test_an_answer_to_another_question_is_asked_for_again(tmp_path: Path) -> None:
    rows = [{"first": f"{n} and 1", "second": f"{n} and 2", "answer": f"#### {n}", "id": str(n)} for n in range(6)]
    rows[5]["second"] = rows[5]["first"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def suites(column: str) -> list[dict[str, Any]]:
        return [{"name": "gsm8k", "source": str(path), "columns": {"question": column}}]

    answer = Told(lambda ask: f"\\boxed{{{ask.question.split()[0]}}}")
    await run(tmp_path / "run", answer, suites=suites("first"))
    asked = len(answer.asked)
    found = await run(tmp_path / "run", answer, suites=suites("second"))
    assert [ask.question.partition("\n")[0] for ask in answer.asked[asked:]] == [f"{n} and 2" for n in range(5)]
    assert figures(found)["gsm8k"]["sides"]["model"]["pass@1"]["value"] == 1.0


async def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    with open_results(tmp_path / "answers-model.jsonl"), pytest.raises(RecordsError, match="another run writes there"):
        await run(tmp_path, Told(right(40)))


async def test_an_item_that_fails_is_asked_again_until_it_is_answered(tmp_path: Path) -> None:
    told = Told(failing(2, right(40)))
    found = await run(tmp_path, told, attempts=3)
    assert len(told.asked) == 120
    assert (side(found)["pass@1"]["value"], side(found)["failed"], side(found)["retried"]) == (1.0, 0, 40)


async def test_an_item_that_goes_on_failing_is_wrong_and_listed_with_its_reason(tmp_path: Path) -> None:
    answers, bad = right(40), list(right_answers(40))[7]

    def answer(ask: Ask) -> str | Response:
        if ask.question == bad:
            raise AnswerError("HTTP 500: out of order")
        return answers(ask)

    found = await run(tmp_path, Told(answer), attempts=3)
    assert side(found)["pass@1"]["value"] == pytest.approx(39 / 40)
    (failed,) = failures(found)
    assert (failed["reason"], failed["attempts"]) == ("HTTP 500: out of order", 3)
    again = Told(right(40))  # the next run tries it once more
    found = await run(tmp_path, again, attempts=3)
    assert [ask.question for ask in again.asked] == [bad]
    assert (side(found)["pass@1"]["value"], failures(found)) == (1.0, [])


async def test_what_no_attempt_can_help_is_not_asked_again(tmp_path: Path) -> None:
    told = Told(failing(1, right(40), retryable=False))
    assert side(await run(tmp_path, told))["failed"] == 40
    assert len(told.asked) == 40


async def test_being_told_to_wait_is_no_failure(tmp_path: Path) -> None:
    told = Told(failing(6, right(20), pause=0.001, counts=False))
    found = await run(tmp_path, told, 20, attempts=1)
    assert (side(found)["failed"], len(told.asked)) == (0, 140)


async def test_a_model_that_takes_no_question_ends_the_run(tmp_path: Path) -> None:
    def refuse(ask: Ask) -> str:
        raise TargetError("HTTP 401: no such key")

    with pytest.raises(TargetError, match="no such key"):
        await run(tmp_path, Told(refuse))
    assert (tmp_path / "answers-model.jsonl").read_text() == ""


async def test_progress_ends_with_all_answers(tmp_path: Path) -> None:
    told: list[Progress] = []
    made = config(tmp_path)
    await evaluate(made, opener(made, ours=Told(right(40))), tell=told.append)
    assert (told[0], told[-1]) == (Progress("model", 0, 40, 0, 0), Progress("model", 40, 40, 40, 0))


async def test_quantiles_of_the_others_lengths_become_budgets_and_stay(tmp_path: Path) -> None:
    lengths = {question: 10 * (place + 1) for place, question in enumerate(right_answers(40))}

    def slow(ask: Ask) -> Response:
        return Response("Answer: no", "stop", lengths[ask.question], lengths[ask.question], 0.0)

    ours, theirs = Told(right(40)), Told(slow)
    made = config(tmp_path, against="theirs", budgets=["25%", "100%", 7])
    found = await evaluate(made, opener(made, ours=ours, theirs=theirs))
    assert found.budgets == {"generated": {7: "", 108: "25%", 400: "100%"}}
    assert {ask.budget for ask in theirs.asked} == {None, 7, 108}
    again = await evaluate(made, opener(made, ours=Told(right(40)), theirs=Told(right(40))))
    assert again.budgets == found.budgets


async def test_quantiles_are_of_the_items_and_samples_of_this_run(tmp_path: Path) -> None:
    few = right_answers(20)

    def answer(ask: Ask) -> Response:
        length = 10 if ask.question in few and not ask.sample else 1000
        return Response("Answer: no", "stop", length, length, 0.0)

    await run(tmp_path, Told(answer), samples=2, temperature=0.5)
    found = await run(tmp_path, Told(answer), 20, temperature=0.5, budgets=["100%"])
    assert found.budgets == {"generated": {10: "100%"}}


async def test_what_ended_by_itself_within_a_budget_is_not_asked_for_again(tmp_path: Path) -> None:
    order = list(right_answers(40))

    def answer(ask: Ask) -> Response:
        """Ten tokens for one half of the items, fifty for the other; a block in every fourth; one in eight cut off."""
        place = order.index(ask.question)
        length = 10 if place % 2 else 50
        finish = "length" if place % 8 == 1 else "stop"
        return Response("Answer: no", finish, length, length, 0.0, blocks=int(place % 4 == 3), forced=bool(ask.budget))

    told = Told(answer)
    found = await run(tmp_path, told, budgets=[20])
    again = {order.index(ask.question) for ask in told.asked if ask.budget is not None}
    assert again == {place for place in range(40) if place % 2 == 0 or place % 4 == 3 or place % 8 == 1}
    kept = [record for record in found.records["model"].values() if record.budget == 20 and not record.forced]
    assert len(kept) == 40 - len(again) == 5
    assert {record.tokens for record in kept} == {10}


async def test_a_suite_may_have_budgets_of_its_own(tmp_path: Path) -> None:
    told = Told(right(40))
    suites = [{"name": "generated", "count": 40, "budgets": [9]}]
    assert (await run(tmp_path, told, suites=suites, budgets=[5])).budgets == {"generated": {9: ""}}
    assert {ask.budget for ask in told.asked} == {None, 9}


async def test_records_are_of_this_run_only(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(40)), samples=2, temperature=0.0)
    found = await run(tmp_path, Told(right(40)))
    assert {record.sample for record in found.records["model"].values()} == {0}
    assert all(replace(record, text="").correct for record in found.records["model"].values())


def values_of(registry: CollectorRegistry, **labels: str) -> list[float | None]:
    """Answers asked for, and those there are: correct, wrong and failed."""
    value, labels = registry.get_sample_value, {"suite": "generated", **labels}
    outcomes = ("correct", "wrong", "failed")
    there = [value("multiverse_evaluation_answers", labels | {"outcome": outcome}) for outcome in outcomes]
    return [value("multiverse_evaluation_tasks", labels), *there]


async def test_progress_is_in_the_metrics_by_side(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    answers, bad = right(40), set(list(right_answers(40))[:5])

    def answer(ask: Ask) -> str | Response:
        if ask.question in bad:
            raise AnswerError("out of order", retryable=False)
        return Response(answers(ask), "stop", 30, 10, 0.1)  # type: ignore[arg-type]

    made = config(tmp_path, against="theirs")
    theirs = Told(lambda ask: Response("Answer: nothing of that", "stop", 4, 4, 0.1))
    recorder = build(registry)
    answering = opener(made, ours=Told(answer), theirs=theirs)
    await evaluate(made, answering, {"model": recorder, "against": recorder})
    assert values_of(registry, side="model") == [40, 35, 0, 5]
    assert values_of(registry, side="against") == [40, 0, 40, 0]
    ours = {"suite": "generated", "side": "model"}
    assert registry.get_sample_value("multiverse_evaluation_tokens_total", ours) == 35 * 30
    assert registry.get_sample_value("multiverse_evaluation_critical_path_tokens_total", ours) == 35 * 10


async def test_progress_counts_what_earlier_runs_have_answered(tmp_path: Path) -> None:
    await run(tmp_path, Told(right(40)), 30)
    registry = CollectorRegistry()
    made, told = config(tmp_path), Told(right(40))
    await evaluate(made, opener(made, ours=told), {"model": build(registry)})
    assert len(told.asked) == 10
    assert values_of(registry, side="model") == [40, 40, 0, 0]


async def test_progress_is_of_each_suites_own_budgets(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    made = config(tmp_path, suites=[{"name": "generated", "count": 40, "budgets": [9, "0%", "100%"]}], budgets=[5])

    def answer(ask: Ask) -> Response:
        return Response("Answer: no", "length", 20, 20, 0.0, forced=ask.budget is not None)

    await evaluate(made, opener(made, ours=Told(answer)), {"model": build(registry)})
    # All answers are alike, so both quantiles are 20 positions.
    assert values_of(registry, side="model") == [3 * 40, 0, 3 * 40, 0]
