"""Writes the pictures: ``python -m docs.drawing``."""

from pathlib import Path

from docs.drawing.pictures import pictures

if __name__ == "__main__":
    for name, text in pictures().items():
        (Path(__file__).parents[1] / name).write_text(text, encoding="utf-8")
