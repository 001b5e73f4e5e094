"""Contractions on a GPU: every tile of every template, all transpositions, odd sizes, prologues and
epilogues, convolutions.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import CudaTarget, cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import contraction_ffma, contraction_mma
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET, run_graph
from tests.ptx.support import some


def leaf(index: int, dtype: dtypes.DType, *shape: int) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def matmul(
    dtype: dtypes.DType, m: int, n: int, k: int, left: bool = False, right: bool = False,
    batch: int = 1,
) -> Node:  # fmt: skip
    """left, right: whether the operand is transposed."""
    x = leaf(0, dtype, batch, *((k, m) if left else (m, k)))
    y = leaf(1, dtype, batch, *((n, k) if right else (k, n)))
    return node(
        "dot", x, y, left_batch=(0,), right_batch=(0,), left_contract=(1 if left else 2,),
        right_contract=(2 if right else 1,),
    )  # fmt: skip


def random_inputs(graph: Graph) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    leaves = sorted(graph.inputs(), key=lambda each: each.attrs[0])
    return [
        (generator.standard_normal(each.shape) * (9 if each.dtype.is_integer else 1)).astype(
            each.dtype.numpy
        )
        for each in leaves
    ]


PLAIN = cuda_target("sm_90")
"""Without `wgmma`: `test_wgmma.py` is about that."""


def check(graph: Graph, tolerance: float, target: CudaTarget = TARGET) -> None:
    inputs = random_inputs(graph)
    for got, wanted in zip(run_graph(graph, inputs, target), interpret(graph, inputs), strict=True):
        a, b = got.astype(np.float64), wanted.astype(np.float64)
        largest = abs(b).max() if b.size else 0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(largest, 1e-30))


TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "int32": 0, "int64": 0, "uint8": 0,
              "float16": 2e-3, "bfloat16": 1.6e-2}  # fmt: skip


@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_transpositions_and_odd_sizes(name, left, right):
    dtype = dtypes.dtype_named(name)
    for m, n, k, batch in ((33, 40, 64, 1), (17, 50, 31, 3), (2, 3, 5, 2)):
        check(Graph((matmul(dtype, m, n, k, left, right, batch),)), TOLERANCES[name])


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_mma.TILES], ids=str)
def test_tensor_core_tiles(tile, monkeypatch):
    monkeypatch.setattr(contraction_mma, "choose_tile", lambda kernel, target: tile)
    bfloat16 = dtypes.bfloat16
    graphs = [
        Graph((matmul(bfloat16, 136, 144, 160, False, False),)),
        Graph((matmul(bfloat16, 130, 70, 70, True, True),)),
    ]
    for graph in graphs:
        check(graph, TOLERANCES["bfloat16"], PLAIN)
        (text,) = compile_graph(graph, PLAIN).objects.values()
        assert b"mma.sync.aligned.m16n8k16" in text
        assembled(text.decode(), "sm_90a")


@pytest.mark.parametrize("name, size", some(
    itertools.product(("float32", "float64"), contraction_ffma.TILES),
    lambda name, size: name == "float32" or size in ((64, 64, 16), (16, 64, 16)),
))  # fmt: skip
def test_ffma_tiles(size, name, monkeypatch):
    m, n, depth = size
    if name == "float64" and max(m, n) > 64:
        pytest.skip("sums of float64 take twice the registers")
    tile = contraction_ffma.FfmaTile(m, n, depth if name == "float32" else depth // 2)
    monkeypatch.setattr(contraction_ffma, "choose_tile", lambda kernel, target: tile)
    for graph in (
        Graph((matmul(dtypes.dtype_named(name), 132, 136, 20),)),
        Graph((matmul(dtypes.dtype_named(name), 65, 33, 9, True, True, 2),)),
    ):
        check(graph, TOLERANCES[name])
        (text,) = compile_graph(graph, TARGET).objects.values()
        assembled(text.decode(), "sm_90a")


def test_what_lies_in_whole_pieces_is_copied_past_the_registers():
    def text(*sizes: int) -> bytes:
        (made,) = compile_graph(Graph((matmul(dtypes.bfloat16, *sizes),)), PLAIN).objects.values()
        return made

    assert b"cp.async.cg" in text(64, 64, 64)
    assert b"cp.async.cg" not in text(65, 63, 63)


def test_operands_that_were_only_widened_meet_on_the_tensor_cores():
    x, y = leaf(0, dtypes.bfloat16, 40, 32), leaf(1, dtypes.bfloat16, 32, 48)
    wide = [node("cast", value, dtype=dtypes.float32) for value in (x, y)]
    product = node("dot", *wide, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))  # fmt: skip
    graph = Graph((product,))
    check(graph, 1e-5)
    (kernel,) = lower(graph, TARGET).kernels
    assert kernel.schedule.template == "mma.sync"


@pytest.mark.parametrize("name, batch", [("float32", 1), ("bfloat16", 2)])
def test_few_results_over_a_long_depth_are_summed_in_slices(name, batch):
    dtype = dtypes.dtype_named(name)
    graph = Graph((matmul(dtype, 20, 24, 2048, True, False, batch),))
    check(graph, TOLERANCES[name])
    first, _ = lower(graph, TARGET).launches
    assert first.kernel.kind == "contraction" and first.kernel.batch.extent == 2 * batch
    whole = lower(Graph((matmul(dtype, 2048, 2048, 4096),)), TARGET)
    assert len(whole.launches) == 1


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_prologue_and_epilogue(name):
    """relu(gelu-like(x) @ w + bias), with a transposed result beside it."""
    dtype = dtypes.dtype_named(name)
    x, w, bias = leaf(0, dtype, 50, 48), leaf(1, dtype, 48, 40), leaf(2, dtype, 40)
    product = node("dot", node("tanh", x), w, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))  # fmt: skip
    shifted = node("add", product, node("expand", node("reshape", bias, shape=(1, 40)),
                                        shape=(50, 40)))  # fmt: skip
    zero = node("const", value=0.0, dtype=dtype, shape=(50, 40))
    result = node("maximum", shifted, zero)
    turned = node("permute", result, order=(1, 0))
    check(Graph((result, node("neg", turned))), TOLERANCES[name])


@pytest.mark.parametrize("name", ["float32", "float16"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [5, 12])
def test_convolutions(name, groups, size):
    dtype = dtypes.dtype_named(name)
    x, w = leaf(0, dtype, 2, 4, size, size), leaf(1, dtype, 6, 4 // groups, 3, 3)
    conv = node(
        "conv", x, w, strides=(1, 2), padding=((1, 1), (2, 0)), left_dilation=(1, 1),
        right_dilation=(1, 1), groups=groups,
    )  # fmt: skip
    check(Graph((conv,)), TOLERANCES[name])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_takes_both_templates(arch):
    narrow = b"wgmma.mma_async" if arch == "sm_90a" else b"mma.sync"
    for name, template in (("float32", b"fma.rn.f32"), ("bfloat16", narrow)):
        graph = Graph((matmul(dtypes.dtype_named(name), 128, 128, 64),))
        (text,) = compile_graph(graph, cuda_target(arch)).objects.values()
        assert template in text
        assembled(text.decode(), arch)
