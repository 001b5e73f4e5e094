"""Every kind of kernel through ptxas for three architectures: no spills, no stack, no calls."""

from __future__ import annotations

import pytest

from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph
from tests.compiler.random_graphs import random_graph
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.support import in_turn
from tests.ptx.test_programs import scattered, softmax

F32, I64 = dtypes.float32, dtypes.int64


def leaf(index: int, dtype: dtypes.DType, *shape: int) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def reduced(op: str, *shape: int, axis: int, dtype: dtypes.DType = F32) -> Graph:
    return Graph((node(op, leaf(0, dtype, *shape), axes=(axis,)),))


def ordered(*shape: int, dtype: dtypes.DType = F32) -> Graph:
    x = leaf(0, dtype, *shape)
    order = node("argsort", x, descending=False)
    return Graph((order, node("sort_values", x, order)))


def running(*shape: int, axis: int, combine: str = "add") -> Graph:
    return Graph((node("scan", leaf(0, F32, *shape), axis=axis, combine=combine, reverse=False),))


GRAPHS = {
    "map": lambda: Graph((node("exp", leaf(0, F32, 1 << 20)),)),
    "halves": lambda: Graph((node("tanh", leaf(0, dtypes.bfloat16, 12345)),)),
    "turned": lambda: Graph((node("neg", node("permute", leaf(0, F32, 300, 500), order=(1, 0))),)),
    "softmax of a warp": lambda: softmax(4096, 512),
    "softmax of a block": lambda: softmax(512, 8192),
    "softmax in a loop": lambda: softmax(64, 50257),
    "sum of columns": lambda: reduced("sum", 4096, 1024, axis=0),
    "argmax": lambda: reduced("argmax", 64, 32000, axis=1),
    "product of doubles": lambda: reduced("prod", 100, 3000, axis=1, dtype=dtypes.float64),
    "sum of all": lambda: reduced("sum", 1 << 22, axis=0),
    "scatter": lambda: scattered("add", F32, (1000, 64), 5000),
    "scatter of integers": lambda: scattered("add", I64, (1000,), 5000),
    "rows in order": lambda: ordered(30, 1000),
    "long rows in order": lambda: ordered(2, 10_000, dtype=dtypes.float64),
    "the best of rows": lambda: Graph(
        (node("top_k", leaf(0, F32, 8, 50_000), k=50, largest=True),)
    ),
    "few places": lambda: scattered("add", F32, (64,), 1 << 20),
    "running sum": lambda: running(8, 100_000, axis=1),
    "running maximum across": lambda: running(5000, 300, axis=0, combine="max"),
    "running logarithms": lambda: running(30, 3000, axis=1, combine="logaddexp"),
    "positions": lambda: Graph((node("compact", leaf(0, dtypes.bool_, 50_000), count=999),)),
    "search": lambda: Graph(
        (node("searchsorted", leaf(0, F32, 99), leaf(1, F32, 70), side="left"),)
    ),
}


@pytest.mark.parametrize("kind, arch", in_turn(tuple(GRAPHS), ARCHITECTURES))
def test_kernels(kind, arch):
    for text in compile_graph(GRAPHS[kind](), cuda_target(arch)).objects.values():
        assembled(text.decode(), arch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_of_random_graphs(arch):
    for seed in range(2):
        for text in compile_graph(random_graph(seed)[0], cuda_target(arch)).objects.values():
            assembled(text.decode(), arch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 150))
def test_kernels_of_many_random_graphs(seed):
    arch = ARCHITECTURES[seed % len(ARCHITECTURES)]
    for text in compile_graph(random_graph(seed)[0], cuda_target(arch)).objects.values():
        assembled(text.decode(), arch)
