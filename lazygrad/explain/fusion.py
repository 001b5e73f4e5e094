"""`explain fusion`: each pair of neighbouring values in different kernels, with the reason, and the
values that are computed twice.
"""

from __future__ import annotations

import math
from typing import Any

from lazygrad.cli import human_bytes
from lazygrad.explain.lines import lines_of
from lazygrad_compiler.backend import backend_of
from lazygrad_compiler.fusion.partition import Partition
from lazygrad_compiler.fusion.reads import reads
from lazygrad_compiler.fusion.rematerialise import computed_again
from lazygrad_compiler.fusion.seams import Seam, seams
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.pipeline import Stages


def describe(stages: Stages) -> list[dict[str, Any]]:
    """Every seam of a program, as plain data.

    kernel: the number that `dump-ir` gives it, of several the first; None for a joining, which no
    kernel does.  saved_bytes: in a run of the program; of a loop, in all steps.
    """
    numbers: dict[int, int] = {}
    for number, launch in enumerate(stages.launches):
        numbers.setdefault(id(launch.group), number)
    _number_loops(stages.partition, numbers)
    attends = backend_of(stages.target).attends
    return [_described(seam, numbers) for seam in seams(stages.opt, stages.partition, attends)]


def _number_loops(parts: Partition, numbers: dict[int, int]) -> None:
    """A loop has the number of the first kernel of its steps."""
    for body in parts.bodies:
        _number_loops(body.parts, numbers)
        inside = [numbers[id(each)] for each in body.parts.groups if id(each) in numbers]
        if inside:
            numbers[id(body.group)] = min(inside)


def describe_again(stages: Stages) -> list[dict[str, Any]]:
    """Every value that is computed more than once, as plain data.

    saved_bytes: of memory at the peak, or of traffic.
    """
    found = [(value, sources, "peak", "it would be kept where the program holds most")
             for value, sources in computed_again(stages.opt)]
    stored = stages.partition.stored
    found += [(value, reads(value, lambda each: each.op == "input" or each in stored),
               "readers", "its readers read what it is made from anyway")
              for value in stages.partition.again]
    return [{"value": _value(value), "sources": [_value(source) for source in sources],
             "reason": reason, "because": because, "saved_bytes": value.nbytes}
            for value, sources, reason, because in found]


def _value(node: Node) -> dict[str, Any]:
    return {"op": node.op, "type": f"{node.dtype.name}{list(node.shape)}",
            "lines": lines_of(node.location)}


def _described(seam: Seam, numbers: dict[int, int]) -> dict[str, Any]:
    def value(node: Node, group: Group) -> dict[str, Any]:
        return _value(node) | {"kernel": numbers.get(id(group))}

    return {
        "producer": value(seam.producer, seam.groups[0]),
        "consumer": value(seam.consumer, seam.groups[1]),
        "loops": [{"name": loop.body.name, "steps": loop.length, "lines": lines_of(loop.location)}
                  for loop in seam.loops],
        "reason": seam.reason.name.lower() if seam.reason else "unknown",
        "because": seam.reason.value if seam.reason else "unknown",
        "saved_bytes": seam.saved_bytes * math.prod(loop.length for loop in seam.loops),
    }


def text_again(described: list[dict[str, Any]]) -> str:
    """The values that one program computes twice, two lines each."""
    return "\n".join(
        f"{_named(each['value'])} is computed again from "
        f"{', '.join(map(_named, each['sources']))}\n    {each['because']}; "
        f"saves {human_bytes(each['saved_bytes'])}" for each in described)


def _named(value: dict[str, Any]) -> str:
    return f"{value['op']} {value['type']} ({', '.join(value['lines']) or 'no line'})"


def text(described: list[dict[str, Any]]) -> str:
    """The seams of one program, two lines each."""
    parts = []
    for seam in described:
        ends = [_named(end) for end in (seam["producer"], seam["consumer"])]
        rounds = "".join(f" in {loop['steps']} steps of {loop['name']} ({', '.join(loop['lines'])})"
                         for loop in seam["loops"])
        parts.append(f"{ends[0]} | {ends[1]}\n    {seam['because']}; "
                     f"fusing would save {human_bytes(seam['saved_bytes'])}{rounds}")
    return "\n".join(parts) or "no seam: one kernel, or kernels that share no value"
