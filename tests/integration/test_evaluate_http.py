"""Evaluation over HTTP: any OpenAI-compatible server, good, bad, failing, and killed runs."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from multiverse.config import ConfigError
from multiverse.evaluation.accuracy.asking import TargetError
from multiverse.evaluation.accuracy.config import EvaluateConfig
from multiverse.evaluation.accuracy.figures import failures, figures
from multiverse.evaluation.accuracy.run import Evaluated, evaluate
from multiverse.serving.api.http import build_asgi
from multiverse.serving.events import Finished
from multiverse.serving.request import GenerationRequest
from tests.integration.http_surface import surface
from tests.integration.llm_server import Body, Server, always, llm_server, seeded
from tests.integration.ray_head import BIN
from tests.unit.evaluation.accuracy_fakes import right_answers
from tests.unit.serving.http_fakes import FakeEngine, block_of_two, sequential

FAULTS = ("429", "500", "503", "reset", "slow", "truncated", "cut", "none_at_all", "html")


def config(server: Server, out: Path, count: int = 60, **values: Any) -> EvaluateConfig:
    suites = values.pop("suites", [{"name": "generated", "count": count}])
    target = {"base_url": server.url} | values.pop("target", {})
    given = {"model": target, "suites": suites, "out": str(out), "backoff_seconds": 0.01}
    return EvaluateConfig.of(given | values)


def oracle(count: int) -> Any:
    answers = right_answers(count)
    return lambda body: answers[body["messages"][0]["content"]]


def side(found: Evaluated, suite: str = "generated") -> dict[str, Any]:
    return figures(found)[suite]["sides"]["model"]  # type: ignore[no-any-return]


async def test_an_oracle_has_all_right_and_is_asked_each_item_once(tmp_path: Path) -> None:
    with llm_server(oracle(60)) as server:
        found = await evaluate(config(server, tmp_path))
        again = await evaluate(config(server, tmp_path))
    assert side(found)["pass@1"]["value"] == 1.0
    assert again.records == found.records
    assert set(Counter(server.prompts).values()) == {1}
    assert {request.body["model"] for request in server.requests} == {"scripted"}


async def test_a_wrong_one_has_none(tmp_path: Path) -> None:
    with llm_server(lambda body: "Answer: nothing of that") as server:
        assert side(await evaluate(config(server, tmp_path)))["pass@1"]["value"] == 0.0


@pytest.mark.slow
async def test_one_that_is_right_now_and_then_has_an_interval_around_that(tmp_path: Path) -> None:
    answers, held = right_answers(200), Counter[str]()
    for seed in range(100):
        random = Random(seed)

        def answer(body: Body, random: Random = random) -> str:
            return answers[body["messages"][0]["content"]] if random.random() < 0.3 else "Answer: no"

        with llm_server(answer) as server:
            found = side(await evaluate(config(server, tmp_path / str(seed), 200)))
        for name in ("pass@1", "pass@1_wilson"):
            held[name] += found[name]["low"] <= 0.3 <= found[name]["high"]
    assert min(held["pass@1"], held["pass@1_wilson"]) >= 93, held


async def test_a_suite_of_a_file_is_graded_as_mathematics(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 1/2?", "answer": f"so...\n#### {2 * n + 1}/2"} for n in range(1, 9)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(body: Body) -> str:
        n = int(body["messages"][0]["content"].split()[2])
        return f"We add them. \\boxed{{{n}.5}}" if n % 4 else "It is \\boxed{0}"

    with llm_server(answer) as server:
        found = await evaluate(config(server, tmp_path / "out", suites=[{"name": "gsm8k", "source": str(path)}]))
    assert side(found, "gsm8k")["pass@1"]["value"] == 6 / 8
    assert side(found, "gsm8k")["rules"] == {"boxed": 8}


async def test_a_server_that_fails_every_third_time_loses_no_answer(tmp_path: Path) -> None:
    with llm_server(oracle(60), fault=seeded(3, 0.35, FAULTS)) as server:
        server.retry_after = lambda: "0.05"
        server.slow_seconds = 0.8
        made = config(server, tmp_path, attempts=12, target={"timeout_seconds": 0.5})
        found = await evaluate(made)
    assert (side(found)["pass@1"]["value"], side(found)["failed"]) == (1.0, 0)
    assert side(found)["retried"] > 5
    assert {request.fault for request in server.requests} == {*FAULTS, "none"}


async def test_items_that_never_come_are_wrong_and_listed(tmp_path: Path) -> None:
    answers = right_answers(20)
    bad = set(list(answers)[:3])
    with llm_server(
        oracle(20), fault=lambda body: "500" if body["messages"][0]["content"] in bad else "none"
    ) as server:
        found = await evaluate(config(server, tmp_path, 20, attempts=2))
    assert side(found)["pass@1"]["value"] == 17 / 20
    assert {entry["reason"] for entry in failures(found)} == {"HTTP 500: this cannot be done with the key "}
    assert len(failures(found)) == 3


async def test_a_key_that_is_refused_ends_the_run_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret-1")
    with (
        llm_server(oracle(20), fault=always("401")) as server,
        pytest.raises(TargetError, match=r"HTTP 401.*\[key\]") as caught,
    ):
        await evaluate(config(server, tmp_path, 20, target={"key_env": "SOME_KEY"}))
    assert "sk-secret-1" not in str(caught.value)
    assert {request.authorization for request in server.requests} == {"Bearer sk-secret-1"}


async def test_a_missing_key_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with llm_server(oracle(20)) as server, pytest.raises(ConfigError, match="NO_SUCH_KEY holds no API key"):
        await evaluate(config(server, tmp_path, 20, target={"key_env": "NO_SUCH_KEY"}))
    assert server.requests == []


async def test_nobody_at_the_address_is_said_plainly(tmp_path: Path) -> None:
    with llm_server(oracle(20)) as server:
        pass
    with pytest.raises(TargetError, match=r"http://127.0.0.1:\d+/v1 does not answer: ConnectError"):
        await evaluate(config(server, tmp_path, 20))


@pytest.mark.parametrize("forcing", ["continue", "turn"])
async def test_a_budget_ends_thinking_and_forces_the_answer(tmp_path: Path, forcing: str) -> None:
    """It thinks for 50 words; cut at 10, it answers when its text is closed, and is right half of the time."""
    answers = right_answers(40)
    thought = "<think>" + " word" * 50
    expected = {question: text.rpartition("Answer:")[2].strip() for question, text in answers.items()}

    def answer(body: Body) -> str:
        question = body["messages"][0]["content"]
        if len(body["messages"]) == 1:
            return f"{thought} </think> Answer: {expected[question]}"
        lucky = list(answers).index(question) % 2 == 0
        said = expected[question] if lucky else "nothing"
        return f" {said}" if forcing == "continue" else f"Answer: {said}"

    with llm_server(answer) as server:
        server.limited = True
        made = config(server, tmp_path, 40, budgets=[10, 100], target={"forcing": forcing})
        found = await evaluate(made)
    rows = figures(found)["generated"]["budgets"]["rows"]
    assert [(row["budget"], row["model"]["accuracy"]["value"], row["model"]["forced"]) for row in rows] == [
        (10, 0.5, 1.0),
        (100, 1.0, 0.0),
    ]
    second = next(request.body for request in server.requests if len(request.body["messages"]) > 1)
    assert second["stop"] == ["\n"]
    if forcing == "continue":
        assert second["messages"][-1]["content"] == "<think>" + " word" * 9 + "\n</think>\n\nAnswer:"
        assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    record = found.records["model"]["generated", found.questions[0].items[0].id, 0, 10]
    assert (record.finish, record.forced) == ("budget", True)


def command(server: Server, out: Path, *more: str) -> list[str]:
    options = ["--count", "60", "--concurrency", "4", "--out", str(out), "--json"]
    return [str(BIN / "multiverse"), "evaluate", server.url, *options, *more]


def test_a_run_that_is_killed_goes_on_without_asking_again(tmp_path: Path) -> None:
    results = tmp_path / "answers-model.jsonl"
    with llm_server(oracle(60), latency=0.1) as server:
        process = subprocess.Popen(command(server, tmp_path), env=os.environ, stdout=subprocess.DEVNULL)
        while not results.exists() or results.read_bytes().count(b"\n") < 15:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = results.read_bytes().count(b"\n")
        asked = len(server.requests)
        ended = subprocess.run(command(server, tmp_path), env=os.environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["suites"]["generated"]["sides"]["model"]["pass@1"]["value"] == 1.0
    assert 15 <= kept < 60
    assert len(server.requests) - asked == 60 - kept
    assert len(results.read_text().splitlines()) == 60
    assert json.loads((tmp_path / "report.json").read_text()) == report
    for name in ("report.md", "rows.csv", "generated-lengths.png"):
        assert (tmp_path / name).stat().st_size > 100


def test_what_the_user_can_put_right_is_one_line(tmp_path: Path) -> None:
    with llm_server(oracle(20)) as server:
        pass
    ended = subprocess.run(command(server, tmp_path), env=os.environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"multiverse: {server.url} does not answer: ConnectError")
    assert "Traceback" not in ended.stderr


async def test_our_server_takes_budgets_in_positions_and_goes_on_with_a_structured_text(tmp_path: Path) -> None:
    def script(request: GenerationRequest) -> list[Any]:
        if request.parallel.mode == "off":
            return list(sequential(engine.tokens, " 4"))
        *events, last = block_of_two(engine.tokens)
        assert isinstance(last, Finished)
        finish = "stop" if request.parallel.max_positions is None else "length"
        return [*events, Finished(replace(last.result, finish=finish))]  # type: ignore[arg-type]

    engine = FakeEngine(script, trained=True, max_model_len=500)
    with http_server(engine) as url:
        suites = [{"name": "generated", "count": 1, "max_tokens": 200}]
        values = {"model": {"base_url": url}, "suites": suites, "budgets": [30], "out": str(tmp_path)}
        found = await evaluate(EvaluateConfig.of(values))
    free, thinking, forced = engine.requests
    assert [request.parallel.max_positions for request in engine.requests] == [None, 30, None]
    assert (free.parallel.mode, thinking.parallel.mode, forced.parallel.mode) == ("auto", "auto", "off")
    assert engine.tokens.decode(forced.prompt).endswith("Done.Answer:[on]")
    figures_ = side(found)
    assert (figures_["parallel"], figures_["valid_of_parallel"], figures_["critical_path"]) == (1.0, 1.0, 40.0)
    (record,) = [record for record in found.records["model"].values() if record.budget == 30]
    assert (record.forced, record.width, record.answer) == (True, 2, "4")
    assert record.text.endswith("</Parallel>\nDone.\nAnswer: 4")


async def test_our_server_says_that_an_answer_ended_although_its_branches_were_cut(tmp_path: Path) -> None:
    def script(request: GenerationRequest) -> list[Any]:
        *events, last = block_of_two(engine.tokens)
        assert isinstance(last, Finished)
        return [*events, Finished(replace(last.result, finish="length", branches_cut=True))]

    engine = FakeEngine(script, trained=True, max_model_len=500)
    with http_server(engine) as url:
        suites = [{"name": "generated", "count": 1, "max_tokens": 200}]
        values = {"model": {"base_url": url}, "suites": suites, "budgets": [30], "out": str(tmp_path)}
        found = await evaluate(EvaluateConfig.of(values))
    assert len(engine.requests) == 2
    (record,) = [record for record in found.records["model"].values() if record.budget == 30]
    assert (record.forced, record.finish) == (False, "length")


async def test_what_the_context_does_not_hold_is_the_items_fault(tmp_path: Path) -> None:
    """The first request fits, the one that forces the answer does not: the run goes on."""

    def fault(body: Body) -> str:
        return "too_long" if len(body["messages"]) > 1 else "none"

    with llm_server(lambda body: "<think>" + " word" * 50, fault=fault) as server:
        server.limited = True
        found = await evaluate(config(server, tmp_path, 20, budgets=[10]))
    (row,) = figures(found)["generated"]["budgets"]["rows"]
    assert row["model"]["accuracy"]["value"] == 0.0
    assert {entry["reason"] for entry in failures(found)} == {"HTTP 400: the maximum context length is 8 tokens"}


@contextmanager
def http_server(engine: FakeEngine) -> Iterator[str]:
    """Our HTTP surface over ``engine``; its ``base_url``."""
    with surface(build_asgi(engine, "tiny")) as port:
        yield f"http://127.0.0.1:{port}/v1"
