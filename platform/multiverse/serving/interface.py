"""What the HTTP surface needs from an engine, so that it can be tested without one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from multiverse.serving.events import Event
from multiverse.serving.request import GenerationRequest, Reduce


class TextStream(Protocol):
    """Token ids in, text out in whole characters."""

    def push(self, ids: Sequence[int]) -> str: ...

    def finish(self) -> str: ...


class Codec(Protocol):
    """Text to token ids and back (`multiverse.models.tokens.Tokens`)."""

    def encode_plain(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def stream(self) -> TextStream: ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...

    def continued(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt that ends with the last message's content, to be gone on with."""
        ...


class Limits(Protocol):
    @property
    def max_model_len(self) -> int: ...

    @property
    def trained(self) -> bool: ...

    @property
    def reduce(self) -> Reduce:
        """How branches are merged unless a request says otherwise."""
        ...


class Checkpoint(Protocol):
    """The part of `multiverse.models.manifest.Manifest` that is needed here."""

    @property
    def tag_ids(self) -> Mapping[str, int]: ...

    @property
    def tokens(self) -> int: ...


class GenerationEngine(Protocol):
    """An engine that runs whole requests. Closing the iterator of ``generate`` before its end aborts the request."""

    @property
    def tokens(self) -> Codec: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def manifest(self) -> Checkpoint: ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]: ...

    async def stats(self) -> Mapping[str, Any]:
        """The engine's figures (leases, leased_blocks, rebuilds, ...). Raises if the engine is dead.

        Admission goes by three, where they are there: ``kv_usage``, the share of the KV cache in use, ``waiting``, the
        segments in the engine's queue, and ``replicas``, where these are totals of several.
        """
        ...
