"""The live view, as it stands on the screen at the end."""

import io

from rich.console import Console

from multiverse.live import LiveBlocks


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_branches_stand_side_by_side_between_the_main_text() -> None:
    console = Console(file=io.StringIO(), width=60, height=30)
    with LiveBlocks(console) as view:
        view.main("Before.\n")
        view.outlines(1, ["add", "take"])
        view.text(1, 2, "second")
        view.text(1, 1, "first")
        view.branch_done(1, 1)
        view.branch_done(1, 2, "length")
        view.main("After.")
    lines = [line.rstrip() for line in shown(console).splitlines() if line.strip()]
    assert lines[0] == "Before."
    assert lines[1].startswith("╭─ 1: add ─") and "╭─ 2: take ─" in lines[1]
    assert lines[2].startswith("│ first ") and "│ second " in lines[2]
    assert "─ ✓ ─╯" in lines[3] and "─ length ─╯" in lines[3]
    assert lines[4:] == ["After."]


def test_text_is_shown_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=60, height=30)
    with LiveBlocks(console) as view:
        view.main("[red]a[/red]")
        view.outlines(1, ["[b]"])
        view.text(1, 1, "[/i]")
    assert "[red]a[/red]" in shown(console)
    assert "1: [b]" in shown(console)
    assert "[/i]" in shown(console)
