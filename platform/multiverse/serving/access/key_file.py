"""Keys as operators write them: a YAML file and an environment variable. No message shows what stands there.

- name: alice
  sha256: 6e659fda...          # of the key: `multiverse keys new alice` prints both
  tenant: research             # default: the name
  limits: {concurrency: 8, tokens_per_minute: 60000, max_width: 8}
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from multiverse.serving.access.keys import KEY_PREFIX, Key, KeyLimits, sha256_of

HASHED = "sha256:"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class KeysError(ValueError):
    """Keys that cannot be used. The message names the place and what would be right, never the value."""


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    concurrency: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    max_width: int | None = Field(None, ge=1)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str
    tenant: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    limits: _Limits = _Limits()

    @field_validator("name", "tenant")
    @classmethod
    def _is_no_key(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(KEY_PREFIX):
            raise ValueError(f"must not begin with {KEY_PREFIX}, as keys do: it is shown in metrics")
        return value

    @field_validator("sha256")
    @classmethod
    def _is_a_hash(cls, value: str) -> str:
        if not _SHA256.fullmatch(value.lower()):
            raise ValueError("must be the 64 hexadecimal digits of a key's SHA-256, not the key")
        return value.lower()

    def key(self) -> Key:
        return Key(self.name, self.sha256, self.tenant or self.name, KeyLimits(**self.limits.model_dump()))


_ENTRIES = TypeAdapter(list[_Entry])


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises KeysError, also for an empty file; that there are no keys is written ``[]``."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not UTF-8") from None
    except yaml.YAMLError as error:
        # The parser's own message quotes the text.
        mark = getattr(error, "problem_mark", None)
        raise KeysError(f"{path} is not YAML{'' if mark is None else f', line {mark.line + 1}'}") from None
    try:
        entries = _ENTRIES.validate_python(values)
    except ValidationError as error:
        raise KeysError(f"{path}: {_explain(error)}") from None
    keys = tuple(entry.key() for entry in entries)
    check_distinct(keys, str(path))
    return keys


def entry(name: str, key: str) -> str:
    """The lines of a file of keys for one key. Raises KeysError for a name that cannot be used."""
    fields = {"name": name, "sha256": sha256_of(key)}
    try:
        _ENTRIES.validate_python([fields])
    except ValidationError as error:
        raise KeysError(_explain(error).removeprefix("entry 1: ")) from None
    text: str = yaml.safe_dump([fields], sort_keys=False)
    return text


def parse_keys(text: str, source: str) -> tuple[Key, ...]:
    """The keys of an environment variable: keys, or ``sha256:`` and a key's hash, with commas between.

    They have no limits; names and tenants are env-1, env-2, ... in their order. Raises KeysError.
    """
    keys = []
    for number, item in enumerate((item for item in map(str.strip, text.split(",")) if item), start=1):
        if item.startswith(HASHED):
            sha256 = item.removeprefix(HASHED).lower()
            if not _SHA256.fullmatch(sha256):
                raise KeysError(f"{source}: key {number} must have 64 hexadecimal digits behind {HASHED}")
        else:
            if not item.isascii() or not item.isprintable() or " " in item:
                raise KeysError(f"{source}: key {number} must be printable ASCII without white space")
            sha256 = sha256_of(item)
        keys.append(Key(f"env-{number}", sha256, f"env-{number}"))
    check_distinct(keys, source)
    return tuple(keys)


def check_distinct(keys: Sequence[Key], source: str) -> None:
    """Raises KeysError where two entries have the same name or are the same key."""
    for what, values in (("name", [key.name for key in keys]), ("sha256", [key.sha256 for key in keys])):
        first: dict[str, int] = {}
        for number, value in enumerate(values, start=1):
            if value in first:
                raise KeysError(f"{source}: entries {first[value]} and {number} have the same {what}")
            first[value] = number


def _explain(error: ValidationError) -> str:
    """What is wrong, by place alone: an unknown field's name, too, may be a key that stands in the wrong column."""
    first: Any = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"]:
        return "must be a list of entries with name and sha256"
    number, *fields = first["loc"]
    place = ".".join(map(str, fields))
    match first["type"]:
        case "extra_forbidden":
            known = _Limits.model_fields if len(fields) > 1 else _Entry.model_fields
            return f"entry {number + 1} has an unknown field: must be one of {', '.join(known)}"
        case "missing":
            return f"entry {number + 1}: {place} is missing"
        case "model_type":
            return f"entry {number + 1}: {place or 'it'} must be fields and values"
        case "string_pattern_mismatch":
            right = "must be 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first"
        case "value_error":
            right = str(first["ctx"]["error"])
        case _:
            right = re.sub(r"^\w+ should", "must", first["msg"])
    return f"entry {number + 1}: {place} {right}"
