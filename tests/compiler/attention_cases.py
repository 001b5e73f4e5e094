"""Graphs of attention, run and compared: what its tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.inference_attention import statistics_dtype
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Shape:
    """batch, heads of q, heads of k, queries, keys, width, width of v."""

    batch: int
    heads: int
    groups: int
    queries: int
    keys: int
    width: int
    value_width: int

    @property
    def operands(self) -> list[tuple[int, ...]]:
        b, h, g = self.batch, self.heads, self.groups
        return [
            (b, h, self.queries, self.width),
            (b, g, self.keys, self.width),
            (b, g, self.keys, self.value_width),
            (b, h, self.queries, self.value_width),
        ]


def leaf(index: int, array: numpy.ndarray, dtype: str) -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=array.shape)


def outputs_of(
    inputs: list[Node], scale: float, causal: bool, zero: bool, parts: str, dropout: tuple = ()
) -> tuple[Node, ...]:
    """Output, statistics and gradients for inputs (q, k, v, g), perhaps a mask, a random state."""
    q, k, v, g, *mask = inputs
    attrs = {"scale": scale, "causal": causal, "empty_is_zero": zero, "views": (),
             "dropout": dropout}
    output = node("attention", q, k, v, *mask, **attrs)
    statistics = node("attention_logsumexp", q, k, v, *mask, **attrs)
    wide = statistics_dtype(q.dtype)
    widened = [x if x.dtype is wide else node("cast", x, dtype=wide) for x in (output, g)]
    delta = node("sum", node("mul", *widened), axes=(3,))
    gradients = [
        node("attention_grad", q, k, v, g, statistics, delta, *mask, **attrs, part=part)
        for part in parts
    ]
    return output, statistics, *gradients


def run(graph: Graph, arrays: list[numpy.ndarray]) -> list[numpy.ndarray]:
    program = Program(compile_graph(graph, host()))
    given = [Buffer.from_numpy(numpy.ascontiguousarray(array)) for array in arrays]
    buffers = program.run(given[: program.input_count])
    return [
        buffer.as_numpy(output.dtype.numpy, output.shape)
        for buffer, output in zip(buffers, graph.outputs, strict=True)
    ]


def assert_close(have: numpy.ndarray, want: numpy.ndarray, tolerance: float) -> None:
    have, want = have.astype(numpy.float64), numpy.asarray(want).astype(numpy.float64)
    finite = numpy.abs(want[numpy.isfinite(want)])
    size = 1 + (finite.max() if finite.size else 0)
    numpy.testing.assert_allclose(have, want, rtol=0, atol=tolerance * size)


def check(
    shape: Shape,
    dtype: str = "float32",
    causal: bool = False,
    mask: numpy.ndarray | None = None,
    zero: bool = True,
    parts: str = "qkv",
    scale: float = 0.3,
    tolerance: float | None = None,
    change: Callable[[list[numpy.ndarray]], None] = lambda arrays: None,
    dropout: tuple = (),
) -> None:
    """Against the interpreter; float32 against the interpreter in float64, too."""
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s).astype(DTYPES[dtype].numpy) for s in shape.operands]
    change(arrays)
    names = [dtype] * 4
    if mask is not None:
        names.append("bool" if mask.dtype == bool else dtype)
        arrays.append(mask if mask.dtype == bool else mask.astype(DTYPES[dtype].numpy))
    if dropout:
        names.append("int64")
        arrays.append(numpy.array([7 << 33 | 5, (1 << 32) - 3]))
    leaves = [leaf(n, a, name) for n, (a, name) in enumerate(zip(arrays, names, strict=True))]
    graph = Graph(outputs_of(leaves, scale, causal, zero, parts, dropout))
    found = run(graph, arrays)
    references = [interpret(graph, arrays)]
    if dtype == "float32":
        wide = [a.astype(numpy.float64) if a.dtype == numpy.float32 else a for a in arrays]
        names = ["float64" if name == "float32" else name for name in names]
        leaves = [leaf(n, a, name) for n, (a, name) in enumerate(zip(wide, names, strict=True))]
        outputs = outputs_of(leaves, scale, causal, zero, parts, dropout)
        references.append(interpret(Graph(outputs), wide))
    for expected in references:
        for have, want in zip(found, expected, strict=True):
            assert_close(have, want, tolerance or TOLERANCE[dtype])


ODD = Shape(2, 3, 3, 45, 77, 20, 24)
