"""Composites: a whole graph recorded as one node.

A `Template` is a graph over numbered placeholders.  The node `call(inputs…, template)` stands for
it on those inputs, and `result(call, part)` for its output number `part`.  Whoever builds the same
subgraph again and again (an optimiser's update, the gradients of a step) records a call and its
results instead of hundreds of nodes.  They are expanded before anything is compiled, so no later
stage knows them.  Templates are interned: equal ones are one object, whatever lines they come from.
The lines of the nodes inside belong to the call (`Lines`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import (
    IRError,
    Location,
    Node,
    Shape,
    build,
    node,
    rebuild,
    topological,
)

Signature = tuple[tuple[DType, Shape], ...]


FIRST_PLACEHOLDER = 1 << 40
"""Placeholders are `input` nodes with numbers of their own, so that no node inside a template is
one of a program.
"""


def placeholder(number: int, dtype: DType, shape: Shape) -> Node:
    """Input number `number` of a template."""
    return node("input", index=FIRST_PLACEHOLDER + number, dtype=dtype, shape=shape)


class Lines(tuple):  # type: ignore[type-arg]
    """The location of a call that also knows the lines inside.

    inside: the location of each node of the template, in topological order.
    """

    inside: tuple[Location, ...]


class Template:
    """A graph to be applied.  Make it with `template(...)`.

    outputs: its results, over placeholders.  inputs: dtype and shape of each of those.
    """

    __slots__ = ("__weakref__", "inputs", "name", "outputs")

    def __init__(self, name: str, outputs: tuple[Node, ...], inputs: Signature) -> None:
        self.name = name
        self.outputs = outputs
        self.inputs = inputs

    def __repr__(self) -> str:
        return self.name


_templates: WeakValueDictionary[Any, Template] = WeakValueDictionary()


def template(name: str, outputs: Sequence[Node], inputs: Signature) -> Template:
    """The one template of that graph."""
    key = (name, tuple(outputs), inputs)
    found = _templates.get(key)
    if found is None:
        found = _templates.setdefault(key, Template(name, key[1], inputs))
    return found


def infer_call(definition: Any, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    """Checks the inputs.  A call has no value: its dtype and shape mean nothing."""
    applied = attrs[0]
    for value, (dtype, shape) in zip(inputs, applied.inputs, strict=True):
        if value.dtype is not dtype or value.shape != shape:
            raise IRError(
                f"[call] {applied.name} takes {dtype.name}{list(shape)}, "
                f"not {value.dtype.name}{list(value.shape)}"
            )
    return applied.outputs[0].dtype, ()


def infer_result(definition: Any, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    output = inputs[0].attrs[0].outputs[attrs[0]]
    return output.dtype, output.shape


def expand(call: Node, inputs: Sequence[Node]) -> list[Node]:
    """What a call's results are on the inputs, as plain nodes; those without a line get its own."""
    from lazygrad_compiler.ir.ops import OPS

    applied: Template = call.attrs[0]
    order = topological(applied.outputs)
    inside = call.location.inside if isinstance(call.location, Lines) else ((),) * len(order)
    result: dict[Node, Node] = {}
    for current, location in zip(order, inside, strict=True):
        if current.op == "input":
            result[current] = inputs[current.attrs[0] - FIRST_PLACEHOLDER]
        else:
            result[current] = build(
                OPS[current.op],
                tuple([result[value] for value in current.inputs]),
                current.attrs,
                location or current.location or tuple(call.location),
            )
    return [result[output] for output in applied.outputs]


def expand_all(outputs: Sequence[Node]) -> tuple[Node, ...]:
    """The outputs with every call below them expanded."""
    order = topological(outputs)
    if all(current.op != "call" for current in order):
        return tuple(outputs)
    expanded: dict[Node, list[Node]] = {}
    result: dict[Node, Node] = {}
    for current in order:
        if current.op == "result":
            result[current] = expanded[current.inputs[0]][current.attrs[0]]
            continue
        inputs = [result[value] for value in current.inputs]
        if current.op == "call":
            expanded[current] = expand(current, inputs)
            result[current] = current
        else:
            result[current] = rebuild(current, inputs)
    return tuple(result[output] for output in outputs)
