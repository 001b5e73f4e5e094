"""How far rounding moves the results of a program: its operations rounded at random.

A compiled program rounds elsewhere than the interpreter (it fuses multiplications with additions,
and sums in another order), so results that differ by rounding alone are both right.  How much that
may be depends on the program: sums cancel, norms divide by what is left.  So the program is
interpreted again with every rounding operation off by the last bit, up or down, as the dice say;
how far the results move shows it (Parker, Pierce, Eggert: Monte Carlo arithmetic, 2000).  Bounds
that are carried from operation to operation say nothing any more after a few layers of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS

EPSILON = {"float64": 2.0**-52, "complex128": 2.0**-52, "float32": 2.0**-23, "complex64": 2.0**-23,
           "float16": 2.0**-10, "bfloat16": 2.0**-7}
RUNS = 2
EXACT_KINDS = frozenset({"leaf", "movement", "marker", "sort"})
EXACT = frozenset({
    "neg", "sign", "floor", "ceil", "trunc", "round", "abs", "copysign", "nextafter", "maximum",
    "minimum", "where", "bitcast", "real", "imag", "complex", "conj", "rem", "max", "min", "gather",
})
"""Ops that give one of the numbers that they are given, or round none."""
INSIDE_KINDS = frozenset({"contraction", "scan", "attention", "loop", "library"})
"""Kinds of ops that round on the way, too: their operands are moved, which cancels as they do."""


def rounding_noise(outputs: Sequence[Node], known: Mapping[Node, numpy.ndarray],
                   values: Sequence[numpy.ndarray]) -> list[float]:
    """By how much an element of each output moved at most.  values: of the outputs, not moved."""
    generator = numpy.random.default_rng(20000)
    largest = [0.0] * len(outputs)
    for _ in range(RUNS):
        moved = evaluate(outputs, known, _Dice(generator))
        for number, (value, other) in enumerate(zip(values, moved, strict=True)):
            largest[number] = max(largest[number], _distance(value, other))
    return largest


class _Dice:
    """Interprets single operations, with their roundings moved."""

    def __init__(self, generator: numpy.random.Generator) -> None:
        self.generator = generator

    def __call__(self, node: Node, operands: list[numpy.ndarray], reference: object) -> object:
        kind = OPS[node.op].kind
        if node.op in ("sum", "prod") or kind in INSIDE_KINDS:
            operands = [self.moved(value, each.dtype.name)
                        for value, each in zip(operands, node.inputs, strict=True)]
        result = reference(node, operands)  # type: ignore[operator]
        if kind in EXACT_KINDS or node.op in EXACT or (node.op == "cast" and not _narrows(node)):
            return result
        result = numpy.asarray(result).astype(node.dtype.numpy, copy=False)
        return self.moved(result, node.dtype.name)

    def moved(self, value: numpy.ndarray, dtype: str) -> numpy.ndarray:
        """Each number times 1, or a last bit more or less than 1."""
        epsilon = EPSILON.get(dtype)
        if epsilon is None:
            return value
        wide = numpy.float64 if epsilon < 2.0**-30 else numpy.float32
        factors = numpy.array([1 - epsilon, 1, 1 + epsilon], wide)
        factor = factors[self.generator.integers(0, 3, value.shape, numpy.uint8)]
        return (value * factor).astype(value.dtype, copy=False)


def _narrows(cast: Node) -> bool:
    return EPSILON.get(cast.dtype.name, 0.0) > EPSILON.get(cast.inputs[0].dtype.name, 0.0)


def _distance(value: numpy.ndarray, other: numpy.ndarray) -> float:
    if value.dtype.kind in "biu" or not value.size:
        return 0.0
    wide = numpy.complex128 if value.dtype.kind == "c" else numpy.float64
    distance = numpy.abs(value.astype(wide) - other.astype(wide))
    return float(distance[numpy.isfinite(distance)].max(initial=0.0))
