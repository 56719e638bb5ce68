"""Prompts: text files in a folder per version, with ``$name`` where code fills something in."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template


@dataclass(frozen=True)
class Prompts:
    """version: the folder's name. digest: SHA-256 of all files, by their names."""

    version: str
    digest: str
    templates: dict[str, Template]

    def fill(self, name: str, **values: str) -> str:
        """The prompt ``name`` (its file without ``.md``). Raises KeyError if a value is missing."""
        return self.templates[name].substitute(values).strip()


@cache
def load_prompts(version: str) -> Prompts:
    """The prompts of a version, for instance ``anchored-1``. Raises ValueError if there are none of that name."""
    folder = resources.files(__package__) / "prompts" / version
    files = [file for file in folder.iterdir() if file.name.endswith(".md")] if folder.is_dir() else []
    if not files:
        raise ValueError(f"there are no prompts {version!r}")
    texts = {file.name.removesuffix(".md"): file.read_text(encoding="utf-8") for file in files}
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()
    return Prompts(version, digest, {name: Template(text) for name, text in texts.items()})
