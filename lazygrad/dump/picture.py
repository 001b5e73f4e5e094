"""A program as a picture, before it is drawn: items, boxes around them, and edges.

An item is an operation, a box a kernel.  A value that several kernels compute for themselves rather
than read from memory is an item in each of them, as it is in truth.  A constant is no item: it
stands in the operation that reads it, as in `mul(·, 0.5)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lazygrad.dump.select import members
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import (
    PATH_STYLES,
    TYPE_ATTRIBUTES,
    format_location,
    format_shape,
    format_value,
)
from lazygrad_compiler.pipeline import Stages, rounds


@dataclass(frozen=True, slots=True)
class Item:
    """lines: what it says.  kind: of the op, for its colour.  title: said when pointed at.  box:
    number of the box it is in, -1 for none.  link: the kernel that it stands for, if it does.
    folded: how many boxes it stands for.
    """

    key: str
    lines: tuple[str, ...]
    kind: str
    title: str
    box: int = -1
    link: str = ""
    folded: int = 1


@dataclass(frozen=True, slots=True)
class Box:
    """title: above it.  note: said when pointed at.  link: the kernel's name, "" for a
    library's.  kind, about: of the kernel.  numbers: its calls.
    """

    title: str
    note: str
    link: str
    kind: str
    about: str
    numbers: tuple[int, ...]


@dataclass(slots=True)
class Picture:
    items: list[Item] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)


def picture_of(stages: Stages, stage: str, kernels: tuple[int, ...] = ()) -> Picture:
    """The picture of stage graph, opt or fused.  kernels: the launches that are drawn."""
    if stage == "fused":
        return kernel_picture(stages, kernels)
    return graph_picture(stages.graph if stage == "graph" else stages.opt)


def graph_picture(graph: Graph) -> Picture:
    """The operations of a graph, without boxes."""
    picture = Picture()
    keys: dict[Node, str] = {}
    for number, node in enumerate(graph.nodes()):
        if _written_inside(node) and node not in graph.outputs:
            continue
        keys[node] = f"n{number}"
        picture.items.append(_item(keys[node], node))
        picture.edges += [(keys[value], keys[node]) for value in dict.fromkeys(node.inputs)
                          if value in keys]
    _add_results(picture, [(output, keys[output]) for output in graph.outputs])
    return picture


def kernel_picture(stages: Stages, kernels: tuple[int, ...]) -> Picture:
    """The kernels of a program as boxes."""
    picture = Picture()
    made: dict[Node, str] = {}  # stored values: the item that they come from
    groups: dict[int, list[int]] = {}
    for number, launch in enumerate(stages.launches):
        groups.setdefault(id(launch.group), []).append(number)

    def source(value: Node) -> str:
        if value not in made:  # an input, or what a kernel that is not drawn has stored
            made[value] = f"v{len(made)}"
            picture.items.append(_item(made[value], value))
        return made[value]

    for numbers in groups.values():
        if not set(numbers) & set(kernels):
            continue
        launch = stages.launches[numbers[0]]
        box = len(picture.boxes)
        called = ("kernel " if len(numbers) == 1 else "kernels ") + ", ".join(map(str, numbers))
        about = "+".join(dict.fromkeys(stages.launches[number].about for number in numbers))
        picture.boxes.append(Box(
            f"{called}: {about if len(about) <= 40 else about[:39] + '…'}",
            f"{launch.kernel.kind} {about}{rounds(launch)}\n{_where(launch.location, '')}",
            "" if launch.kernel.kind == "library" else stages.names[numbers[-1]],
            launch.kernel.kind, about + rounds(launch), (*numbers,)))
        inside = members(stages, launch.group)
        keys = {node: f"k{box}n{place}" for place, node in enumerate(inside)}
        for node in inside:
            if _written_inside(node) and node not in launch.group.roots:
                continue
            for value in dict.fromkeys(node.inputs):
                if _written_inside(value) and value not in made:
                    continue
                picture.edges.append((keys[value] if value in keys else source(value), keys[node]))
            picture.items.append(_item(keys[node], node, box))
        made.update((node, keys[node]) for node in launch.group.roots)
    _add_results(picture, [(output, made[output]) for output in stages.opt.outputs
                           if output in made and made[output].startswith("k")])
    return picture


def overview(picture: Picture) -> Picture:
    """A picture of kernels with each box as one item, its operations, inputs and results left out.

    Boxes with the same code that are equally far from the beginning (the updates of all weights of
    a shape) are one item: folding across distances would close circles.
    """
    home = {item.key: item.box for item in picture.items}
    between = sorted({(home[start], home[end]) for start, end in picture.edges
                      if 0 <= home[start] < home[end]})
    before: dict[int, list[int]] = {}
    for start, end in between:
        before.setdefault(end, []).append(start)
    depth: list[int] = []
    alike: dict[tuple, list[int]] = {}
    for number, box in enumerate(picture.boxes):
        depth.append(1 + max((depth[start] for start in before.get(number, ())), default=-1))
        alike.setdefault((depth[-1], box.link or number, box.about), []).append(number)
    found = Picture()
    keys: dict[int, str] = {}
    for numbers in alike.values():
        first = picture.boxes[numbers[0]]
        key = f"b{numbers[0]}"
        keys.update((number, key) for number in numbers)
        calls = [call for number in numbers for call in picture.boxes[number].numbers]
        times = f" ×{len(numbers)}" if len(numbers) > 1 else ""
        note = "\n".join(dict.fromkeys(picture.boxes[number].note for number in numbers))
        found.items.append(Item(
            key, (_clipped(first.about, 30) + times, _clipped(_ranges(calls), 30)), first.kind,
            f"kernel {_ranges(calls)}\n{note}", link=first.link, folded=len(numbers)))
    found.edges = list(dict.fromkeys((keys[start], keys[end]) for start, end in between))
    return found


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most - 1] + "…"


def _ranges(numbers: list[int]) -> str:
    """[3, 4, 5, 9] -> 3–5, 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _add_results(picture: Picture, outputs: list[tuple[Node, str]]) -> None:
    for number, (node, key) in enumerate(outputs):
        picture.items.append(Item(f"r{number}", (f"result {number}",), "result", _typed(node)))
        picture.edges.append((key, f"r{number}"))


def _typed(node: Node) -> str:
    return f"{node.dtype.name}[{format_shape(node.shape, {})}]"


def _where(location: tuple, otherwise: str) -> str:
    return format_location(location, PATH_STYLES["name"]) if location else otherwise


def _written_inside(node: Node) -> bool:
    """Whether a value is written into its readers instead of being drawn."""
    return node.op == "const"


def _with_constants(node: Node) -> str:
    """`mul(·, 0.5)`, or the bare name where no input is a constant."""
    if not any(_written_inside(value) for value in node.inputs):
        return node.op
    words = [_short(value) if _written_inside(value) else "·" for value in node.inputs]
    return f"{node.op}({', '.join(words)})"


def _short(constant: Node) -> str:
    value = dict(zip(OPS["const"].attributes, constant.attrs, strict=True))["value"]
    if isinstance(value, float):
        return f"{value:.4g}"
    return format_value(value, {})


def _item(key: str, node: Node, box: int = -1) -> Item:
    named = dict(zip(OPS[node.op].attributes, node.attrs, strict=True))
    told = ", ".join(f"{name}={format_value(value, {})}" for name, value in named.items()
                     if name not in TYPE_ATTRIBUTES)
    word = _with_constants(node)
    if node.op == "const":
        word = f"const {format_value(named['value'], {})}"
    elif node.op == "input":
        word = f"input {node.attrs[0]}"
    lines = [word if len(word) <= 26 else word[:25] + "…", _typed(node)]
    if node.location:
        lines.append(_where(node.location[:1], ""))
    kind = node.op if node.op in ("input", "const") else OPS[node.op].kind
    title = f"{node.op}({told}) : {_typed(node)}\n{_where(node.location, 'no line')}"
    return Item(key, tuple(lines), kind, title, box)
