"""Gradients of contractions, gather and scatter against torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node, node, topological
from tests.compiler.gradients import (
    against_differences,
    against_torch,
    integers,
    leaf,
    random,
    random_complex,
)

# ---- contractions

DOTS = [  # left, right, left batch, right batch, left contract, right contract, einsum
    ((3, 4), (4, 5), (), (), (1,), (0,), "ij,jk->ik"),
    ((3, 4), (5, 4), (), (), (1,), (1,), "ij,kj->ik"),
    ((4, 3), (4, 5), (), (), (0,), (0,), "ji,jk->ik"),
    ((4,), (4,), (), (), (0,), (0,), "i,i->"),
    ((3,), (4,), (), (), (), (), "i,j->ij"), ((), (), (), (), (), (), ",->"),
    ((2, 3, 4), (2, 4, 5), (0,), (0,), (2,), (1,), "bij,bjk->bik"),
    ((3, 2, 4), (5, 4, 2), (1,), (2,), (2,), (1,), "ibj,kjb->bik"),
    ((2, 3, 4, 5), (5, 3, 6, 4), (), (), (1, 3), (1, 0), "aibj,jicd->abcd"),
    ((2, 3, 4, 5, 6), (6, 3, 7, 2, 5), (0, 1), (3, 1), (4, 3), (0, 4), "abxij,jbyai->abxy"),
    ((0, 3), (3, 4), (), (), (1,), (0,), "ij,jk->ik"),
    ((3, 0), (0, 4), (), (), (1,), (0,), "ij,jk->ik"),
]


@pytest.mark.parametrize("left, right, lb, rb, lc, rc, names", DOTS)
@pytest.mark.parametrize("is_complex", [False, True])
def test_dot(left: tuple, right: tuple, lb: tuple, rb: tuple, lc: tuple, rc: tuple, names: str,
             is_complex: bool) -> None:
    make = random_complex if is_complex else random
    against_torch(
        lambda x, y: node("dot", x, y, left_batch=lb, right_batch=rb, left_contract=lc,
                          right_contract=rc),
        lambda x, y: torch.einsum(names, x, y), make(*left, seed=1), make(*right, seed=2))


@pytest.mark.parametrize("left, right, lc, rc", [
    ((3, 4), (4, 5), (1,), (0,)), ((3, 4), (5, 4), (1,), (1,)), ((4, 3), (4, 5), (0,), (0,))])
def test_matrix_products_need_no_permute(left: tuple, right: tuple, lc: tuple, rc: tuple) -> None:
    x, y = leaf(0, random(*left)), leaf(1, random(*right))
    product = node("dot", x, y, left_batch=(), right_batch=(), left_contract=lc, right_contract=rc)
    gradients = backward([product], [leaf(2, np.zeros(product.shape))], [x, y])
    assert {n.op for n in topological(gradients)} == {"input", "dot"}


def spread_out(x: torch.Tensor, gaps: Sequence[int]) -> torch.Tensor:
    """Zeros between the elements of the space axes: left dilation."""
    for axis, gap in enumerate(gaps, 2):
        size = (x.shape[axis] - 1) * gap + 1
        shape = [*x.shape[:axis], size, *x.shape[axis + 1:]]
        x = torch.zeros(shape, dtype=x.dtype).index_copy(
            axis, torch.arange(x.shape[axis]) * gap, x)
    return x


CONVS = [  # value, weight, strides, padding, left dilation, right dilation, groups
    ((2, 3, 8), (4, 3, 3), (1,), ((0, 0),), (1,), (1,), 1),
    ((2, 4, 9), (6, 2, 3), (2,), ((1, 2),), (1,), (2,), 2),
    ((2, 3, 7), (4, 3, 2), (3,), ((2, 1),), (2,), (2,), 1),
    ((1, 2, 9), (2, 2, 3), (1,), ((-2, 3),), (1,), (1,), 1),
    ((1, 2, 9), (2, 2, 3), (2,), ((3, -4),), (2,), (1,), 1),
    ((2, 3, 6, 5), (4, 3, 3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1), (1, 1), 1),
    ((2, 4, 6, 5), (4, 1, 3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1), (1, 1), 4),
    ((1, 6, 7, 8), (4, 3, 2, 3), (3, 2), ((0, 2), (3, 1)), (1, 2), (2, 1), 2),
    ((2, 2, 4, 4, 3), (3, 2, 2, 1, 3), (2, 1, 1), ((0, 0), (0, 0), (1, 1)), (1, 1, 1),
     (1, 1, 1), 1),
    ((0, 2, 5), (3, 2, 3), (1,), ((0, 0),), (1,), (1,), 1),
]


@pytest.mark.parametrize("value, weight, strides, padding, ld, rd, groups", CONVS)
def test_conv(value: tuple, weight: tuple, strides: tuple, padding: tuple, ld: tuple, rd: tuple,
              groups: int) -> None:
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(value)]

    def reference(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        flat = [amount for pair in reversed(padding) for amount in pair]
        return convolve(F.pad(spread_out(x, ld), flat), w, stride=strides, dilation=rd,
                        groups=groups)
    against_torch(lambda x, w: node("conv", x, w, strides=strides, padding=padding,
                                    left_dilation=ld, right_dilation=rd, groups=groups),
                  reference, random(*value, seed=1), random(*weight, seed=2))


def test_conv_of_nothing() -> None:
    def conv(x: Node, w: Node) -> Node:
        return node("conv", x, w, strides=(1,), padding=((2, 2),), left_dilation=(1,),
                    right_dilation=(1,), groups=1)
    for value, weight in [((1, 2, 0), (3, 2, 2)), ((1, 0, 5), (3, 0, 2)), ((2, 2, 5), (0, 2, 2))]:
        against_differences(conv, random(*value), random(*weight), order=1)


# ---- gather and scatter

ROWS = integers([[0, 3, -1], [0, 0, 2]])


def test_gather() -> None:
    x, rows, columns = random(4, 5, 2), ROWS, integers([[1, -5, 4], [1, 2, 0]])
    against_torch(lambda x, i: node("gather", x, i, axes=(0,)), lambda x, i: x[i], x, rows)
    against_torch(lambda x, i, j: node("gather", x, i, j, axes=(0, 1)), lambda x, i, j: x[i, j],
                  x, rows, columns)
    against_torch(lambda x, i, j: node("gather", x, i, j, axes=(1, 0)), lambda x, i, j: x[j, i],
                  x, columns, rows)
    against_torch(lambda x, i: node("gather", x, i, axes=(1,)),
                  lambda x, i: x.movedim(1, 0)[i], x, rows)
    against_torch(lambda x, i: node("gather", x, i, axes=(0,)), lambda x, i: x[i], x, integers([]))
    against_torch(lambda x, i: node("gather", x, i, axes=(0,)), lambda x, i: x[i], x, integers(-2))


def scatter(mode: str, *axes: int) -> Callable[..., Node]:
    return lambda base, updates, *indices: node("scatter", base, updates, *indices, axes=axes,
                                                mode=mode)


def test_scatter_add_and_distinct_set() -> None:
    base, updates = random(4, 5), random(2, 3, 5, seed=1)
    against_torch(scatter("add", 0), lambda b, u, i: b.index_put((i,), u, accumulate=True),
                  base, updates, ROWS)
    against_torch(scatter("set", 0), lambda b, u, i: b.index_put((i,), u),
                  base, random(3, 5), integers([2, 0, -1]))
    against_torch(scatter("set", 1, 0), lambda b, u, i, j: b.index_put((j, i), u),
                  base, random(3), integers([2, 0, -1]), integers([2, 2, 2]))
    against_torch(scatter("set", 1), lambda b, u, i: torch.cat([b[:, :2], u[:, None], b[:, 3:]], 1),
                  base, random(4), integers(2))


@pytest.mark.parametrize("mode", ["add", "set", "mul", "max", "min"])
def test_scatter_with_updates_that_meet(mode: str) -> None:
    base, updates = random(4, 5), random(2, 3, 5, seed=1)
    against_differences(scatter(mode, 0), base, updates, ROWS)
    against_differences(scatter(mode, 1), random(3, 4), random(2, 3, 3, seed=2), ROWS)
    against_differences(scatter(mode, 1, 0), base, random(5, seed=3), integers([0, 1, 1, -4, 4]),
                        integers([2, -1, 3, 3, 0]))
    against_differences(scatter(mode, 0), base, random(0, 5), integers([]))
    against_differences(scatter(mode, 0), base, random(5), integers(3))


def test_set_at_iota_indices_needs_no_search() -> None:
    base, updates = leaf(0, random(4, 5)), leaf(1, random(3, 5))
    rows = node("iota", axis=0, dtype=dtypes.int64, shape=(3,))
    y = node("scatter", base, updates, rows, axes=(0,), mode="set")
    gradient, = backward([y], [leaf(2, random(4, 5))], [updates])
    assert {n.op for n in topological([gradient])} == {"input", "iota", "gather"}


@pytest.mark.parametrize("zeros", [(), (0,), (0, 1), (0, 1, 2)])
def test_scatter_mul_with_zeros(zeros: tuple[int, ...]) -> None:
    updates = random(4, low=0.5)
    updates[list(zeros)] = 0.0
    order = 2 if len(zeros) <= 1 else 1
    against_differences(scatter("mul", 0), random(3), updates, integers([1, 1, 1, 0]), order=order)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_scatter_extremum_shares_among_ties(mode: str) -> None:
    base, updates = np.array([1.0, 2.0, 3.0, 2.0]), np.array([1.0, 2.0, 2.0, 1.0, 5.0])
    against_torch(scatter(mode, 0), lambda b, u, i: b.scatter_reduce(0, i, u, "a" + mode),
                  base, updates, integers([0, 1, 1, 0, 3]), second=False)
