"""What pydantic found wrong, as one sentence that names the field, its value and what would be right."""

import json
import re
from typing import Any

from pydantic import ValidationError

_LONGEST_VALUE = 60


def explain(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong: the field (``messages[0].role``) and the sentence about it."""
    first = error.errors(include_url=False)[0]
    field = path(first["loc"])
    match first["type"]:
        case "missing":
            return field, f"{field} is missing"
        case "extra_forbidden":
            return field, f"{field} is not a known field (its value is {shown(first['input'])}); leave it out"
        case "model_type":
            right = "must be an object"
        case "literal_error":
            right = f"must be {first['ctx']['expected']}"
        case "value_error":
            right = str(first["ctx"]["error"])
        case _:
            right = re.sub(r"^\w+ should", "must", first["msg"])
    return field, f"{field or 'the request'} is {shown(first['input'])}: {right}"


def path(loc: tuple[int | str, ...]) -> str:
    """``("messages", 0, "role")`` as ``messages[0].role``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def shown(value: Any) -> str:
    """``value`` as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
