"""What an engine is asked, and how a budget's end is told from an answer's own."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.evaluation.accuracy.asking import AnswerError, Ask, TargetError, closing
from multiverse.evaluation.accuracy.config import EngineTarget
from multiverse.evaluation.accuracy.engine import EngineResponder
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest


class Characters:
    """A token is a character; 0 ends a text."""

    eos_ids = (0,)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if not messages[-1]["content"]:
            raise ValueError("the template refuses it")
        return [ord(letter) for letter in messages[-1]["content"]]

    def encode_plain(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class FakeEngine:
    """Answers as ``answer`` says; ``positions`` of each answer are half of its tokens."""

    def __init__(self, answer: Callable[[GenerationRequest], tuple[str, str]], trained: bool = True) -> None:
        self.tokens = Characters()
        self.limits = SimpleNamespace(max_model_len=400)
        self.manifest = SimpleNamespace(trained=trained)
        self.asked: list[GenerationRequest] = []
        self._answer = answer

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Any]:
        self.asked.append(request)
        text, finish = self._answer(request)
        tokens = [*map(ord, text), *([0] if finish == "stop" else [])]
        stop = text.partition("\n")[0] if request.sampling.stop else None
        yield Finished(Result(tuple(tokens), finish, len(tokens) // 2, 2.0, stop_text=stop))  # type: ignore[arg-type]

    async def stats(self) -> dict[str, Any]:
        return {}


def responder(engine: FakeEngine, **target: Any) -> EngineResponder:
    return EngineResponder(EngineTarget(model="m", **target), engine)  # type: ignore[arg-type]


def ask(**values: Any) -> Ask:
    return Ask("generated", "item", 0, "How much?", "task", 7, **values)


async def test_an_answer_is_its_text_without_what_ended_it() -> None:
    engine = FakeEngine(lambda request: ("Answer: 4", "stop"))
    found = await responder(engine).answer(ask(max_tokens=50))
    assert (found.text, found.finish, found.tokens, found.critical_path) == ("Answer: 4", "stop", 10, 5)
    (request,) = engine.asked
    assert (request.parallel.mode, request.parallel.max_positions) == ("auto", None)
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.seed) == (50, 0.0, None)


async def test_an_untrained_model_is_asked_without_tags_and_samples_have_seeds() -> None:
    engine = FakeEngine(lambda request: ("4", "stop"), trained=False)
    await responder(engine, suffix="!").answer(ask(temperature=0.6, top_p=0.9))
    (request,) = engine.asked
    assert (request.parallel.mode, request.sampling.seed, request.sampling.top_p) == ("off", 7, 0.9)
    assert request.prompt == tuple(map(ord, "How much?!"))
    assert request.sampling.max_tokens == 400 - len("How much?!")


@pytest.mark.parametrize("mode", ["auto", "off"])
async def test_where_a_budget_ends_the_answer_is_forced_alike_in_all_modes(mode: str) -> None:
    def answer(request: GenerationRequest) -> tuple[str, str]:
        return (" 4\nAnd more", "stop") if request.sampling.stop else ("Let me think", "length")

    engine = FakeEngine(answer)
    found = await responder(engine, mode=mode).answer(ask(budget=12, max_tokens=600, answer_tokens=20))
    thinking, forced = engine.asked
    assert (thinking.parallel.mode, thinking.parallel.max_positions) == (mode, 12)
    assert forced.prompt == tuple(map(ord, "How much?Let me think\nAnswer:"))
    assert (forced.parallel.mode, forced.sampling.max_tokens, forced.sampling.stop) == ("off", 20, ("\n",))
    assert (found.text, found.finish, found.forced) == ("Let me think\nAnswer: 4", "budget", True)
    assert found.tokens == len("Let me think\nAnswer: 4\nAnd more") + 1


async def test_an_answer_that_ends_before_its_budget_is_left_alone() -> None:
    engine = FakeEngine(lambda request: ("Answer: 4", "stop"))
    found = await responder(engine).answer(ask(budget=100))
    assert (found.forced, len(engine.asked)) == (False, 1)


async def test_an_answer_that_ends_itself_after_cut_branches_is_left_alone() -> None:
    class Cut(FakeEngine):
        async def generate(self, request: GenerationRequest) -> AsyncIterator[Any]:
            async for event in super().generate(request):
                yield Finished(replace(event.result, finish="length", branches_cut=True))

    engine = Cut(lambda request: ("Answer: 4", "stop"))
    found = await responder(engine).answer(ask(budget=100))
    assert (found.text, found.finish, found.forced, len(engine.asked)) == ("Answer: 4", "length", False, 1)


async def test_thinking_that_the_prompt_opened_is_closed_where_a_budget_ends() -> None:
    class Thinking(Characters):
        def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
            return [*super().chat(messages), *map(ord, "\n<think>\n")]

    engine = FakeEngine(lambda request: ("4", "stop") if request.sampling.stop else ("So", "length"))
    engine.tokens = Thinking()
    found = await responder(engine).answer(ask(budget=12, answer_tokens=20))
    assert found.text == "So\n</think>\n\nAnswer:4"


async def test_an_answer_that_ends_by_its_own_limit_is_not_forced() -> None:
    engine = FakeEngine(lambda request: ("Let me th", "length"))
    found = await responder(engine).answer(ask(max_tokens=9))
    assert (found.forced, found.finish, len(engine.asked)) == (False, "length", 1)


async def test_a_question_without_room_for_an_answer_fails_for_good() -> None:
    long = Ask("generated", "item", 0, "x" * 400, "task", 0)
    with pytest.raises(AnswerError, match="has 400 tokens") as caught:
        await responder(FakeEngine(lambda request: ("", "stop"))).answer(long)
    assert not caught.value.retryable


async def test_an_engine_that_fails_a_request_is_asked_again_and_one_that_is_gone_ends_the_run() -> None:
    def fail(request: GenerationRequest) -> tuple[str, str]:
        raise RuntimeError("vLLM reports 'error'")

    engine = FakeEngine(fail)
    with pytest.raises(AnswerError, match="vLLM reports 'error'"):
        await responder(engine).answer(ask())

    async def dead() -> dict[str, Any]:
        raise RuntimeError("EngineCore died")

    engine.stats = dead  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="EngineCore died"):
        await responder(engine).answer(ask())


async def test_what_the_chat_template_refuses_ends_the_run() -> None:
    with pytest.raises(TargetError, match="the template refuses it"):
        await responder(FakeEngine(lambda request: ("", "stop"))).answer(Ask("generated", "item", 0, "", "task", 0))


@pytest.mark.parametrize(
    ("text", "graded_by", "expected"),
    [
        ("so far", "task", "\nAnswer:"),
        ("so far", "math", "\nThe final answer is \\boxed{"),
        ("so far", "choice", "\nThe answer is ("),
        ("<think>\nso far", "math", "\n</think>\n\nThe final answer is \\boxed{"),
        ("<Think>so far", "task", "\n</Think>\n\nAnswer:"),
        ("<think>\nso far\n</think>\nand", "exact", "\nThe final answer is \\boxed{"),
    ],
)
def test_thinking_that_is_open_is_closed(text: str, graded_by: Any, expected: str) -> None:
    assert closing(text, graded_by) == expected
