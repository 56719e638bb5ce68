"""A report as one HTML page that needs no other file."""

import base64
import html
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid #999;padding:.2rem .5rem}"
    "pre{overflow-x:auto;border:1px solid #999;padding:.5rem}img{max-width:100%}"
    ":root{color-scheme:light dark}"
)


def page(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """The page of a report. pictures: PNG files by the names that ``markdown`` has for them. HTML in it stays text."""
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))
    for name, content in pictures.items():
        data = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        body = body.replace(f'<img src="{html.escape(name)}"', f'<img src="{data}"')
    heading = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    title = html.escape(heading[1] if heading else "Report")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}</body></html>\n"
    )
