"""Runs a graph in NumPy, op by op: the oracle for every pass and every kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.node import Graph, Node, topological
from lazygrad_compiler.ir.reference import REFERENCE

Step = Callable[[Node, list[numpy.ndarray], Callable[..., Any]], Any]
"""(operation, values of its operands, its reference) -> its value."""


def interpret(graph: Graph, inputs: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """The graph's outputs for the given input arrays (one for each `input` node, by its index)."""
    return evaluate(graph.outputs, {leaf: inputs[leaf.attrs[0]] for leaf in graph.inputs()})


def evaluate(
    outputs: Sequence[Node], known: Mapping[Node, numpy.ndarray], step: Step | None = None
) -> list[numpy.ndarray]:
    """Values of nodes, given the values of some; each has the node's dtype and shape.

    step: what does each operation, in place of its reference, which it is given.

    Raises IndexOutOfRange where a gather or scatter leaves its axis, ValueError where a known value
    does not fit.
    """
    values: dict[Node, numpy.ndarray] = {}
    for leaf, value in known.items():
        if value.shape != leaf.shape or value.dtype != leaf.dtype.numpy:
            raise ValueError(f"{leaf!r} was given {value.dtype}{list(value.shape)}")
        values[leaf] = value
    with numpy.errstate(all="ignore"):
        for current in topological(outputs, stop=lambda n: n in values):
            if current not in values:
                operands = [values[value] for value in current.inputs]
                reference = REFERENCE[current.op]
                result = (
                    step(current, operands, reference) if step else reference(current, operands)
                )
                values[current] = (
                    numpy.asarray(result)
                    .astype(current.dtype.numpy, copy=False)
                    .reshape(current.shape)
                )
    return [values[output] for output in outputs]
