"""What a router has running on which replica."""

from collections import Counter, defaultdict
from dataclasses import dataclass


@dataclass(slots=True)
class Load:
    """Of one replica; see `ReplicaView`."""

    rows: int = 0
    context: int = 0
    prefill: int = 0
    requests: float = 0.0


class Loads:
    """A request is known by its arrival number, `Segment.priority`."""

    def __init__(self) -> None:
        self._loads: defaultdict[str, Load] = defaultdict(Load)
        self._rows: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def of(self, replica: str) -> Load:
        return self._loads[replica]

    def begin(self, replica: str, request: int, context: int, prefill: int) -> None:
        """A segment behind ``context`` tokens, ``prefill`` of which have to be computed first."""
        load = self._loads[replica]
        load.rows, load.context, load.prefill = load.rows + 1, load.context + context, load.prefill + prefill
        self._share(request, replica, 1)

    def computed(self, replica: str, prefill: int) -> None:
        self._loads[replica].prefill -= prefill

    def end(self, replica: str, request: int, context: int) -> None:
        load = self._loads[replica]
        load.rows, load.context = load.rows - 1, load.context - context
        self._share(request, replica, -1)

    def drop(self, replica: str) -> None:
        """It is gone; its segments end all the same."""

    def _share(self, request: int, replica: str, more: int) -> None:
        rows = self._rows[request]
        for sign in (-1, 1):
            total = rows.total()
            for id, count in rows.items():
                self._loads[id].requests += sign * count / total
            if sign < 0:
                rows[replica] += more
                rows += Counter()
        if not rows:
            del self._rows[request]
