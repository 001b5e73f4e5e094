"""A small writer of SVG pictures: rectangles, lines and text, escaped, in one string."""

from __future__ import annotations

from html import escape

PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Seven colours that colour-blind people can tell apart (Paul Tol's scheme "bright")."""


class Picture:
    """A picture of so many points in width and height, drawn from the top left."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, fill: str,
                  title: str = "") -> None:
        """title: shown where the pointer rests."""
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.5):.2f}" '
                          f'height="{max(height, 0.5):.2f}" fill="{fill}" stroke="#ffffff" '
                          f'stroke-width="0.5">{tip}</rect>')

    def circle(self, x: float, y: float, radius: float, fill: str, title: str = "") -> None:
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="{fill}">'
                          f"{tip}</circle>")

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str = "#333333",
             dashed: bool = False) -> None:
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(f'<line x1="{x:.2f}" y1="{y:.2f}" x2="{to_x:.2f}" y2="{to_y:.2f}" '
                          f'stroke="{colour}"{dashes}/>')

    def text(self, x: float, y: float, words: str, size: float = 11, anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" '
                          f'text-anchor="{anchor}">{escape(words)}</text>')

    def __str__(self) -> str:
        inside = "\n".join(self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" '
                f'height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}" '
                f'font-family="sans-serif">\n'
                f'<rect width="100%" height="100%" fill="#ffffff"/>\n{inside}\n</svg>\n')
