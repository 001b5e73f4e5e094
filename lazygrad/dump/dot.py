"""Pictures in the language of Graphviz, for those who have it: kernels are clusters."""

from __future__ import annotations

from lazygrad.dump.picture import Item, Picture
from lazygrad.dump.svg import COLOURS


def dot_of(picture: Picture, name: str) -> str:
    """One digraph."""
    lines = [f"digraph {_quoted(name)} {{",
             '  node [shape=box, style="filled,rounded", fontname=monospace, fontsize=10];']
    for number, box in enumerate(picture.boxes):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(box.title)};",
                  f"    tooltip={_quoted(box.note)};"]
        lines += [f"    {_item(item)}" for item in picture.items if item.box == number]
        lines.append("  }")
    lines += [f"  {_item(item)}" for item in picture.items if item.box < 0]
    lines += [f"  {start} -> {end};" for start, end in dict.fromkeys(picture.edges)]
    return "\n".join([*lines, "}", ""])


def _item(item: Item) -> str:
    colour = COLOURS.get(item.kind, "#ffffff")
    label = _quoted("\n".join(item.lines))
    return f'{item.key} [label={label}, fillcolor="{colour}", tooltip={_quoted(item.title)}];'


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
