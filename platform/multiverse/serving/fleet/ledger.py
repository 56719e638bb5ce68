"""Where the leases of a router's requests are."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from multiverse.engine.references import KVReference


def export_of(lease: str) -> str:
    """The name under which a branch's own KV is exported along with its lease."""
    return f"{lease}/out"


@dataclass(slots=True)
class Held:
    """A lease, perhaps still to be made. replica: where. exported: as `export_of` says, from token ``start`` on.

    more: further exports of it, made when somebody needed them, by the token they start at.
    """

    replica: str
    exported: bool = False
    start: int = 0
    more: dict[int, "asyncio.Future[KVReference | None]"] = field(default_factory=dict)


class Ledger:
    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def hold(self, lease: str, held: Held) -> None:
        self._held[lease] = held

    def get(self, lease: str) -> Held | None:
        return self._held.get(lease)

    def release(self, leases: Iterable[str]) -> dict[str, Held]:
        """Forget leases; gives those that were there."""
        found = {lease: self._held.pop(lease, None) for lease in leases}
        return {lease: held for lease, held in found.items() if held is not None}

    def drop(self, replica: str) -> None:
        """A replica is gone, and all that it held."""
        self._held = {lease: held for lease, held in self._held.items() if held.replica != replica}

    def __len__(self) -> int:
        return len(self._held)
