"""The part of a program that a `Selection` names: operations of its graphs, and kernels.

A kernel is shown where it, or one of the operations in it, matches; its number stays that of the
whole program.  An excerpt of a graph does not parse back; its first line says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from lazygrad.dump.options import Selection
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.pipeline import Stages


def members(stages: Stages, group: Group) -> list[Node]:
    """The operations of a kernel, inputs before users: its roots, and what is computed inside of
    them rather than stored.
    """
    roots = set(group.roots)
    stored = stages.partition.stored
    found: dict[Node, None] = {}
    stack = [(root, False) for root in reversed(group.roots)]
    while stack:
        node, done = stack.pop()
        if done:
            found.setdefault(node)
        elif node not in found and node.op != "input" and (node in roots or node not in stored):
            stack.append((node, True))
            stack += [(value, False) for value in reversed(node.inputs)]
    return list(found)


def selected_kernels(stages: Stages, selection: Selection) -> tuple[int, ...]:
    """The numbers of the launches that the selection takes; of all without one."""
    everything = tuple(range(len(stages.launches)))
    if not selection:
        return everything
    lines = _node_lines(stages.opt)
    found = []
    for number in everything:
        launch, name = stages.launches[number], stages.names[number]
        texts = [(f"{name}: {launch.kernel.kind} {launch.about}", launch.location)]
        texts += [(lines.get(node, node.op), node.location)
                  for node in members(stages, launch.group)]
        if any(selection.takes(text, location) for text, location in texts):
            found.append(number)
    return tuple(found)


def selected_text(stages: Stages, stage: str, selection: Selection,
                  kernels: Iterable[int]) -> str:
    """The stage's text with what is selected; "" where nothing is."""
    if not selection:
        return stages.render(stage)
    if stage in ("graph", "opt"):
        graph = stages.graph if stage == "graph" else stages.opt
        lines = _node_lines(graph)
        return _excerpt([line for node, line in lines.items()
                         if selection.takes(line, node.location)], len(lines))
    if stage == "grad":
        added = [line for line in stages.render(stage).splitlines() if line.startswith("%")]
        if selection.at is not None:  # a listing names files without their folders
            file, number = selection.at
            selection = replace(selection, at=(file.rpartition("/")[2], number))
        return _excerpt([line for line in added if selection.takes(line, _written(line))],
                        len(added))
    numbers = sorted(kernels)
    if not numbers:
        return ""
    if stage == "fused":
        return _fused(stages, selection, set(numbers))
    names = [stages.names[number] for number in numbers]
    return replace(
        stages,
        launches=[stages.launches[number] for number in numbers],
        names=names,
        kernels=[kernel for kernel in stages.kernels if kernel.name in names],
        entry="; left out: only some kernels are shown",
    ).render(stage)


def _node_lines(graph: Graph) -> dict[Node, str]:
    return dict(zip(graph.nodes(), print_graph(graph).splitlines()[1:-1], strict=True))


def _excerpt(lines: list[str], count: int) -> str:
    if not lines:
        return ""
    return "\n".join([f"# an excerpt: {len(lines)} of {count} operations", *lines])


def _written(line: str) -> tuple[tuple[str, int], ...]:
    """The location as a listing has it: names of files without their folders."""
    comment = line.rpartition("    # ")[2]
    return tuple((file.strip(' "'), int(number))
                 for file, number in re.findall(r"([^,]+):(\d+)(?=,|$)", comment))


def _fused(stages: Stages, selection: Selection, numbers: set[int]) -> str:
    """The blocks of the kernels, and the seams whose reader or producer is selected."""
    kept: list[str] = []
    inside = False
    lines = stages.render("fused").splitlines()
    seams = iter(stages.refusals())
    for line in lines:
        begins = re.match(r"kernel (\d+):", line)
        if begins:
            inside = int(begins[1]) in numbers
        elif line.startswith("not fused:"):
            producer, consumer, _ = next(seams)
            inside = (selection.takes(line, producer.location)
                      or selection.takes(line, consumer.location))
        if inside:
            kept.append(line)
    return "\n".join(kept)
