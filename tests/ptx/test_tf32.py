"""float32 on the tensor cores, where that was asked for by name: as near as tf32 is, and no other
program changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import contraction_mma
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET, run_graph
from tests.ptx.support import some
from tests.ptx.test_contraction import leaf, matmul, random_inputs

ROUNDED = replace(TARGET, tf32=True)


def rounded(array: np.ndarray) -> np.ndarray:
    """To 11 bits, ties away from zero."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("left, right, sizes", some(
    [(left, right, sizes) for left in (False, True) for right in (False, True)
     for sizes in ((136, 72, 40), (33, 20, 17))],
    lambda left, right, sizes: left != right or sizes[0] == 33,
))  # fmt: skip
def test_products(left: bool, right: bool, sizes: tuple[int, int, int]) -> None:
    """Equal to products of rounded operands, summed in float32."""
    graph = Graph((matmul(dtypes.float32, *sizes, left, right, 2),))
    x, y = random_inputs(graph)
    (found,) = run_graph(graph, [x, y], ROUNDED)
    a = rounded(x).swapaxes(1, 2) if left else rounded(x)
    b = rounded(y).swapaxes(1, 2) if right else rounded(y)
    np.testing.assert_allclose(found, a @ b, rtol=1e-5, atol=1e-4)
    exact = x.astype(np.float64).swapaxes(1, 2) if left else x.astype(np.float64)
    assert not np.allclose(found, exact @ (y.swapaxes(1, 2) if right else y), rtol=1e-6, atol=1e-6)
    (kernel,) = lower(graph, ROUNDED).kernels
    assert (kernel.schedule.template, kernel.schedule.why) == ("mma.sync", "tf32 was asked for")


def test_values_computed_on_the_way() -> None:
    x, y = leaf(0, dtypes.float32, 20, 32), leaf(1, dtypes.float32, 32, 24)
    product = node("dot", node("neg", x), y, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))  # fmt: skip
    graph = Graph((node("maximum", product, node("const", value=0.0, dtype=dtypes.float32,
                                                 shape=(20, 24))),))  # fmt: skip
    a, b = random_inputs(graph)
    (found,) = run_graph(graph, [a, b], ROUNDED)
    np.testing.assert_allclose(found, np.maximum(-rounded(a) @ rounded(b), 0), atol=1e-4)


def test_what_is_not_float32_does_not_change() -> None:
    for name in ("float64", "bfloat16", "int32"):
        graph = Graph((matmul(dtypes.dtype_named(name), 64, 64, 64),))
        strict, allowed = (compile_graph(graph, target).objects for target in (TARGET, ROUNDED))
        ((name, text),), ((other, same),) = strict.items(), allowed.items()
        assert text.replace(name.encode(), other.encode()) == same
    wide = Graph((node("dot", *(node("cast", leaf(k, dtypes.float16, 32, 32), dtype=dtypes.float32)
                                for k in (0, 1)), left_batch=(), right_batch=(),
                       left_contract=(1,), right_contract=(0,)),))  # fmt: skip
    (text,) = compile_graph(wide, ROUNDED).objects.values()
    assert b".tf32" not in text


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_mma.TILES][::3], ids=str)
def test_machine_code(tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction_mma, "choose_tile", lambda kernel, target: tile)
    for arch, across in zip(ARCHITECTURES, (False, True, False), strict=True):
        target = replace(cuda_target(arch), tf32=True)
        graph = Graph((matmul(dtypes.float32, 512, 512, 512, across, across),))
        (text,) = compile_graph(graph, target).objects.values()
        assert b"cp.async.cg" in text
        made = assembled(text.decode(), arch)
        assert "HMMA.1688.F32.TF32" in made.sass()
