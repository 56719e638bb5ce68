"""A live view of one generation in the terminal: the branches of the running block side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

_PANEL_LINES = 12
_LEAST_WIDTH = 24


@dataclass(slots=True)
class _Branch:
    outline: str
    replica: str = ""
    text: str = ""
    finish: str | None = None


@dataclass(slots=True)
class _Part:
    """A stretch of main text, and the block that follows it."""

    main: str = ""
    branches: list[_Branch] = field(default_factory=list)


class LiveBlocks:
    """Use as a context manager, and tell it what happens, from events or from a stream's chunks.

    Blocks are known by their number. Text of blocks inside a branch is shown in a block of its own.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._parts = [_Part()]
        self._blocks: dict[int, _Part] = {}
        self._live = Live(self, console=self._console, refresh_per_second=12, vertical_overflow="crop")

    def __enter__(self) -> "LiveBlocks":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.vertical_overflow = "visible"
        self._live.stop()

    def main(self, delta: str) -> None:
        """Text outside all blocks."""
        self._parts[-1].main += delta

    def outlines(self, block: int, outlines: list[str], replicas: Sequence[str] = ()) -> None:
        """A block began, with one branch per outline; replicas: where each runs, if there are several."""
        part = self._parts[-1]
        where = replicas or ("",) * len(outlines)
        part.branches = [_Branch(outline, replica) for outline, replica in zip(outlines, where, strict=True)]
        self._blocks[block] = part
        self._parts.append(_Part())

    def text(self, block: int, branch: int, delta: str) -> None:
        """More of a branch (both numbers from 1)."""
        self._blocks[block].branches[branch - 1].text += delta

    def branch_done(self, block: int, branch: int, finish: str = "stop") -> None:
        """A branch ended; ``finish`` other than "stop" is shown."""
        self._blocks[block].branches[branch - 1].finish = finish

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """While it runs, the last lines that fit the screen; at the end all of them."""
        running = self._live.is_started and self._live.vertical_overflow == "crop"
        group = Group(*(piece for part in self._parts for piece in _rendered(part, console.width)))
        lines = console.render_lines(group, options.update(height=None), pad=False)
        if running:
            lines = lines[-max(1, console.height - 1) :]
        for line in lines:
            yield from line
            yield Text("\n", end="")


def _rendered(part: _Part, width: int) -> list[RenderableType]:
    pieces: list[RenderableType] = []
    if part.main.strip():
        pieces.append(Text(part.main.strip("\n")))
    if part.branches:
        per_row = max(1, min(len(part.branches), width // _LEAST_WIDTH))
        panels = [_panel(number, branch, width // per_row - 1) for number, branch in enumerate(part.branches, start=1)]
        pieces.append(Columns(panels, padding=(0, 1, 0, 0)))
    return pieces


def _panel(number: int, branch: _Branch, width: int) -> Panel:
    done = branch.finish is not None
    lines = Text(branch.text).wrap(Console(width=width, height=25, file=None), max(1, width - 4))
    shown = Text("\n").join(lines[-_PANEL_LINES:])
    mark = {None: "…", "stop": "✓"}.get(branch.finish, str(branch.finish))
    return Panel(
        shown,
        title=Text(f"{number}: {branch.outline}", no_wrap=True, overflow="ellipsis"),
        title_align="left",
        subtitle=f"{branch.replica} {mark}".strip(),
        subtitle_align="right",
        width=width,
        border_style="green" if done else "yellow",
    )
