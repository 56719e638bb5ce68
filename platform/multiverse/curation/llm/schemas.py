"""JSON schemas as OpenAI's ``response_format`` takes them."""

from collections.abc import Iterator
from typing import Any

_REFUSED = ("default", "minLength", "maxLength", "minProperties", "maxProperties", "title")
_NAMED = ("properties", "$defs")
"""Keywords whose keys are names of ours, which may be called like a keyword."""


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The request's field for an answer of this schema, in strict mode where that can say what the schema says.

    It cannot where a property may be missing without a default, or has a name of a pattern. Then the schema goes out as
    it is: servers that decode by it still do (vLLM), others take it as advice.
    """
    can = _fits_strict(schema)
    answer = {"name": "answer", "schema": strict(schema) if can else schema, "strict": can}
    return {"type": "json_schema", "json_schema": answer}


def _fits_strict(schema: dict[str, Any]) -> bool:
    missing = schema.get("properties", {}).keys() - set(schema.get("required", []))
    if "patternProperties" in schema or any("default" not in schema["properties"][name] for name in missing):
        return False
    return all(_fits_strict(inner) for inner in _inner(schema))


def _inner(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas right inside of a schema."""
    for name, value in schema.items():
        found = value.values() if name in _NAMED else value if isinstance(value, list) else [value]
        yield from (inner for inner in found if isinstance(inner, dict))


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every property required and without the keywords that strict mode refuses.

    What is lost, lengths of texts and defaults, is checked when the answer is read.
    Source: OpenAI's guide to structured outputs, "Supported schemas".
    """
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _NAMED:
            found[name] = {key: strict(inner) for key, inner in value.items()}
        elif isinstance(value, list) and name not in _REFUSED:
            found[name] = [strict(inner) if isinstance(inner, dict) else inner for inner in value]
        elif name not in _REFUSED:
            found[name] = strict(value) if isinstance(value, dict) else value
    if "properties" in found:
        found |= {"required": list(found["properties"]), "additionalProperties": False}
    return found
