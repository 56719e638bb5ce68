"""Text to token ids and back, such that only text which may hold tags can ever become tag tokens."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from multiverse.models.chat import Rendered, render
from multiverse.models.manifest import Manifest
from multiverse.models.plain import plain_tokenizer
from multiverse.structure.grammar import is_document
from multiverse.structure.tags import TAGS

_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


class TextStream:
    """Token ids in, text out, in whole characters (``tokenizers`` DecodeStream)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)
        self._held: list[int] = []

    def push(self, ids: Sequence[int]) -> str:
        """The text that is complete with these ids; bytes of an unfinished character are held back."""
        text = ""
        for id in ids:
            self._held.append(id)
            step = self._stream.step(self._tokenizer, id)
            if step is not None:
                text += step
                self._held.clear()
        return text

    def finish(self) -> str:
        """What is still held back at the end, U+FFFD for bytes that are no character."""
        text: str = self._tokenizer.decode(self._held, skip_special_tokens=False)
        self._held.clear()
        return text


class Tokens:
    """The tokenizer of a prepared checkpoint. Make it with `load`.

    eos_ids: every id that ends a sequence, those of generation_config.json first.
    vocabulary: what each id is to the layout.
    """

    def __init__(self, hf_tokenizer: Any, manifest: Manifest, eos_ids: tuple[int, ...]) -> None:
        self._hf = hf_tokenizer
        self._tokenizer: Tokenizer = hf_tokenizer.backend_tokenizer
        self._plain = plain_tokenizer(self._tokenizer)
        self._tag_ids = manifest.tag_ids
        self.vocabulary = manifest.vocabulary()
        self.eos_ids = eos_ids

    @classmethod
    def load(cls, directory: str | Path) -> "Tokens":
        """Raises ManifestError for a directory that is not prepared, and ValueError where nothing ends a sequence."""
        from transformers import AutoTokenizer

        manifest = Manifest.load(directory)
        hf_tokenizer = AutoTokenizer.from_pretrained(directory)
        eos_ids = _eos_ids(Path(directory), hf_tokenizer.eos_token_id)
        if not eos_ids:
            raise ValueError(
                f"{directory}: neither generation_config.json nor tokenizer names an end-of-sequence token"
            )
        return cls(hf_tokenizer, manifest, eos_ids)

    def tag(self, name: str) -> int:
        """The id of a tag, ``"<Path>"`` for instance."""
        return self._tag_ids[name]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text tokens only: tags and other special tokens in ``text`` are spelled out."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_structured(self, text: str) -> list[int]:
        """Tags become their ids, the pieces between them are tokenized apart; other special tokens are spelled out."""
        ids: list[int] = []
        for piece in _TAG.split(text):
            ids.extend([self._tag_ids[piece]] if piece in self._tag_ids else self.encode_plain(piece))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, tags and special tokens shown."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def stream(self) -> TextStream:
        """A new stream for `decode` piece by piece."""
        return TextStream(self._tokenizer)

    def chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> list[int]:
        """The prompt for ``[{"role": ..., "content": ...}, ...]`` by the model's chat template.

        Special tokens come from the template only. Contents are spelled out, but for those of the assistant that pass
        the strict parser: their tags become tag tokens. Contents are tokenized apart from the template's text.
        Raises ValueError as `multiverse.models.chat.render` does.
        """
        return self._rendered(render(self._hf, messages, add_generation_prompt))

    def continued(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """As `chat`, up to the end of the last message's content: what comes next goes on with it."""
        parts = render(self._hf, messages, add_generation_prompt=False)
        last = max(place for place, part in enumerate(parts) if isinstance(part, Rendered))
        return self._rendered(parts[: last + 1])

    def _rendered(self, parts: Sequence[str | Rendered]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, Rendered):
                structured = part.role == "assistant" and is_document(part.text)
                ids.extend(self.encode_structured(part.text) if structured else self.encode_plain(part.text))
            else:
                ids.extend(self._tokenizer.encode(part, add_special_tokens=False).ids)
        return ids


def _eos_ids(directory: Path, of_tokenizer: int | None) -> tuple[int, ...]:
    path = directory / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
    ids = [*(named if isinstance(named, list) else [named]), of_tokenizer]
    return tuple(dict.fromkeys(id for id in ids if id is not None))
