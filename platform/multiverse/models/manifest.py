"""``multiverse.json``: what a prepared checkpoint says about itself, beside the base's config.json."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiverse.structure.tags import LAYOUT_VERSION, TAGS, Vocabulary

FILE_NAME = "multiverse.json"


class ManifestError(ValueError):
    """The directory is not a prepared checkpoint, or was prepared for another layout."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the engine, training and evaluation need to know about a prepared checkpoint.

    source: what was given to ``multiverse prepare``. tag_ids: each tag's token id. space_ids: ids of the tokens whose
    text is white space only. tokens: size of the real vocabulary, tags included; ids from there on are padding and must
    never be sampled. vocab_size: rows of the embedding, a multiple of 64. trained: whether the model writes blocks by
    itself. fingerprint: changes whenever preparing again would give other files.
    """

    source: str
    tag_ids: dict[str, int]
    space_ids: tuple[int, ...]
    tokens: int
    vocab_size: int
    layout_version: int
    trained: bool
    fingerprint: str

    @classmethod
    def load(cls, directory: str | Path) -> "Manifest":
        """Read ``directory/multiverse.json``. Raises ManifestError if it is missing, damaged, or of another layout."""
        path = Path(directory) / FILE_NAME
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ManifestError(
                f"{directory} is not a prepared checkpoint (it has no {FILE_NAME}); run: multiverse prepare {directory}"
            ) from None
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path} is damaged: {error}") from error
        version = fields.get("layout_version")
        if version != LAYOUT_VERSION:
            raise ManifestError(
                f"{directory} was prepared for layout version {version}, this is layout version {LAYOUT_VERSION}; "
                f"prepare it again from {fields.get('source')}"
            )
        try:
            manifest = cls(**{**fields, "space_ids": tuple(fields["space_ids"])})
        except (KeyError, TypeError) as error:
            raise ManifestError(f"{path} is damaged: {error}") from error
        if manifest.tag_ids.keys() != TAGS.keys():
            raise ManifestError(f"{path} is damaged: its tags are {sorted(manifest.tag_ids)}, not {sorted(TAGS)}")
        return manifest

    def save(self, directory: str | Path) -> None:
        """Write ``directory/multiverse.json``."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        (Path(directory) / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    def vocabulary(self) -> Vocabulary:
        """The token ids as the layout, the tracker and the grammar see them."""
        return Vocabulary(tag_ids=self.tag_ids, space_ids=frozenset(self.space_ids), size=self.tokens)
