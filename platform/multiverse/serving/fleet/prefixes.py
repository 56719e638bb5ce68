"""Which replica has probably which prefixes in its cache: what a router remembers of what it sent where."""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 128


class Prefixes:
    """By replica, hashes of the prefixes it has seen, block by block; the least recently used are forgotten first."""

    def __init__(self, blocks: int = 4096) -> None:
        self._blocks = blocks
        self._seen: dict[str, OrderedDict[int, None]] = {}

    def add(self, replica: str, tokens: Sequence[int], salt: str) -> None:
        seen = self._seen.setdefault(replica, OrderedDict())
        for key in _keys(tokens, salt):
            seen.pop(key, None)
            seen[key] = None
        while len(seen) > self._blocks:
            seen.popitem(last=False)

    def cached(self, tokens: Sequence[int], salt: str) -> dict[str, int]:
        """Tokens from the beginning on that each replica has; those that have none are left out."""
        keys = _keys(tokens, salt)
        found = {}
        for replica, seen in self._seen.items():
            count = 0
            while count < len(keys) and keys[count] in seen:
                count += 1
            if count:
                found[replica] = count * BLOCK
        return found

    def drop(self, replica: str) -> None:
        self._seen.pop(replica, None)


def _keys(tokens: Sequence[int], salt: str) -> list[int]:
    keys, key = [], hash(salt)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = hash((key, *tokens[start : start + BLOCK]))
        keys.append(key)
    return keys
