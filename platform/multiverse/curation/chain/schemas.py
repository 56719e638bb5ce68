"""The JSON schemas of the answers about a chain, for constrained decoding: they allow hardly anything but plans."""

from collections.abc import Sequence
from typing import Any

from multiverse.curation.chain.plan import Step, label, numbers
from multiverse.curation.chain.replies import DependenciesReply, StepsReply, TextsReply

MOST_LISTED = 400
"""Sentences of a chain whose numbers are listed one by one: a grammar of them compiles in seconds."""


def steps_schema(sentences: int) -> dict[str, Any]:
    """Of the answer about a chain of so many sentences: each of them may begin a step, and a part of one.

    Up to `MOST_LISTED` sentences, constrained decoding takes each number once and in order, and the first has to begin
    a step: so no part is outside of one. Of longer chains, for which a grammar of all numbers takes minutes to compile,
    it takes any numbers of as many digits. How many properties there may be is not said: xgrammar's time for that grows
    with the square.
    """
    schema = StepsReply.model_json_schema()
    schema["$defs"] = {"Title": schema["properties"]["steps"]["additionalProperties"]}
    titles = {str(number): {"$ref": "#/$defs/Title"} for number in range(1, sentences + 1)}
    for name, required in (("steps", ["1"]), ("sub_steps", [])):
        level = schema["properties"][name]
        if sentences <= MOST_LISTED:
            level |= {"properties": titles, "required": required}
        else:
            number = f"^[1-9][0-9]{{0,{len(str(sentences)) - 1}}}$"
            level |= {"patternProperties": {number: {"$ref": "#/$defs/Title"}}}
        level["additionalProperties"] = False
        for count in ("minProperties", "maxProperties"):
            level.pop(count, None)
    return schema


def dependencies_schema(steps: Sequence[Step]) -> dict[str, Any]:
    """Of the answer about what each of ``steps`` needs: earlier ones of its level."""
    schema = DependenciesReply.model_json_schema()
    found = numbers(steps)
    needs = {label(number): _earlier(number[-1]) for number in found}
    schema["properties"]["needs"] |= _each(needs)
    levels: dict[tuple[int, ...], list[str]] = {}
    for number in found:
        levels.setdefault(number[:-1], []).append(label(number))
    groups = [
        {"type": "array", "items": {"type": "string", "enum": names}, "minItems": 2, "maxItems": len(names)}
        for names in levels.values()
        if len(names) > 1
    ]
    alternatives = schema["properties"]["alternatives"]
    alternatives |= {"maxItems": len(found) // 2} | ({"items": {"anyOf": groups}} if groups else {})
    return schema


def texts_schema(blocks: Sequence[Sequence[str]], openings: bool = True) -> dict[str, Any]:
    """Of the answer with outlines and conclusions of ``blocks``, as `read_texts` has them.

    openings: whether first words may be rewritten.
    """
    schema = TextsReply.model_json_schema()
    block = schema["$defs"].pop("BlockReply")
    if not openings:
        del block["properties"]["openings"], schema["$defs"]
    found = {str(number): _block(block, len(branches)) for number, branches in enumerate(blocks, start=1)}
    schema["properties"]["blocks"] |= _each(found)
    return schema


def _each(properties: dict[str, Any]) -> dict[str, Any]:
    return {"properties": properties, "required": list(properties), "additionalProperties": False}


def _earlier(place: int) -> dict[str, Any]:
    items = {"type": "integer", "minimum": 1, "maximum": max(1, place - 1)}
    return {"type": "array", "items": items, "maxItems": place - 1}


def _block(block: dict[str, Any], width: int) -> dict[str, Any]:
    fields = dict(block["properties"])
    fields["outlines"] = fields["outlines"] | {"minItems": width, "maxItems": width}
    if "openings" in fields:
        fields["openings"] = fields["openings"] | {"maxItems": width}
    return block | {"properties": fields}
