"""The keys that are valid now."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from multiverse.serving.access.key_file import KeysError, check_distinct, read_keys
from multiverse.serving.access.keys import Key, find

CHECK_SECONDS = 1.0

log = logging.getLogger(__name__)


class KeyStore:
    """The keys of a file, which is read again when it changes, and those of the environment, which are fixed."""

    def __init__(
        self, path: Path | None, fixed: Sequence[Key] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises KeysError for a file that cannot be used."""
        self._path = path
        self._fixed = tuple(fixed)
        self._clock = clock
        self._checked = clock()
        self._version = self._version_now()
        self._keys = self._read()

    def find(self, presented: bytes) -> Key | None:
        """The key that a client sent."""
        self._reload()
        return find(self._keys, hashlib.sha256(presented).hexdigest())

    def _reload(self) -> None:
        now = self._clock()
        if self._path is None or now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        version = self._version_now()
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._read()
        except KeysError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("%s was read again: %d keys", self._path, len(self._keys))

    def _version_now(self) -> tuple[int, ...] | None:
        """Also tells a file from another that was put in its place, as mounted secrets are, with an older time."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> tuple[Key, ...]:
        if self._path is None:
            return self._fixed
        keys = (*read_keys(self._path), *self._fixed)
        check_distinct(keys, f"{self._path} and the environment")
        return keys
