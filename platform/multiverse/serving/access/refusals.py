"""Why a request is turned away before it is generated."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal["unauthorized", "not_local", "width", "concurrency", "tokens_per_minute", "queue_full", "kv"]


@dataclass(eq=False)  # not frozen: raising an exception sets its traceback
class Refused(Exception):
    """``retry_after``: seconds after which it may go better; None: never. ``param``: the field it is about."""

    reason: Reason
    message: str
    retry_after: float | None = None
    param: str | None = None

    def __str__(self) -> str:
        return self.message


class Overloaded(Refused):
    """The server as a whole has no room; it is not the caller's doing."""
