"""JSON schemas as OpenAI's strict mode takes them."""

from typing import Any

_REFUSED = ("default", "minLength", "maxLength", "title")
_NAMED = ("properties", "$defs")
"""Keywords whose keys are names of ours, which may be called like a keyword."""


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
