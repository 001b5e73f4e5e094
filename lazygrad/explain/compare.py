"""Compiled against interpreted: whether results differ by more than rounding.

A result differs where an element is further from the interpreter's than `tolerance` times the
largest of the expected elements, plus what rounding on the way there may amount to (sums cancel).
Integers and booleans must be equal, not-a-numbers and infinities in the same places.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from lazygrad.explain.rounding import rounding_noise
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.interpret import evaluate, interpret
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program

TOLERANCE = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-4, "complex64": 1e-4,
             "float16": 2e-2, "bfloat16": 1e-1}
"""By dtype; what is not listed (float8) gets the widest."""

ROUNDINGS = 32
"""So many times what random rounding moves a result by is rounding, too."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An output by the interpreter.  slack: the error allowed at any element for cancellation."""

    value: numpy.ndarray
    slack: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first output that differs, and the element where it differs most."""

    output: int
    place: tuple[int, ...]
    got: str
    expected: str
    elements: int

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.place))}]" if self.place else ""
        return (f"output {self.output}{where} is {self.got} and should be {self.expected}; "
                f"{self.elements} element{'s' * (self.elements != 1)} differ")


def interpreted(graph: Graph, inputs: Sequence[numpy.ndarray]) -> list[Expected]:
    """What the graph's outputs should be.  Raises what `interpret` raises."""
    known = {leaf: inputs[leaf.attrs[0]] for leaf in graph.inputs()}
    values = evaluate(graph.outputs, known)
    noise = rounding_noise(graph.outputs, known, values)
    return [Expected(value, ROUNDINGS * moved)
            for value, moved in zip(values, noise, strict=True)]


def _largest(value: numpy.ndarray) -> float:
    wide = numpy.abs(value.astype(numpy.complex128 if value.dtype.kind == "c" else numpy.float64))
    finite = wide[numpy.isfinite(wide)]
    return float(finite.max()) if finite.size else 0.0


def rewritten_inputs(made: Graph, inputs: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """The inputs as a rewritten graph takes them: after split-complex, numbers as pairs."""
    given = list(inputs)
    for leaf in made.inputs():
        array = given[leaf.attrs[0]]
        if array.dtype.kind == "c" and not leaf.dtype.is_complex:
            pairs = numpy.ascontiguousarray(array).view(leaf.dtype.numpy)
            given[leaf.attrs[0]] = pairs.reshape(leaf.shape)
    return given


def interpret_rewritten(made: Graph, graph: Graph,
                        inputs: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """What a graph that was rewritten from `graph` computes, pairs as complex numbers again."""
    values = interpret(made, rewritten_inputs(made, inputs))
    return [numpy.ascontiguousarray(value).view(output.dtype.numpy).reshape(output.shape)
            if output.dtype.is_complex and value.dtype.kind != "c" else value
            for value, output in zip(values, graph.outputs, strict=True)]


def compiled(graph: Graph, inputs: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """The outputs by a freshly compiled program; no cache of programs or kernels is asked, but the
    same LLVM text gives the same code: of the many variants that a search tries, most kernels are.
    """
    program = Program(compile_graph(graph, host(), lambda name, llvm, target: _code(llvm, target)))
    given = [Buffer.from_numpy(numpy.ascontiguousarray(array))
             for array in inputs[:program.input_count]]
    return [buffer.as_numpy(output.dtype.numpy, output.shape)
            for buffer, output in zip(program.run(given), graph.outputs, strict=True)]


@functools.lru_cache(maxsize=1000)
def _code(llvm: str, target: Target) -> bytes:
    return compile_text(llvm, target).object_code


def difference(got: Sequence[numpy.ndarray], expected: Sequence[Expected], dtypes: Sequence[DType],
               tolerance: float | None = None) -> Difference | None:
    """The first output that differs, or None."""
    for number, (value, wanted, dtype) in enumerate(zip(got, expected, dtypes, strict=True)):
        wrong = _wrong(value, wanted, dtype, tolerance)
        if wrong.any():
            place = numpy.unravel_index(int(numpy.argmax(wrong)), wrong.shape)
            at = tuple(int(index) for index in place)
            return Difference(number, at, str(value[at]), str(wanted.value[at]),
                              int((wrong > 0).sum()))
    return None


def _wrong(got: numpy.ndarray, wanted: Expected, dtype: DType,
           tolerance: float | None) -> numpy.ndarray:
    """By how much each element is too far off, 0 where it is not."""
    expected = wanted.value
    if not (dtype.is_floating or dtype.is_complex):
        return (got != expected).astype(numpy.float64)
    kind = numpy.complex128 if dtype.is_complex else numpy.float64
    a, b = got.astype(kind), expected.astype(kind)
    allowed = TOLERANCE.get(dtype.name, 0.5) if tolerance is None else tolerance
    with numpy.errstate(all="ignore"):
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        error = numpy.abs(a - b)
        bound = allowed * _largest(expected) + wanted.slack
        error = numpy.where(numpy.isfinite(error), error, numpy.inf)
        return numpy.where(same | (error <= bound), 0.0, error)
