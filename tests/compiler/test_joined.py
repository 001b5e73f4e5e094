"""Outputs that join equal pieces: one kernel computes the pieces and stores them in place."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.fusion.seams import seams
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower, optimized
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program

AT = Builder()


def leaf(index: int, *shape: int) -> Node:
    return node("input", index=index, dtype=dtypes.float64, shape=shape)


def check(graph: Graph, *shapes: tuple[int, ...]) -> None:
    """Compiled as interpreted, and every seam between kernels has its reason."""
    values = [numpy.random.default_rng(k).standard_normal(shape) for k, shape in enumerate(shapes)]
    program = Program(compile_graph(graph, host()))
    results = program.run([Buffer.from_numpy(value) for value in values])
    for have, want, output in zip(results, interpret(graph, values), graph.outputs, strict=True):
        array = have.as_numpy(output.dtype.numpy, output.shape)
        numpy.testing.assert_allclose(array, want, rtol=1e-12, atol=1e-12)
    separate = optimized(graph)
    assert all(seam.reason is not None for seam in seams(separate, partition(separate)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 17, 2), (16, 1, 16)])
def test_pieces_are_one_kernel(axis: int, shape: tuple[int, ...]) -> None:
    x, y = leaf(0, *shape), leaf(1, *shape)
    both = AT.mul(AT.op("exp", x), AT.op("sin", y))
    joined = AT.concat([AT.add(both, x), AT.op("tanh", both), AT.mul(both, y)], axis)
    graph = Graph((joined, AT.neg(both)))
    check(graph, shape, shape)
    stages = lower(graph, host())
    assert len(stages.launches) == 1
    assert joined.size in [buffer.size for buffer in stages.launches[0].kernel.buffers]


def test_whatever_the_pieces_are() -> None:
    """Inputs, products, reductions, pieces that are outputs, too, and a reader of the whole."""
    x, w = leaf(0, 6, 6), leaf(1, 6, 6)
    product = AT.op("dot", x, w, attrs=((), (), (1,), (0,)))
    spread = AT.spread(AT.sum(x, (1,)), (1,), (6, 6))
    joined = AT.concat([product, x, spread, AT.permute(w, (1, 0))], 1)
    read = AT.op("dot", joined, w, attrs=((), (), (0,), (0,)))
    other = AT.concat([product, AT.op("exp", w)], 0)
    check(Graph((joined, read, product, other)), (6, 6), (6, 6))
    check(Graph((AT.concat([x, x], 0), AT.concat([x, w], 0), AT.concat([w, x], 0))), (6, 6), (6, 6))


def test_rows_of_tables_are_stored_where_a_product_reads_them() -> None:
    """Many pieces, more than fit one kernel, are stacked for a product: no kernel copies them."""
    tables = [leaf(number, 170, 16) for number in range(27)]
    picked = [AT.op("exp", AT.slice_axis(table, 0, 3, 163)) for table in tables]
    stacked = AT.concat([AT.reshape(piece, (160, 1, 16)) for piece in picked], 1)
    read = AT.op("dot", stacked, stacked, attrs=((0,), (0,), (2,), (2,)))
    check(Graph((read,)), *[(170, 16)] * 27)
    assert "concat" not in {launch.about for launch in lower(Graph((read,)), host()).launches}


def test_gradients_of_pieces_are_joined() -> None:
    x = leaf(0, 4, 6)
    pieces = [AT.slice_axis(x, 1, start, start + 2) for start in (2, 0, 4)]
    gradient, = backward(pieces, [AT.op("exp", piece) for piece in pieces], [x])
    assert gradient is not None and gradient.op == "concat"
    check(Graph((gradient,)), (4, 6))
    # not where they overlap, or leave something out
    for starts in ((0, 1, 2, 4), (0, 4)):
        pieces = [AT.slice_axis(x, 1, start, start + 2) for start in starts]
        gradient, = backward(pieces, [AT.op("exp", piece) for piece in pieces], [x])
        assert gradient is not None and gradient.op == "add"
        check(Graph((gradient,)), (4, 6))
