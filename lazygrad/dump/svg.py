"""Pictures as SVG, written here: no program and no library draws them.

The inside of each box is laid out first, then the boxes and the items outside of boxes; an edge
leaves its item at the bottom, follows the stops that the outer layout gave it, and enters at the
top.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence

from lazygrad.dump.layout import LAYER_GAP, Layout, Point, layered
from lazygrad.dump.picture import Item, Picture

CHARACTER, LINE, PADDING, TITLE = 6.7, 14.0, 7.0, 22.0
"""Pixels: of a letter across (11 px monospace), of a line down, around a text, of a box's title."""

TOP, BOTTOM = "top", "bottom"
"""Where the edges that enter and leave a box pass its border, in the layout of its inside."""

COLOURS = {
    "input": "#e8edf3", "const": "#f4f4f4", "result": "#d8ecd9", "elementwise": "#fff3d6",
    "movement": "#f1f1f1", "reduction": "#e2e4fb", "contraction": "#fbdcdc", "indexed": "#dcf3f1",
    "leaf": "#f6e1f5", "composite": "#fff3d6", "scan": "#e6f0d8", "sort": "#e6f0d8",
    "library": "#ead9c6", "attention": "#fbdcdc", "winograd": "#fbdcdc",
    "loop": "#fff3d6", "scatter": "#dcf3f1",
}

STYLE = """\
svg.picture text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#222}
svg.picture .small{fill:#666}
svg.picture .box{fill:#fbfcfe;stroke:#5b7aa5;stroke-width:1.4}
svg.picture .item{stroke:#8a8a8a;stroke-width:.8}
svg.picture .edge{fill:none;stroke:#777;stroke-width:1}
svg.picture .title{font-weight:bold;fill:#2d4f7c}"""


def svg_of(picture: Picture, link: str = "", standalone: bool = True, name: str = "tip") -> str:
    """The picture.  link: what the address of a kernel begins with, "#p0-" say; "" for no links.

    standalone: as a file of its own, with its own style.  name: of its arrow heads, which must not
    be that of another picture on the same page.
    """
    sizes = {item.key: _size(item) for item in picture.items}
    by_box: dict[int, list[Item]] = {}
    for item in picture.items:
        by_box.setdefault(item.box, []).append(item)
    box_of = {item.key: item.box for item in picture.items}
    unit_of = {key: f"box{box}" if box >= 0 else key for key, box in box_of.items()}
    inner: dict[int, Layout] = {}
    units = {item.key: sizes[item.key] for item in by_box.get(-1, [])}
    for number, box in enumerate(picture.boxes):
        inner[number] = _inside([item.key for item in by_box.get(number, [])], sizes, picture.edges)
        width = max(inner[number].width, len(box.title) * CHARACTER * 1.08) + 2 * PADDING
        units[f"box{number}"] = (width, inner[number].height + TITLE + 2 * PADDING)
    outer = layered(units, [(unit_of[a], unit_of[b]) for a, b in picture.edges
                            if unit_of[a] != unit_of[b]])
    corners = {number: _corner(outer.places[f"box{number}"], units[f"box{number}"], inner[number])
               for number in inner}

    def place(key: str) -> Point:
        if box_of[key] < 0:
            return outer.places[key]
        x, y = inner[box_of[key]].places[key]
        left, top = corners[box_of[key]]
        return left + x, top + y

    parts = []
    for number, box in enumerate(picture.boxes):
        drawn = _box(outer.places[f"box{number}"], units[f"box{number}"], box.title, box.note)
        if link and box.link:
            drawn = f'<a href="{html.escape(link + box.link)}">{drawn}</a>'
        parts.append(drawn)
    for start, end in dict.fromkeys(picture.edges):
        (x, y), (to_x, to_y) = place(start), place(end)
        if box_of[start] == box_of[end] >= 0:
            stops = _moved(inner[box_of[start]].stops[start, end], corners[box_of[start]])
        else:
            stops = [*outer.stops[unit_of[start], unit_of[end]]]
            if box_of[start] >= 0:
                stops = _moved(inner[box_of[start]].stops[start, BOTTOM],
                               corners[box_of[start]]) + stops
            if box_of[end] >= 0:
                stops += _moved(inner[box_of[end]].stops[TOP, end], corners[box_of[end]])
        begin, finish = (x, y + sizes[start][1] / 2), (to_x, to_y - sizes[end][1] / 2)
        parts.append(_edge([begin, *stops, finish], name))
    for item in picture.items:
        drawn = _item(item, place(item.key), sizes[item.key])
        if link and item.link:
            drawn = f'<a href="{html.escape(link + item.link)}">{drawn}</a>'
        parts.append(drawn)
    return _document(parts, outer.width, outer.height, standalone, name)


def _inside(keys: Sequence[str], sizes: Mapping[str, tuple[float, float]],
            edges: Sequence[tuple[str, str]]) -> Layout:
    """The layout of a box, with room for the edges that enter and leave between its items."""
    own = set(keys)
    within = [(a, b) for a, b in edges if a in own and b in own]
    leaving = [(a, BOTTOM) for a, b in edges if a in own and b not in own]
    entering = [(TOP, b) for a, b in edges if a not in own and b in own]
    read = {a for a, _ in within}
    ends = [(key, BOTTOM) for key in keys if key not in read]
    rooms = {TOP: (0.0, 0.0), **{key: sizes[key] for key in keys}, BOTTOM: (0.0, 0.0)}
    return layered(rooms, [*entering, *within, *leaving, *ends])


def _moved(points: Sequence[Point], corner: Point) -> list[Point]:
    return [(corner[0] + x, corner[1] + y) for x, y in points]


def stacked(pictures: Sequence[tuple[str, Picture]]) -> str:
    """Several pictures in one file, below each other, each under its name."""
    parts: list[str] = []
    top, width = 0.0, 0.0
    for number, (name, picture) in enumerate(pictures):
        drawn = svg_of(picture, standalone=False, name=f"tip{number}")
        across, down = (float(word) for word in drawn.split('viewBox="0 0 ', 1)[1]
                        .split('"', 1)[0].split())
        parts.append(f'<text class="title" x="8" y="{top + 16:g}">{html.escape(name)}</text>')
        parts.append(drawn.replace("<svg ", f'<svg y="{top + 22:g}" ', 1))
        top += down + 40
        width = max(width, across, len(name) * CHARACTER * 1.1 + 16)
    return _document(parts, width - 20, top - 20, True, "tip")


def _document(parts: Sequence[str], width: float, height: float, standalone: bool,
              name: str) -> str:
    width, height = round(width + 20, 1), round(height + 20, 1)
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    inside = "\n".join(parts)
    style = f"<style>{STYLE}</style>\n" if standalone else ""
    return (f'<svg class="picture"{space} width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}">\n{style}'
            f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#777"/></marker>'
            f'</defs>\n'
            f'<g transform="translate(10 10)">\n{inside}\n</g>\n</svg>')


def _size(item: Item) -> tuple[float, float]:
    longest = max(map(len, item.lines))
    return longest * CHARACTER + 2 * PADDING, len(item.lines) * LINE + PADDING


def _corner(middle: Point, size: tuple[float, float], inside: Layout) -> Point:
    """Where the inside of a box begins."""
    return middle[0] - inside.width / 2, middle[1] - size[1] / 2 + TITLE + PADDING


def _rectangle(middle: Point, size: tuple[float, float], css: str, more: str = "") -> str:
    return (f'<rect class="{css}" x="{middle[0] - size[0] / 2:.1f}" '
            f'y="{middle[1] - size[1] / 2:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" '
            f'rx="4"{more}/>')


def _box(middle: Point, size: tuple[float, float], title: str, note: str) -> str:
    left, top = middle[0] - size[0] / 2, middle[1] - size[1] / 2
    return (f"<g><title>{html.escape(note)}</title>{_rectangle(middle, size, 'box')}"
            f'<text class="title" x="{left + PADDING:.1f}" y="{top + 15:.1f}">'
            f"{html.escape(title)}</text></g>")


def _item(item: Item, middle: Point, size: tuple[float, float]) -> str:
    colour = COLOURS.get(item.kind, "#ffffff")
    top = middle[1] - size[1] / 2
    texts = "".join(
        f'<text{" class=" + chr(34) + "small" + chr(34) if number else ""} '
        f'x="{middle[0]:.1f}" y="{top + LINE * (number + 1) - 1:.1f}" text-anchor="middle">'
        f"{html.escape(line)}</text>" for number, line in enumerate(item.lines))
    return (f"<g><title>{html.escape(item.title)}</title>"
            + _rectangle(middle, size, "item", f' fill="{colour}"') + f"{texts}</g>")


def _edge(points: Sequence[Point], name: str) -> str:
    """A smooth line: between two points half of the way down each."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        bend = (to_y - y) / 2 if to_y > y else LAYER_GAP
        path.append(f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} "
                    f"{to_x:.1f} {to_y:.1f}")
    return f'<path class="edge" marker-end="url(#{name})" d="{"".join(path)}"/>'
