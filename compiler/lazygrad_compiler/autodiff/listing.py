"""The stage `grad` as text: what autodiff added to a program.

In: the calls of autodiff, each with what was differentiated and the gradients that came out.  Out:
a listing of the nodes that a call added, in the manner of `ir/text.py`, with the values of the
forward pass that they read marked `forward`.  The canonical graph no longer tells gradients from
other nodes, so the calls are noted where they are made (`autodiff.backward.listeners`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Node, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import (
    PATH_STYLES,
    TYPE_ATTRIBUTES,
    format_location,
    format_shape,
    format_value,
)

NOTHING = "no backward pass was recorded for this program"


@dataclass(frozen=True, slots=True)
class Differentiated:
    """One call of autodiff: what was differentiated, and the gradients that came out."""

    outputs: tuple[Node, ...]
    gradients: tuple[Node, ...]


def gradient_text(calls: Sequence[Differentiated]) -> str:
    """The nodes that each call of autodiff added to what there was, as a listing."""
    return "\n\n".join(map(_listing, calls)) if calls else NOTHING


def _is_known(node: Node) -> bool:
    return node.payload is not None


def _listing(call: Differentiated) -> str:
    forward = set(topological(call.outputs, stop=_is_known))
    order = topological(call.gradients, stop=lambda n: n in forward or _is_known(n))
    numbers = {node: number for number, node in enumerate(order)}
    counts = f"{len(call.gradients)} gradients" if len(call.gradients) != 1 else "1 gradient"
    lines = [f"# {counts} of {', '.join(f'{o.op} {_typed(o)}' for o in call.outputs)}"]
    for node in order:
        line = f"%{numbers[node]} = "
        if node.op != "const" and (node in forward or _is_known(node)):
            line += f"forward {node.op} : {_typed(node)}"
        else:
            arguments = [f"%{numbers[value]}" for value in node.inputs]
            for name, value in zip(OPS[node.op].attributes, node.attrs, strict=True):
                if name not in TYPE_ATTRIBUTES:
                    text = format_value(value, {})
                    arguments.append(text if node.op == "const" else f"{name}={text}")
            line += f"{node.op}({', '.join(arguments)}) : {_typed(node)}"
        if node.location:
            line += "    # " + format_location(node.location, PATH_STYLES["name"])
        lines.append(line)
    lines.append("return " + ", ".join(f"%{numbers[gradient]}" for gradient in call.gradients))
    return "\n".join(lines)


def _typed(node: Node) -> str:
    return f"{node.dtype.name}[{format_shape(node.shape, {})}]"
