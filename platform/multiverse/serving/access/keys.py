"""API keys. What a key is made of is random, so its plain SHA-256 tells nothing about it, and only that is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from multiverse.serving.access.shares import share

KEY_PREFIX = "mv-"
"""What keys made here begin with, so that scanners of logs and repositories know one when they see it."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use. None: no limit.

    concurrency: requests at once, waiting ones included.
    tokens_per_minute: prompt tokens and tokens after the prompt, of all branches.
    max_width: the largest ``parallel.width`` and ``parallel.max_width``.
    """

    concurrency: int | None = None
    tokens_per_minute: int | None = None
    max_width: int | None = None

    def share(self, routers: int) -> "KeyLimits":
        """What each of several routers may allow, rounded up, so that none of them allows nothing."""
        return replace(
            self,
            concurrency=None if self.concurrency is None else share(self.concurrency, routers),
            tokens_per_minute=None if self.tokens_per_minute is None else share(self.tokens_per_minute, routers),
        )


@dataclass(frozen=True, slots=True)
class Key:
    """``name`` stands in metrics and messages. Keys of one ``tenant`` share a prefix cache and a place in the queue."""

    name: str
    sha256: str = field(repr=False)
    tenant: str
    limits: KeyLimits = KeyLimits()


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def sha256_of(key: str) -> str:
    """The hexadecimal SHA-256 of a key as it is written in files and environments."""
    return hashlib.sha256(key.encode()).hexdigest()


def find(keys: Sequence[Key], sha256: str) -> Key | None:
    """The key with this hash. Every key is compared in full: the time taken does not tell how close a guess is."""
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, sha256):
            found = key
    return found
