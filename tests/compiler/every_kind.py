"""A small program for every kind of kernel, with inputs: what has to hold on every machine, for
every number of threads, and in code for machines one is not on, is asked of these.

As a program, `python -m tests.compiler.every_kind`, it compiles and runs each for the machine that
LAZYGRAD_CPU_FEATURES leaves, on as many threads as LAZYGRAD_NUM_THREADS says, compares it with the
interpreter and prints a line: name, hash of the outputs' bits, names of the widest registers.
"""

from __future__ import annotations

import hashlib
import re

import numpy

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import Stages, emit_objects, lower, make_artifact
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.test_attention import Shape
from tests.compiler.test_attention import graph_of as attention
from tests.compiler.test_columns import norm_backward
from tests.compiler.test_contraction_runs import weight_gradient
from tests.compiler.test_loop import memory_cell
from tests.compiler.test_row_buffers import softmax

Case = tuple[Graph, list[numpy.ndarray]]

WIDE = {"zmm": r"%zmm\d|%[xy]mm(?:1[6-9]|2\d|3[01])\b|%k[0-7]\b", "ymm": r"%ymm\d"}
"""Registers that only AVX-512 has (EVEX codes), and those that only AVX has."""


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def product(m: int, k: int, n: int, dtype: str = "float32") -> Graph:
    return Graph((node("dot", leaf(0, m, k, dtype=dtype), leaf(1, k, n, dtype=dtype),
                       left_contract=(1,), right_contract=(0,), left_batch=(), right_batch=()),))


def convolution(channels: int, wider: int, groups: int) -> Graph:
    x, w = leaf(0, 2, channels, 23, 23), leaf(1, wider, channels // groups, 3, 3)
    return Graph((node("conv", x, w, strides=(1, 1), padding=((1, 1),) * 2, left_dilation=(1, 1),
                       right_dilation=(1, 1), groups=groups),))


def winograd() -> Graph:
    """All parts of the op, around products of 10 and 5 tiles."""
    def part(name: str, value: Node, *geometry: int) -> Node:
        return node("winograd", value, part=name, geometry=geometry)

    windows = part("windows", leaf(0, 2, 32, 5, 19), 1, 1, 2, 5, 21)
    weights = part("weights", leaf(1, 48, 32, 3, 3), 0)
    turned = part("weights", leaf(1, 48, 32, 3, 3), 1)
    tiles = part("tiles", leaf(2, 2, 16, 8, 8), 0, 0, 2, 2, 9)
    small = part("windows", leaf(3, 2, 32, 8, 8), 1, 1, 2, 2, 9)
    products = node("dot", windows, weights, left_batch=(0,), right_batch=(0,), left_contract=(2,),
                    right_contract=(1,))
    summed = node("dot", tiles, small, left_batch=(0,), right_batch=(0,), left_contract=(1,),
                  right_contract=(1,))
    return Graph((part("image", products, 2, 5, 19), part("taps", summed), turned))


def pointwise() -> Graph:
    x, y = leaf(0, 61, 677), leaf(1, 61, 677)
    value = node("mul", node("exp", node("neg", node("mul", x, x))), node("tanh", y))
    narrow = [node("cast", value, dtype=DTYPES[name]) for name in ("float16", "bfloat16", "int32")]
    return Graph((value, node("sin", y), *narrow))


def scatter() -> Graph:
    index = leaf(2, 3000, 9, dtype="int64")
    base = node("const", value=0.0, dtype=DTYPES["float32"], shape=(64,))
    return Graph((node("scatter", base, leaf(0, 3000, 9), index, axes=(0,), mode="add"),
                  node("gather", leaf(1, 64, 33), index, axes=(0,))))


def scans() -> Graph:
    x = leaf(0, 37, 1003)
    return Graph(tuple(node("scan", x, axis=axis, combine=combine, reverse=axis == 1)
                       for axis, combine in ((0, "add"), (1, "add"), (0, "max"), (1, "max"))))


def sorts() -> Graph:
    x = leaf(0, 7, 1501)
    order = node("argsort", x, descending=False)
    whole = node("argsort", leaf(1, 40011), descending=True)
    return Graph((node("sort_values", x, order), order, whole))


def random_numbers() -> Graph:
    return Graph((node("random_bits", leaf(0, 2, dtype="int64"), shape=(17, 1001)),))


def graphs() -> dict[str, Graph]:
    """Those whose inputs may be any normal numbers, and whole ones below 64."""
    x = leaf(0, 300, 501)
    return {
        "pointwise": pointwise(),
        "row reductions": Graph((node("sum", x, axes=(1,)), node("max", x, axes=(1,)),
                                 node("argmax", x, axes=(1,)))),
        "one long reduction": Graph((node("sum", leaf(0, 300007), axes=(0,)),)),
        "row buffers": Graph((softmax(x, 1),)),
        "columns": norm_backward(700, 130),
        "transposition": Graph((node("permute", x, order=(1, 0)),)),
        "contraction": product(130, 259, 131),
        "contraction in parts of k": product(17, 6001, 33),
        "matrix and vector": product(1, 700, 650),
        "contraction float64": product(66, 300, 70, "float64"),
        "contraction bfloat16": product(66, 301, 70, "bfloat16"),
        "contraction int8": product(66, 301, 70, "int8"),
        "convolution": convolution(19, 37, 1),
        "tiles": convolution(6, 6, 6),
        "winograd": winograd(),
        "scatter and gather": scatter(),
        "scan": scans(),
        "sort": sorts(),
        "top_k": Graph((node("top_k", leaf(0, 9, 3001), k=20, largest=True),)),
    }


def drawn(graph: Graph) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(5)
    leaves = sorted(graph.inputs(), key=lambda each: each.attrs[0])
    return [generator.standard_normal(each.shape).astype(each.dtype.numpy)
            if each.dtype.is_floating
            else generator.integers(0, 64, each.shape).astype(each.dtype.numpy) for each in leaves]


def cases() -> dict[str, Case]:
    """By name: a graph and its inputs."""
    loop, leaves = memory_cell(11, False)
    steps = Graph(tuple(loop.parts()))
    generator = numpy.random.default_rng(3)
    return {
        **{name: (graph, drawn(graph)) for name, graph in graphs().items()},
        "contraction in runs": weight_gradient(2, 5, 33, (16, 40), (5, 3), padding=2),
        "attention and its gradients": attention(Shape(1, 2, 2, 150, 130, 24, 16), causal=True),
        "loop": (steps, [generator.standard_normal(each.shape) for each in leaves]),
        "random bits": (random_numbers(), [numpy.array([12345678912345, 7], numpy.int64)]),
    }


def run(stages: Stages, inputs: list[numpy.ndarray]) -> list[numpy.ndarray]:
    program = Program(make_artifact(stages, emit_objects(stages), 0.0))
    given = [Buffer.from_numpy(numpy.ascontiguousarray(array)) for array in inputs]
    buffers = program.run(given[:program.input_count])
    return [buffer.as_numpy(output.dtype.numpy, output.shape)
            for buffer, output in zip(buffers, stages.graph.outputs, strict=True)]


def assert_close(have: numpy.ndarray, want: numpy.ndarray) -> None:
    """To the last bit where these are whole numbers, else to some roundings of the largest."""
    want = numpy.asarray(want)
    if want.dtype.kind in "iub":
        numpy.testing.assert_array_equal(have, want)
        return
    unit = {8: 1e-13, 4: 2e-5}.get(want.dtype.itemsize, 1e-2)
    have, want = have.astype(numpy.float64), want.astype(numpy.float64)
    numpy.testing.assert_allclose(have, want, rtol=0, atol=unit * numpy.abs(want).max(initial=1.0))


def main() -> None:
    for name, (graph, inputs) in cases().items():
        stages = lower(graph, host())
        found = run(stages, inputs)
        for have, want in zip(found, interpret(graph, inputs), strict=True):
            assert_close(have, want)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest()[:16]
        code = stages.render("asm")
        wide = [kind for kind, pattern in WIDE.items() if re.search(pattern, code)]
        print(f"{name}: {digest} {','.join(wide)}", flush=True)


if __name__ == "__main__":
    main()
