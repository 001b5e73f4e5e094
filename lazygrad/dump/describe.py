"""A program as plain data, for other tools: what `--format json` writes.

    {"schema": 1, "programs": [{"number", "about", "summary", "stages": {stage: text},
      "graph": {"operations": […], "results": […]}, "opt": {…}, "kernels": […], "seams": […],
      "passes": […]}]}

The schema's number is raised when a field changes its meaning or goes away; new fields may come.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lazygrad.dump.changes import Change
from lazygrad.dump.select import members
from lazygrad.dump.stages import DumpedProgram
from lazygrad_compiler.ir.node import Graph, Location, Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import TYPE_ATTRIBUTES, format_value
from lazygrad_compiler.loops.cost import Cost, cost_of
from lazygrad_compiler.pipeline import Stages

SCHEMA = 1


def described(programs: Sequence[DumpedProgram]) -> dict[str, Any]:
    """The whole document."""
    return {"schema": SCHEMA, "programs": [describe_program(program) for program in programs]}


def json_text(programs: Sequence[DumpedProgram]) -> str:
    return json.dumps(described(programs), indent=1) + "\n"


def describe_program(program: DumpedProgram) -> dict[str, Any]:
    stages = program.stages
    found: dict[str, Any] = {
        "number": program.number,
        "about": program.about,
        "summary": program.summary,
        "target": {"triple": stages.target.triple, "cpu": stages.target.cpu},
        "stages": program.texts,
        "graph": describe_graph(stages.graph),
        "opt": describe_graph(stages.opt),
        "arena_bytes": stages.plan.arena_bytes,
        "kernels": [describe_launch(stages, number) for number in program.kernels],
        "seams": [{"producer": _operation(producer), "reader": _operation(reader),
                   "reason": reason.name, "words": reason.value}
                  for producer, reader, reason in stages.refusals()],
    }
    if program.changes:
        found["passes"] = [_describe_change(change) for change in program.changes]
    return found


def describe_graph(graph: Graph) -> dict[str, Any]:
    """Operations in the order and with the numbers of the text."""
    nodes = graph.nodes()
    numbers = {node: number for number, node in enumerate(nodes)}
    operations = []
    for node in nodes:
        named = zip(OPS[node.op].attributes, node.attrs, strict=True)
        operations.append({
            **_operation(node),
            "inputs": [numbers[value] for value in node.inputs],
            "attributes": {name: format_value(value, {}) for name, value in named
                           if name not in TYPE_ATTRIBUTES},
        })
    return {"operations": operations, "results": [numbers[output] for output in graph.outputs]}


def describe_launch(stages: Stages, number: int) -> dict[str, Any]:
    """One kernel call, with what it costs at least: in one step where it is part of loops, which
    are named from the outermost in.
    """
    launch = stages.launches[number]
    cost = cost_of(launch.kernel)
    return {
        "number": number,
        "name": stages.names[number],
        "kind": launch.kernel.kind,
        "about": launch.about,
        "loops": [{"name": repeat.name, "steps": repeat.length} for repeat in launch.repeats],
        "lines": lines_of(launch.location),
        "operations": [_operation(node) for node in members(stages, launch.group)],
        "stored": [_operation(node) for node in launch.group.roots if node in launch.group.outputs],
        **describe_cost(cost),
    }


def describe_cost(cost: Cost) -> dict[str, Any]:
    return {"flops": cost.flops, "bytes_read": cost.read, "bytes_written": cost.written,
            "flops_per_byte": round(cost.intensity, 4)}


def lines_of(location: Location) -> list[dict[str, Any]]:
    """Files by name alone, so that dumps of two machines compare."""
    return [{"file": file.replace("\\", "/").rsplit("/", 1)[-1], "line": line}
            for file, line in location]


def _operation(node: Node) -> dict[str, Any]:
    return {"op": node.op, "dtype": node.dtype.name,
            "shape": [size if isinstance(size, int) else str(size) for size in node.shape],
            "lines": lines_of(node.location)}


def _describe_change(change: Change) -> dict[str, Any]:
    return {"number": change.number, "name": change.name, "changed": change.changed,
            "operations_before": change.operations[0], "operations_after": change.operations[1],
            "seconds": change.seconds, "diff": change.diff()}
