"""Schemas for endpoints that refuse what they do not know."""

from collections.abc import Iterator
from typing import Any

from multiverse.curation.chain.plan import Step
from multiverse.curation.chain.schemas import MOST_LISTED, dependencies_schema, steps_schema, texts_schema
from multiverse.curation.llm.schemas import response_format, strict

TAKEN = {"type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs"}
TAKEN |= {"description", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}


def objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for name, value in schema.items():
        inner = value.values() if name in ("properties", "$defs") else [value]
        for one in inner:
            if isinstance(one, dict):
                yield from objects(one)


def test_every_property_is_required_and_no_keyword_is_unknown() -> None:
    steps = [Step("a", 0, 2, (Step("x", 0, 1), Step("y", 1, 2))), Step("b", 2, 3)]
    for schema in (dependencies_schema(steps), texts_schema([["a", "b"]])):
        found = list(objects(strict(schema)))
        assert len(found) > 5
        for one in found:
            assert one.keys() <= TAKEN
            if "properties" in one:
                assert one["required"] == list(one["properties"])
                assert one["additionalProperties"] is False


def test_strict_mode_is_used_where_no_property_may_be_missing() -> None:
    texts = response_format(texts_schema([["a", "b"]]))["json_schema"]
    assert (texts["strict"], texts["schema"]) == (True, strict(texts_schema([["a", "b"]])))
    for sentences in (9, MOST_LISTED, MOST_LISTED + 1):
        steps = response_format(steps_schema(sentences))["json_schema"]
        assert (steps["strict"], steps["schema"]) == (False, steps_schema(sentences))


def test_schemas_in_lists_are_schemas_too() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string", "title": "A", "default": ""}}}
    assert strict({"anyOf": [inner]})["anyOf"] == [strict(inner)]
    assert response_format({"anyOf": [inner]})["json_schema"]["strict"]
    del inner["properties"]["a"]["default"]  # type: ignore[index]
    assert not response_format({"anyOf": [inner]})["json_schema"]["strict"]


def test_a_property_may_be_called_like_a_keyword() -> None:
    schema = {"type": "object", "title": "T", "properties": {"title": {"type": "string", "maxLength": 3}}}
    assert strict(schema) == {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
