"""Artifacts: compiled programs as plain data, and the canonical graphs that they are compiled from.

Apart from the driver, so that a process which finds its programs on disk never imports the
compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lazygrad_compiler.ir.node import Graph, Location, Node, node, rebuild, topological


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled program.

    objects: object code by name, "program" and one for each distinct kernel.  inputs: number of
    inputs.  outputs: (dtype name, shape) of each.  arena_bytes, scratch_bytes: memory to provide.
    launches: (kernel name, what it computes, user lines) in order, for messages.  seconds: what
    compiling took.
    """

    objects: dict[str, bytes]
    inputs: int
    outputs: list[tuple[str, tuple[int, ...]]]
    arena_bytes: int
    scratch_bytes: int
    launches: list[tuple[str, str, Location]]
    seconds: float

    def description(self) -> dict[str, Any]:
        """All but the object code, for JSON."""
        return {
            "inputs": self.inputs,
            "outputs": [[name, list(shape)] for name, shape in self.outputs],
            "arena_bytes": self.arena_bytes,
            "scratch_bytes": self.scratch_bytes,
            "launches": [
                [kernel, about, [list(line) for line in where]]
                for kernel, about, where in self.launches
            ],
            "objects": list(self.objects),
            "seconds": self.seconds,
        }

    @staticmethod
    def from_description(described: dict[str, Any], objects: dict[str, bytes]) -> Artifact:
        return Artifact(
            objects,
            described["inputs"],
            [(name, tuple(shape)) for name, shape in described["outputs"]],
            described["arena_bytes"],
            described["scratch_bytes"],
            [
                (kernel, about, tuple((file, line) for file, line in where))
                for kernel, about, where in described["launches"]
            ],
            described["seconds"],
        )


def canonical_graph(outputs: Sequence[Node], leaves: Sequence[Node]) -> Graph:
    """Recorded nodes as a graph of their own: the leaves become inputs 0, 1, …, autograd markers
    are gone.
    """
    result: dict[Node, Node] = {
        leaf: node(
            "input", index=number, dtype=leaf.dtype, shape=leaf.shape, location=leaf.location
        )
        for number, leaf in enumerate(leaves)
    }
    for current in topological(outputs, stop=lambda n: n in result):
        if current in result:
            continue
        inputs = [result[value] for value in current.inputs]
        is_marker = current.op in ("variable", "stop_gradient")
        result[current] = inputs[0] if is_marker else rebuild(current, inputs)
    return Graph(tuple(result[output] for output in outputs))
