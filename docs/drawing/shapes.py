"""Boxes, arrows and text as SVG. Lengths are in pixels, from the top left corner."""

from collections.abc import Sequence
from html import escape

INK, PAPER, GREY = "#1b1f24", "#ffffff", "#6a737d"
BLUE, GREEN, ORANGE, VIOLET, SAND = "#dbeafe", "#dcfce7", "#ffedd5", "#ede9fe", "#f4f1ea"
LINE = 17
"""From one line of text to the next."""

_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" role="img" aria-label="{label}">
<title>{label}</title>
<defs>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
<path d="M0 0L10 5L0 10z" fill="{ink}"/></marker></defs>
<rect width="{width}" height="{height}" fill="{paper}"/>
"""


class Picture:
    """One picture. label: what it shows, for those who cannot see it."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self._parts = [
            _HEAD.format(width=width, height=height, label=escape(label), ink=INK, paper=PAPER).replace("\n ", " ")
        ]

    def box(
        self, x: float, y: float, width: float, height: float, lines: Sequence[str] = (), fill: str = SAND
    ) -> "Picture":
        """lines: centred in it, the first one bold."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="{INK}"/>\n'
        )
        top = y + height / 2 - LINE * (len(lines) - 1) / 2 + 4
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + LINE * number, line, anchor="middle", bold=number == 0 and len(lines) > 1)
        return self

    def text(
        self, x: float, y: float, line: str, anchor: str = "start", bold: bool = False, colour: str = INK
    ) -> "Picture":
        """anchor: start, middle or end; y: of the text's base line."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(line)}</text>\n'
        )
        return self

    def arrow(self, *points: tuple[float, float], both: bool = False, dashed: bool = False) -> "Picture":
        """A line through ``points``, with its head at the last one."""
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        start = ' marker-start="url(#head)"' if both else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{dash} marker-end="url(#head)"{start}/>\n'
        )
        return self

    def svg(self) -> str:
        return "".join(self._parts) + "</svg>\n"
