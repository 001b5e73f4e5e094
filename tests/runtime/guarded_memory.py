"""Memory that ends where its buffer ends: a kernel that reads or writes beside it dies at once.

Each buffer lies against a page that may not be touched, behind it or before it.  As a program,
`python -m tests.runtime.guarded_memory END SEED…`, it compiles and runs the contractions below and
the random graphs of these seeds in such memory (END: "behind" or "before"), printing each case
before it begins; the caller reads from the exit status whether it got through.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator

import numpy

from lazygrad_compiler.ir.dtypes import float32, float64
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
from lazygrad_runtime import program
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.random_graphs import random_graph

PAGE = mmap.PAGESIZE
NO_ACCESS = 0
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(nbytes: int, behind: bool = True, alignment: int = 64) -> Buffer:
    """A buffer whose last byte (or, not `behind`, whose first) has a forbidden page beside it.

    behind: as near to the page as the alignment lets it be.
    """
    pages = max(-(-nbytes // PAGE), 1)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for forbidden in (start, start + (pages + 1) * PAGE):
        if _libc.mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(PAGE), NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = start + PAGE
    if behind:
        first += (pages * PAGE - nbytes) // alignment * alignment
    return Buffer(first, nbytes, memory)


def run_guarded(graph: Graph, inputs: list[numpy.ndarray], behind: bool) -> None:
    """One run with all of inputs, outputs and arena guarded.  Inputs are aligned to elements only,
    as arrays that come from elsewhere may be.
    """
    compiled = Program(compile_graph(graph, host()))
    given = []
    for array in inputs[: compiled.input_count]:
        array = numpy.ascontiguousarray(array)
        buffer = guarded(array.nbytes, behind, array.itemsize)
        ctypes.memmove(buffer.pointer, array.ctypes.data, array.nbytes)
        given.append(buffer)
    plain = program.allocate
    program.allocate = lambda nbytes: guarded(nbytes, behind)
    try:
        compiled.run(given)
    finally:
        program.allocate = plain


def contractions() -> Iterator[tuple[str, Graph, list[numpy.ndarray]]]:
    """Products and convolutions whose sizes fit no tile, with k in several parts among them."""
    generator = numpy.random.default_rng(0)

    def case(name: str, output: Node, *leaves: Node) -> tuple[str, Graph, list[numpy.ndarray]]:
        arrays = [generator.standard_normal(leaf.shape).astype(leaf.dtype.numpy)
                  for leaf in leaves]
        return name, Graph((output,)), arrays

    def leaf(index: int, *shape: int, dtype: object = float32) -> Node:
        return node("input", index=index, dtype=dtype, shape=shape)

    for m, k, n in ((1, 1, 1), (5, 7, 3), (33, 65, 17), (14, 1152, 32), (17, 1153, 100),
                    (3, 4000, 5), (9, 12300, 7), (130, 387, 129), (1, 300, 50), (50, 300, 1)):
        for dtype in (float32, float64):
            for left, right in ((1, 0), (0, 0), (1, 1), (0, 1)):
                a = leaf(0, *((m, k) if left else (k, m)), dtype=dtype)
                b = leaf(1, *((n, k) if right else (k, n)), dtype=dtype)
                product = node("dot", a, b, left_contract=(left,), right_contract=(right,),
                               left_batch=(), right_batch=())
                yield case(f"dot {m} {k} {n} {dtype.name} {left}{right}", product, a, b)
    for channels, wider, side, kernel, stride, groups in (
        (128, 128, 8, 3, 1, 1), (64, 128, 9, 3, 2, 1), (3, 7, 11, 5, 1, 1), (130, 20, 7, 3, 1, 1),
        (16, 16, 6, 1, 2, 1), (6, 6, 19, 5, 1, 6), (6, 6, 32, 5, 1, 6),
    ):
        x = leaf(0, 2, channels, side, side)
        w = leaf(1, wider, channels // groups, kernel, kernel)
        edge = kernel // 2
        product = node("conv", x, w, strides=(stride, stride), padding=((edge, edge),) * 2,
                       left_dilation=(1, 1), right_dilation=(1, 1), groups=groups)
        yield case(f"conv {channels} {wider} {side} {kernel} {stride} {groups}", product, x, w)


def main() -> None:
    behind = {"behind": True, "before": False}[sys.argv[1]]
    for name, graph, inputs in contractions():
        print(name, flush=True)
        run_guarded(graph, inputs, behind)
    for seed in map(int, sys.argv[2:]):
        print(f"random graph {seed}", flush=True)
        graph, inputs = random_graph(seed)
        run_guarded(graph, inputs, behind)


if __name__ == "__main__":
    main()
