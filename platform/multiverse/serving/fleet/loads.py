"""What a router has running on which replica."""

from collections import Counter
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
        self._loads: dict[str, Load] = {}
        self._rows: dict[int, Counter[str]] = {}
        """By request, its rows on each replica."""

    def of(self, replica: str) -> Load:
        return self._loads.get(replica) or Load()

    def begin(self, replica: str, request: int, context: int, prefill: int) -> None:
        """A segment behind ``context`` tokens, of which ``prefill`` have to be computed."""
        load = self._loads.setdefault(replica, Load())
        load.rows, load.context, load.prefill = load.rows + 1, load.context + context, load.prefill + prefill
        self._share(request, replica, 1)

    def computed(self, replica: str, prefill: int) -> None:
        self._loads[replica].prefill -= prefill

    def end(self, replica: str, request: int, context: int) -> None:
        load = self._loads[replica]
        load.rows, load.context = load.rows - 1, load.context - context
        self._share(request, replica, -1)
        if not load.rows:
            del self._loads[replica]

    def _share(self, request: int, replica: str, more: int) -> None:
        """Share the request out over its replicas anew, with ``more`` rows on one of them."""
        before = self._rows.pop(request, Counter())
        after = Counter(before)
        after[replica] += more
        after = +after
        for sign, rows in ((-1, before), (1, after)):
            for id, count in rows.items():
                self._loads[id].requests += sign * count / rows.total()
        if after:
            self._rows[request] = after
