"""How open structure is brought to its end by written tokens, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.sequencing.pieces import Codec, Outline, encode, read_outlines
from multiverse.structure.tracker import Event, Malformed, OutlinesKnown, Tracker


@dataclass(frozen=True, slots=True)
class Ending:
    """Tokens that close what is open. ``positions``: how far they lead along the critical path.
    ``unclosed``: they end a goal or an opener that the model left open, so they mend malformed structure."""

    ids: tuple[int, ...]
    positions: int
    unclosed: bool


def ending(
    codec: Codec,
    tracker: Tracker,
    tokens: Sequence[int],
    down_to: int,
    due: Sequence[Outline] = (),
    branch: bool = False,
) -> Ending:
    """The tokens behind ``tokens`` that close all but the first ``down_to`` tags that ``tracker`` has open.

    due: the outlines of a block whose branches are due: each gets an empty path, as has each outline of an open goal,
        because a block in the layout must have as many paths as outlines.
    branch: the tokens end with the ``</Path>`` of the branch this is.
    """
    trial = tracker.copy()
    ids: list[int] = []
    unclosed = False

    def write(*pieces: str) -> list[Event]:
        nonlocal unclosed
        written = encode(codec, pieces)
        ids.extend(written)
        events = [event for id in written for event in trial.push(id)]
        unclosed |= any(isinstance(event, Malformed) for event in events)
        return events

    def leave_empty(outlines: Sequence[Outline]) -> None:
        for outline in outlines:
            write(*outline.head, "</Path>")
        write("\n", "<Conclusion>", "\n", "</Conclusion>")

    if due:
        leave_empty(due)
    for tag in reversed(tracker.open_tags[down_to:]):
        events = write("\n", f"</{tag[1:]}")
        if tag == "<Goal>":
            unclosed = True
            for event in events:
                if isinstance(event, OutlinesKnown):
                    leave_empty(read_outlines(codec, [*tokens, *ids], event.outlines))
    reached = trial.next_position
    if branch:
        # Counted here: behind a closed branch the tracker stands at the fork again, where the sibling begins.
        before = len(ids)
        write(*(("\n", "</Path>") if ids else ("</Path>",)))
        reached += len(ids) - before
    return Ending(tuple(ids), reached - tracker.next_position, unclosed)
