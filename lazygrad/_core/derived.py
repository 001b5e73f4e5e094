"""Gradients by template: autodiff is done once for each structure of a graph.

A training loop differentiates the same graph in every step.  `gradients` walks the differentiable
part of the graph for its structure: ops, attributes, wiring, the user's lines, which values are
known already.  Of a structure seen before, the gradients are a call of the template that the
autodiff pass left the first time.  With `create_graph`, where gradients are to be differentiated
again, and while somebody listens to the pass (a dump), it runs as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.composite import Places, placed, with_places
from lazygrad._core.context import now
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.composite import Template, apply, placeholder
from lazygrad_compiler.ir.node import Location, Node, device_of, rebuild, topological
from lazygrad_runtime.program import kept_with

MOST_TEMPLATES = 512

Derived = tuple[Template | None, Places, tuple[Location, ...]]
"""A template of gradients (None: there are none), the place of each among its results, and the
lines of its nodes.
"""

_templates: dict[tuple, Derived] = {}


def gradients(
    outputs: Sequence[Node], cotangents: Sequence[Node], wanted: Sequence[Node]
) -> list[Node | None]:
    """The gradient of each wanted node, as `autodiff.backward.backward` gives it."""
    from lazygrad_compiler.autodiff import backward

    if now.grad or backward.listeners or not wanted:
        return backward.backward(outputs, cotangents, wanted)
    key, leaves = _structure(outputs, cotangents, wanted)
    if not leaves or (nodes.placing and _on_several_devices(key, leaves)):
        return backward.backward(outputs, cotangents, wanted)
    found = _templates.get(key)
    if found is None:
        if len(_templates) >= MOST_TEMPLATES:
            _templates.clear()
        found = _templates[key] = _derive(outputs, cotangents, wanted, leaves)
    applied, places, inside = found
    if applied is None:
        return [None] * len(wanted)
    inputs = tuple([graph.stop_gradient(leaf) for leaf in leaves])
    return placed(apply(applied, inputs, now.location, inside), places)


def _on_several_devices(key: tuple, leaves: Sequence[Node]) -> bool:
    """Whether gradients cross from device to device: a template is of one device."""
    return len({device for leaf in leaves if (device := device_of(leaf)) is not None}) > 1 or any(
        part[0] == "transfer" for part in key)


def _derive(
    outputs: Sequence[Node],
    cotangents: Sequence[Node],
    wanted: Sequence[Node],
    leaves: Sequence[Node],
) -> Derived:
    """The gradients as functions of the leaves."""
    from lazygrad_compiler.autodiff.backward import backward

    found = backward(outputs, cotangents, wanted)
    nodes = [gradient for gradient in found if gradient is not None]
    if not nodes:
        return None, (), ()
    result = {leaf: placeholder(number, leaf.dtype, leaf.shape)
              for number, leaf in enumerate(leaves)}
    lines: dict[Node, Location] = {}
    for node in topological(nodes, stop=lambda node: node in result):
        if node in result:
            continue
        inputs = [result[value] for value in node.inputs]
        marker = node.op in ("variable", "stop_gradient")
        result[node] = made = inputs[0] if marker else rebuild(node, inputs)
        if not marker:
            lines.setdefault(made, node.location)
    results = [None if gradient is None else result[gradient] for gradient in found]
    applied, places = with_places("backward", results, [result[leaf] for leaf in leaves])
    return applied, places, tuple(lines.get(node, ()) for node in topological(applied.outputs))


def _structure(
    outputs: Sequence[Node], cotangents: Sequence[Node], wanted: Sequence[Node]
) -> tuple[tuple, list[Node]]:
    """What the gradients depend on, and the nodes whose values they are made from.

    Two calls with one structure have the same gradients as functions of the leaves.
    """
    key: list[Any] = []
    leaves: list[Node] = []
    number: dict[Node, int] = {}
    places = {node: place for place, node in enumerate(wanted)}

    def leaf(node: Node) -> None:
        number[node] = len(key)
        if node.op == "const":
            key.append((node.identity,))
        else:
            leaves.append(node)
            key.append((node.dtype, node.shape))

    for output in (*outputs, *cotangents):
        stack = [output]
        while stack:
            node = stack[-1]
            if node in number:
                stack.pop()
                continue
            if not node.differentiable:
                leaf(node)
                stack.pop()
                continue
            call = node.call
            inputs = node.inputs if call is None else call.inputs
            waiting = len(stack)
            for value in inputs:
                if value not in number:
                    stack.append(value)
            if len(stack) > waiting:
                continue
            stack.pop()
            place = places.get(node, -1)
            if node.op == "variable":
                # a marker by which number does not matter, only whether it is wanted
                number[node] = len(key)
                key.append((place, number[inputs[0]]))
                continue
            known = node.payload is not None
            if known:
                leaf(node)
            for part, kept in kept_with.get(node, {}).items() if node.op == "loop" else ():
                if kept.payload is not None and kept not in number:
                    leaf(kept)
                    key.append(("kept", part))
            number[node] = len(key)
            op, identity = (node.op, node.identity) if call is None else (call.template, node.part)
            key.append((op, identity, node.location, known, place,
                        *[number[value] for value in inputs]))
    key.append((len(outputs), *[number[node] for node in (*outputs, *cotangents)]))
    return tuple(key), leaves
