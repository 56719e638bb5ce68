"""JSON schemas as OpenAI's ``response_format`` takes them."""

from typing import Any

_REFUSED = ("default", "minLength", "maxLength", "minProperties", "maxProperties", "title")
_NAMED = ("properties", "$defs")
"""Keywords whose keys are names of ours, which may be called like a keyword."""


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The request's field for an answer of this schema, in strict mode where that can say what the schema says.

    It cannot where a property may be missing without a default. Then the schema goes out as it is: servers that decode
    by it still do (vLLM), others take it as advice.
    """
    can = not _may_miss(schema)
    answer = {"name": "answer", "schema": strict(schema) if can else schema, "strict": can}
    return {"type": "json_schema", "json_schema": answer}


def _may_miss(schema: dict[str, Any]) -> bool:
    missing = schema.get("properties", {}).keys() - set(schema.get("required", []))
    if any("default" not in schema["properties"][name] for name in missing):
        return True
    inner = [value for name, value in schema.items() if name not in _NAMED]
    inner += [value for name in _NAMED for value in schema.get(name, {}).values()]
    return any(_may_miss(value) for value in inner if isinstance(value, dict))


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every property required and without the keywords that strict mode refuses.

    What is lost, lengths of texts and defaults, is checked when the answer is read.
    Source: OpenAI's guide to structured outputs, "Supported schemas".
    """
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _NAMED:
            found[name] = {key: strict(inner) for key, inner in value.items()}
        elif name not in _REFUSED:
            found[name] = strict(value) if isinstance(value, dict) else value
    if "properties" in found:
        found |= {"required": list(found["properties"]), "additionalProperties": False}
    return found
