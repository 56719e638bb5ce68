"""Writes dashboards and alert rules: ``python -m dashboards [FOLDER]``, by default into generated/."""

import sys
from pathlib import Path

from dashboards.files import files

GENERATED = Path(__file__).parent / "generated"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else GENERATED
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
