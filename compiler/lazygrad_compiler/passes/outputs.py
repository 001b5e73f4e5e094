"""Outputs apart from each other and from the inputs; last pass of stage opt."""

from __future__ import annotations

from lazygrad_compiler.ir.node import Graph, Node, node


def separate_outputs(graph: Graph) -> Graph:
    """Every output a node of its own: an input or an earlier output given back is copied."""
    seen: set[Node] = set()
    outputs = []
    for output in graph.outputs:
        while output in seen or output.op == "input":
            output = node("reshape", output, shape=output.shape, location=output.location)
        seen.add(output)
        outputs.append(output)
    return Graph(tuple(outputs))
