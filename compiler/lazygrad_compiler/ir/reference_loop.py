"""What a loop means: its body, interpreted step after step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.loop import Loop
from lazygrad_compiler.ir.node import Node

Array = numpy.ndarray

_latest: dict[str, Any] = {"key": None, "results": None, "inputs": ()}
"""The results of the loop that ran last, since its other results are likely to be asked for next.
`inputs` keeps alive what the key names by address.
"""


def loop(node: Node, inputs: Sequence[Array]) -> Array:
    key = (node.attrs[:5], tuple(map(id, inputs)))
    if _latest["key"] != key:
        results = run(Loop.of(node), inputs)
        _latest.update(key=key, results=results, inputs=tuple(inputs))
    return _latest["results"][node.attrs[5]]


def run(loop: Loop, inputs: Sequence[Array]) -> list[Array]:
    """The last states, then what the steps gave."""
    from lazygrad_compiler.ir.interpret import evaluate

    series = inputs[loop.carried : loop.carried + loop.stepped]
    constants = inputs[loop.carried + loop.stepped :]
    states = list(inputs[: loop.carried])
    given = [
        numpy.zeros((loop.length, *value.shape), value.dtype.numpy) for value in loop.given
    ]
    order = range(loop.length)
    for step in reversed(order) if loop.reverse else order:
        arrays = (*states, *(numpy.asarray(values[step]) for values in series), *constants)
        outputs = evaluate(loop.body.outputs, dict(zip(loop.placeholders, arrays, strict=True)))
        states = outputs[: loop.carried]
        for row, value in zip(given, outputs[loop.carried :], strict=True):
            row[step] = value
    return [*states, *given]


RULES: dict[str, Callable[[Node, Sequence[Array]], Any]] = {"loop": loop}
