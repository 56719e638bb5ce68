"""Bodies to generation requests."""

import itertools
from typing import Any

import pytest

from multiverse.engine.segment import Sampling
from multiverse.serving.api.errors import ApiError
from multiverse.serving.api.schema import ChatBody, CompletionBody
from multiverse.serving.api.translate import Ticket, derived_seed, to_requests
from multiverse.serving.request import GenerationRequest, ParallelOptions
from tests.unit.serving.http_fakes import TAG_IDS, FakeEngine


def engine(**limits: Any) -> FakeEngine:
    return FakeEngine(lambda request: [], **limits)


def requests(body: ChatBody | CompletionBody, served: FakeEngine) -> list[GenerationRequest]:
    numbers = itertools.count()
    return to_requests(body, served, lambda: Ticket(f"id-{(number := next(numbers))}", number))


def chat(served: FakeEngine | None = None, **fields: Any) -> list[GenerationRequest]:
    body = {"model": "m", "messages": [{"role": "user", "content": "What now"}], **fields}
    return requests(ChatBody.model_validate(body), served or engine())


def complete(prompt: Any, served: FakeEngine | None = None, **fields: Any) -> list[GenerationRequest]:
    return requests(CompletionBody.model_validate({"model": "m", "prompt": prompt, **fields}), served or engine())


def refusal(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.message


def test_chat_becomes_one_request() -> None:
    served = engine()
    (request,) = chat(
        served,
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        seed=3,
        parallel={
            "mode": "force",
            "width": 3,
            "max_width": 2,
            "max_depth": 1,
            "max_branch_tokens": 5,
            "max_positions": 6,
        },
    )
    assert request == GenerationRequest(
        id="id-0",
        prompt=served.tokens.ids("[user]", "What", "now"),
        sampling=Sampling(max_tokens=7, temperature=0.5, top_p=0.9, top_k=0, min_p=0.1, seed=3),
        parallel=ParallelOptions("force", 3, 2, 1, 5, 6),
        question="What now",
        arrival=0,
        cache_salt="layout-1",
        seen="nothing",
    )


@pytest.mark.parametrize(("parallel", "seen"), [({}, "answer"), ({"stream_branches": True}, "all")])
def test_streams_tell_what_of_the_answer_is_seen_as_it_grows(parallel: dict[str, bool], seen: str) -> None:
    (request,) = chat(stream=True, parallel={"mode": "auto", **parallel})
    assert request.seen == seen


def test_sampling_of_plain_generation() -> None:
    (request,) = chat(
        stop="END",
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"42": -100},
        min_tokens=2,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        logprobs=True,
        top_logprobs=3,
    )
    assert request.sampling == Sampling(
        max_tokens=97,
        logprobs=3,
        min_tokens=2,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.5,
        logit_bias={42: -100.0},
        stop=("END",),
        json_schema={"type": "object"},
    )


def test_json_object() -> None:
    assert chat(response_format={"type": "json_object"})[0].sampling.json_object is True


@pytest.mark.parametrize("mode", ["auto", "force", "off"])
def test_end_of_sequence_is_ignored_in_every_mode(mode: str) -> None:
    assert chat(parallel={"mode": mode}, ignore_eos=True)[0].sampling.ignore_eos is True


@pytest.mark.parametrize(("trained", "mode"), [(True, "auto"), (False, "off")])
def test_default_mode_is_auto_for_trained_models_only(trained: bool, mode: str) -> None:
    assert chat(engine(trained=trained))[0].parallel.mode == mode


def test_plain_generation_has_a_cache_of_its_own() -> None:
    assert chat(parallel={"mode": "off"})[0].cache_salt == "layout-1-off"


@pytest.mark.parametrize(("mode", "salt"), [("auto", "layout-1/lab"), ("off", "layout-1-off/lab")])
def test_tenant_has_a_cache_of_its_own(mode: str, salt: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "What now"}], "parallel": {"mode": mode}}
    (request,) = to_requests(ChatBody.model_validate(body), engine(), lambda: Ticket("id", 0), "lab")
    assert request.cache_salt == salt


def test_max_tokens_is_what_the_context_leaves() -> None:
    assert chat(engine(max_model_len=10))[0].sampling.max_tokens == 7


def test_position_is_a_token_without_blocks() -> None:
    assert chat(parallel={"mode": "off", "max_positions": 5})[0].sampling.max_tokens == 5


def test_generations_have_seeds_of_their_own() -> None:
    assert [request.sampling.seed for request in chat(n=3, seed=5)] == [5, 3492493464492241469, 7658058563177375691]


def test_generations_without_seed_have_none() -> None:
    assert [derived_seed(None, number) for number in range(2)] == [None, None]


def test_generations_arrive_one_after_the_other() -> None:
    assert [(request.id, request.arrival) for request in chat(n=2)] == [("id-0", 0), ("id-1", 1)]


def test_developer_is_the_system() -> None:
    served = engine()
    (request,) = chat(
        served, messages=[{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    )
    assert request.prompt == served.tokens.ids("[system]", "Be", "brief", "[user]", "Hi")
    assert request.question == "Hi"


def test_question_is_the_last_of_the_user() -> None:
    turns = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    (request,) = chat(messages=[{"role": role, "content": content} for role, content in turns])
    assert request.question == "three"


def test_text_prompts_make_a_request_each() -> None:
    served = engine()
    first, second = complete(["a", "b"], served)
    assert (first.prompt, second.prompt) == (served.tokens.ids("a"), served.tokens.ids("b"))


def test_tag_in_a_text_prompt_is_text() -> None:
    (request,) = complete("a<Path>b")
    assert not set(request.prompt) & set(TAG_IDS.values())


def test_well_formed_tags_in_ids_are_taken() -> None:
    served = engine()
    ids = served.tokens.structured(
        "<Parallel><Goal><Outline>1: a</Outline></Goal><Path>1: b</Path><Conclusion>c</Conclusion></Parallel>"
    )
    assert complete(list(ids), served)[0].prompt == ids


def test_damaged_tags_in_ids_are_refused() -> None:
    served = engine()
    ids = served.tokens.structured("a<Parallel>b")
    with pytest.raises(ApiError, match="prompt holds tag tokens that are not well-formed: line 1, column 12: rule"):
        complete(list(ids), served)


def test_spelled_tag_in_ids_closes_nothing() -> None:
    served = engine()
    ids = (*served.tokens.structured("<Think>a"), *served.tokens.ids("<", "/Think>"))
    with pytest.raises(ApiError, match="rule think-closed"):
        complete(list(ids), served)


@pytest.mark.parametrize("id", [-1, 1000])
def test_id_outside_the_vocabulary_is_refused(id: int) -> None:
    with pytest.raises(ApiError, match=rf"prompt\[1\] is {id}: must be a token id from 0 to 999"):
        complete([20, id])


@pytest.mark.parametrize("prompt", ["", [[]]])
def test_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(ApiError, match="prompt is empty"):
        complete(prompt)


def test_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        chat(engine(max_model_len=3))
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.message == (
        "messages has 3 tokens: must have at most 2, one less than the model's context of 3"
    )


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        (
            {"max_tokens": 98},
            "max_tokens",
            "max_tokens is 98: must be at most 97, what the prompt of 3 tokens leaves of the model's context of 100",
        ),
        (
            {"max_completion_tokens": 98},
            "max_completion_tokens",
            "max_completion_tokens is 98: must be at most 97, "
            "what the prompt of 3 tokens leaves of the model's context of 100",
        ),
        (
            {"max_tokens": 1, "max_completion_tokens": 1},
            "max_tokens",
            "max_tokens and max_completion_tokens are the same: give one of them",
        ),
        (
            {"max_tokens": 2, "min_tokens": 3},
            "min_tokens",
            "min_tokens is 3: must be at most max_tokens, which is 2",
        ),
        (
            {"logit_bias": {"1000": 1}},
            "logit_bias",
            "logit_bias has the key '1000': must be a token id from 0 to 999",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "top_logprobs is 2 without logprobs: true"),
        (
            {"logprobs": True, "parallel": {"tags": False}},
            "logprobs",
            "logprobs belong to tokens, tags included: they do not work with parallel.tags false",
        ),
        ({"stream_options": {}}, "stream_options", "stream_options is given without stream: true"),
        (
            {"parallel": {"stream_branches": True}},
            "parallel.stream_branches",
            "parallel.stream_branches is true without stream: true",
        ),
        (
            {"parallel": {"mode": "auto", "width": 2}},
            "parallel.width",
            "parallel.width is 2: works with parallel.mode 'force' only",
        ),
        (
            {"tools": [{"type": "function"}]},
            "tools",
            "tools: tool calls are not parsed here; send tool_choice 'none' or leave tools out",
        ),
        (
            {"ignore_eos": True, "response_format": {"type": "json_object"}},
            "ignore_eos",
            "ignore_eos is true: what response_format describes ends by the end of sequence",
        ),
        (
            {"tool_choice": "required"},
            "tool_choice",
            "tool_choice must be 'none': tool calls are not parsed here",
        ),
    ],
)
def test_refusal(fields: dict[str, Any], param: str, message: str) -> None:
    assert refusal(**fields) == (param, message)


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": "x"},
        {"presence_penalty": 1},
        {"frequency_penalty": 1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {"1": 1}},
        {"min_tokens": 1},
        {"response_format": {"type": "json_object"}},
        {"tools": [{}], "tool_choice": "none"},
    ],
    ids=lambda fields: next(iter(fields)),
)
@pytest.mark.parametrize("mode", ["auto", "force"])
def test_what_needs_one_sequence_is_refused_with_blocks(mode: str, fields: dict[str, Any]) -> None:
    field = next(iter(fields))
    message = f"{field} works with parallel.mode 'off' only; the mode is '{mode}'"
    assert refusal(parallel={"mode": mode}, **fields) == (field, message)


def test_too_many_generations_are_refused() -> None:
    with pytest.raises(ApiError, match="n is 6: 3 prompts make more than 16 generations"):
        complete(["a", "b", "c"], n=6)


def test_an_answer_that_is_begun_is_gone_on_with() -> None:
    served = engine()
    turns = [{"role": "user", "content": "What now"}, {"role": "assistant", "content": "Well then"}]
    (request,) = chat(served, messages=turns, continue_final_message=True, add_generation_prompt=False)
    assert served.tokens.decode(request.prompt) == "[user]Whatnow[assistant]Wellthen[on]"


@pytest.mark.parametrize(
    "fields",
    [
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
    ],
)
def test_only_an_answer_of_the_assistants_is_gone_on_with(fields: dict[str, Any]) -> None:
    assert refusal(**fields)[0] == "continue_final_message"
