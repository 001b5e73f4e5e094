"""`detect_anomaly`: backward then looks at every gradient that passes, and names the line whose
backward made the first NaN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from lazygrad._core import graph
from lazygrad._core.context import fail, now
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node


class set_detect_anomaly:
    """Switches at once; as a context manager, until its end.

    check_nan: whether NaN is looked for.  The user's line of each operation is known always, so
    there is nothing else to switch.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = now.anomaly
        now.anomaly = bool(mode) and bool(check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        now.anomaly = self._before


class detect_anomaly(set_detect_anomaly):
    """Within it, backward raises where it makes a NaN."""

    def __init__(self, check_nan: bool = True) -> None:
        self._wanted = check_nan
        self._before = now.anomaly

    def __enter__(self) -> None:
        super().__init__(True, self._wanted)


def check(gradients: dict[Node, Node], passed: Sequence[Node]) -> None:
    """Looks at the gradients of a backward pass, from the outputs on; raises at the first NaN."""
    from lazygrad._core.tensor import wrap
    nodes = sorted((node for node in gradients if gradients[node].dtype.is_differentiable),
                   key=lambda node: -node.serial)
    if not nodes:
        return
    flags = []
    for node in nodes:
        gradient = gradients[node]
        flat = graph.reshape(gradient, (gradient.size,))
        unequal = graph.binary("ne", flat, flat)  # NaN alone differs from itself
        count = graph.reduce("sum", graph.cast(unequal, dtypes.int64), (0,))
        flags.append(graph.reshape(count, (1,)))
    found = wrap(graph.concat(flags, 0)).tolist()
    for node, count in zip(nodes, found, strict=True):
        if count:
            makers = [each for each in passed if node in each.inputs] or [node]
            named = " or ".join(dict.fromkeys(map(_named, makers)))
            raise fail("backward", f"the gradient of {named} has {count} NaN", kind=RuntimeError)


def _named(node: Node) -> str:
    file, number = (node.location or (("<unknown>", 0),))[0]
    return f"`{node.op}`, recorded at {os.path.basename(file)}:{number},"
