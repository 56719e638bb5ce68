"""``make docs``: docs/configuration.md, what YAML files may say, from the types that check them."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multiverse.config import AppConfig, Configuration
from multiverse.curation.job.config import CurateConfig
from multiverse.evaluation.accuracy.config import EvaluateConfig
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.training.config import TrainConfig

Schema = Mapping[str, Any]
CONFIGURATIONS: dict[str, tuple[type[Configuration], str]] = {
    "Serving": (
        AppConfig,
        "`multiverse serve --config FILE`, `multiverse generate --config FILE`; the `args` of the application in "
        "`deployments/serve.yaml` and in a RayService's `serveConfigV2`. Every field may be left out.",
    ),
    "Curation": (CurateConfig, "`multiverse curate --config FILE` and `jobs/curate.py`; see [curation](curation.md)."),
    "Training": (TrainConfig, "`multiverse train --config FILE` and `jobs/train.py`; see [training](training.md)."),
    "Evaluation": (EvaluateConfig, "`multiverse evaluate --config FILE` and `jobs/evaluate.py`."),
    "Benchmark": (SpeedConfig, "`multiverse bench speed --config FILE` and `jobs/benchmark.py`."),
}
"""Titles, what checks the file, and who reads it."""

_INTRODUCTION = """# Configuration

What the YAML files of the platform may say. A field that is not listed is refused, by name, before anything starts.
This document is written by `make docs` from the types that check the files.
"""
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_NAMES = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text"}


def document() -> str:
    """The whole text."""
    parts, described = [_INTRODUCTION], dict[str, str]()
    for title, (configuration, read_by) in CONFIGURATIONS.items():
        schema = configuration.model_json_schema()
        parts.append(f"\n## {title}\n\n{read_by}\n")
        parts += _sections(schema, schema["$defs"], "", title, described)
    return "".join(parts)


def _sections(schema: Schema, known: Schema, prefix: str, title: str, described: dict[str, str]) -> Iterator[str]:
    """The fields of one type, then those of the types in it, with dotted names.

    described: where a type's fields stand already.
    """
    required = set(schema.get("required", ()))
    inner: list[tuple[str, Schema]] = []
    lines = []
    for name, field in schema["properties"].items():
        found = [known[reference] for reference in _references(field)]
        inner += [(f"{prefix}{name}{'[]' if 'items' in field else ''}", one) for one in found]
        meaning = field.get("description") or " ".join(map(_sentence, found))
        default = "required" if name in required else _default(field["default"], found)
        lines.append(f"| `{prefix}{name}` | {_type(field)} | {default} | {meaning} |\n")
    yield "\n| field | value | default | meaning |\n|---|---|---|---|\n" + "".join(lines)
    for name, one in inner:
        kind = one["properties"].get("kind", {}).get("const")
        heading, content = f"`{name}`" + (f", kind `{kind}`" if kind else ""), json.dumps(one)
        here = f"{heading} ({title})"
        if described.get(content) == here:
            continue
        yield f"\n### {heading}\n\n{_sentence(one)}\n"
        if content in described:
            yield f"The fields are those of {described[content]}.\n"
            continue
        described[content] = here
        yield from _sections(one, known, f"{name}.", title, described)


def _default(value: Any, types: Sequence[Schema]) -> str:
    """A field's default; of one with fields of its own, what differs from theirs."""
    if not types or not value:
        return _code(value)
    if not isinstance(value, dict):
        return "below"
    own = {name: field.get("default") for name, field in types[0]["properties"].items()}
    other = ", ".join(f"{name}: {json.dumps(one)}" for name, one in value.items() if one != own.get(name))
    return f"below, with `{{{other}}}`" if other else "below"


def _references(field: Schema) -> list[str]:
    """Names of the types that a field's value may have, each with fields of its own."""
    choices = [field, field.get("items", {}), *field.get("anyOf", ()), *field.get("oneOf", ())]
    return [choice["$ref"].rpartition("/")[2] for choice in choices if "$ref" in choice]


def _type(field: Schema) -> str:
    """What a value has to be, for people."""
    if choices := [*field.get("anyOf", ()), *field.get("oneOf", ())]:
        return ", or ".join(dict.fromkeys(_type(choice) for choice in choices))
    if "$ref" in field:
        return "fields, below"
    if "enum" in field or "const" in field:
        return " or ".join(_code(value) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        pair = field.get("prefixItems", ())
        return f"list of {len(pair)} {_type(pair[0])}" if pair else f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return "mapping"
    if field.get("type") == "null":
        return "null"
    name = "path" if field.get("format") == "path" else _NAMES[field["type"]]
    bounds = [f"{sign} {_number(field[bound])}" for bound, sign in _BOUNDS.items() if bound in field]
    return ", ".join([name, *bounds])


def _number(value: float) -> str:
    return f"{value:g}" if value < 2**32 else f"2^{int(value).bit_length() - 1}"


def _sentence(schema: Schema) -> str:
    """A type's docstring without its references to code."""
    text = re.sub(r" \((see )?`multiverse\.[^)]*\)", "", " ".join(schema["description"].split()))
    return text.replace("``", "`")


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(document())
