"""What a body may say, and what is said of one that may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from multiverse.serving.api.errors import from_validation
from multiverse.serving.api.schema import ChatBody, CompletionBody

MESSAGES = [{"role": "user", "content": "Hi"}]


def refusal(kind: type[ChatBody] | type[CompletionBody], body: dict[str, Any]) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    error = from_validation(caught.value)
    assert error.status == 400
    return error.param, error.message


@pytest.mark.parametrize(
    ("field", "value", "param", "message"),
    [
        ("temperature", 3, "temperature", "temperature is 3: must be less than or equal to 2"),
        ("temperature", "1", "temperature", 'temperature is "1": must be a valid number'),
        ("temperature", True, "temperature", "temperature is true: must be a valid number"),
        ("top_p", 0, "top_p", "top_p is 0: must be greater than 0"),
        ("max_tokens", 0, "max_tokens", "max_tokens is 0: must be greater than or equal to 1"),
        ("max_tokens", 1.5, "max_tokens", "max_tokens is 1.5: must be a valid integer"),
        (
            "max_completion_tokens",
            0,
            "max_completion_tokens",
            "max_completion_tokens is 0: must be greater than or equal to 1",
        ),
        ("n", 17, "n", "n is 17: must be less than or equal to 16"),
        ("seed", -1, "seed", "seed is -1: must be greater than or equal to 0"),
        ("stop", ["a", ""], "stop[1]", 'stop[1] is "": must have at least 1 character'),
        ("logit_bias", {"x": 1}, "logit_bias", "logit_bias is {\"x\": 1}: keys must be token ids like '42', not 'x'"),
        ("logit_bias", {"4": 101}, "logit_bias.4", "logit_bias.4 is 101: must be less than or equal to 100"),
        ("parallel", {"mode": "on"}, "parallel.mode", "parallel.mode is \"on\": must be 'auto', 'force' or 'off'"),
        ("parallel", {"reduce": "sum"}, "parallel.reduce", "parallel.reduce is \"sum\": must be 'kv' or 'text'"),
        ("parallel", {"width": 0}, "parallel.width", "parallel.width is 0: must be greater than or equal to 1"),
        (
            "parallel",
            {"max_width": 33},
            "parallel.max_width",
            "parallel.max_width is 33: must be less than or equal to 32",
        ),
        (
            "parallel",
            {"max_depth": 0},
            "parallel.max_depth",
            "parallel.max_depth is 0: must be greater than or equal to 1",
        ),
        (
            "parallel",
            {"wide": 2},
            "parallel.wide",
            "parallel.wide is not a known field (its value is 2); leave it out",
        ),
        ("functions", [], "functions", "functions is not a known field (its value is []); leave it out"),
        ("messages", [], "messages", "messages is []: must have at least 1 item after validation, not 0"),
        (
            "messages",
            [{"role": "robot", "content": "x"}],
            "messages[0].role",
            "messages[0].role is \"robot\": must be 'system', 'developer', 'user', 'assistant' or 'tool'",
        ),
        ("messages", [{"role": "user"}], "messages[0].content", "messages[0].content is missing"),
        (
            "response_format",
            {"type": "xml"},
            "response_format.type",
            "response_format.type is \"xml\": must be 'text', 'json_object' or 'json_schema'",
        ),
    ],
)
def test_refusal_names_field_value_and_what_would_be_right(field: str, value: Any, param: str, message: str) -> None:
    assert refusal(ChatBody, {"model": "m", "messages": MESSAGES, field: value}) == (param, message)


def test_missing_field_is_named() -> None:
    assert refusal(ChatBody, {"messages": MESSAGES}) == ("model", "model is missing")


def test_image_part_is_refused() -> None:
    content = [{"type": "image_url", "image_url": {"url": "x"}}]
    param, message = refusal(ChatBody, {"model": "m", "messages": [{"role": "user", "content": content}]})
    assert param == "messages[0].content"
    assert message.endswith('parts must be {"type": "text", "text": "..."}; the model reads text only')


def test_long_value_is_cut_in_the_message() -> None:
    _, message = refusal(ChatBody, {"model": "m", "messages": MESSAGES, "temperature": "9" * 1000})
    assert message == f'temperature is "{"9" * 56}...: must be a valid number'


def test_schema_goes_with_its_type() -> None:
    param, message = refusal(ChatBody, {"model": "m", "messages": MESSAGES, "response_format": {"type": "json_schema"}})
    assert param == "response_format"
    assert message.endswith("json_schema must be given exactly where type is 'json_schema'")


def test_null_is_the_default() -> None:
    body = ChatBody.model_validate(
        {"model": "m", "messages": MESSAGES, "stop": None, "parallel": {"mode": None}, "n": None}
    )
    assert (body.stop, body.parallel.mode, body.n) == ([], None, 1)


def test_harmless_fields_of_clients_are_taken() -> None:
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "parallel_tool_calls": True}
    body = ChatBody.model_validate({"model": "m", "messages": MESSAGES, **harmless})
    assert body == ChatBody.model_validate({"model": "m", "messages": MESSAGES})


def test_text_parts_are_put_together() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert body.messages[0].content == "ab"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("x", ["x"]), (["x", "y"], ["x", "y"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompt_is_always_several(prompt: Any, prompts: list[Any]) -> None:
    assert CompletionBody.model_validate({"model": "m", "prompt": prompt}).prompt == prompts


@pytest.mark.parametrize("prompt", [7, ["x", 1], [[1], "x"], [True], [1.0], {"a": 1}])
def test_other_prompt_is_refused(prompt: Any) -> None:
    param, message = refusal(CompletionBody, {"model": "m", "prompt": prompt})
    assert param == "prompt"
    assert message.endswith("must be a string, a list of strings, a list of token ids, or a list of such lists")


def test_empty_prompt_list_is_refused() -> None:
    assert refusal(CompletionBody, {"model": "m", "prompt": []})[0] == "prompt"


@pytest.mark.parametrize(("field", "value"), [("echo", True), ("best_of", 2), ("suffix", "x")])
def test_what_plain_completions_cannot_do_is_refused(field: str, value: Any) -> None:
    assert refusal(CompletionBody, {"model": "m", "prompt": "x", field: value})[0] == field
