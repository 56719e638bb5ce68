"""Writes dashboards and alert rules: ``python -m dashboards [FOLDER] [--runbooks URL]``, by default into generated/."""

from pathlib import Path
from typing import Annotated

import typer

from dashboards.alerts import RUNBOOKS
from dashboards.files import files

GENERATED = Path(__file__).parent / "generated"


def main(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")] = GENERATED,
    runbooks: Annotated[str, typer.Option(help="The URL of their folder, which alerts link.")] = RUNBOOKS,
) -> None:
    """Write dashboards and alert rules."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(runbooks).items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
