"""Gradients of elementwise ops, movement and reductions: every rule against torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp import VJP
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import Node, node, topological
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, OPS
from tests.compiler.gradients import (
    against_differences,
    against_torch,
    const,
    leaf,
    random,
    random_complex,
)

# ---- elementwise

TORCH_NAMES = {"neg": torch.neg, "trunc": torch.trunc, "div": torch.div, "rem": torch.fmod,
               "pow": torch.pow, "atan2": torch.atan2}
UNARY = [name for name in VJP if OPS[name].kind == "elementwise" and OPS[name].arity == 1
         # of complex numbers: test_complex.py
         and name not in ("cast", "real", "imag", "conj", "polynomial")]
DOMAINS = {"sqrt": (0.1, 3), "log": (0.1, 3), "log2": (0.1, 3), "log10": (0.1, 3),
           "log1p": (-0.9, 3), "asin": (-0.95, 0.95), "acos": (-0.95, 0.95), "acosh": (1.1, 3),
           "atanh": (-0.95, 0.95), "tan": (-1.4, 1.4)}


def torch_function(name: str) -> Callable:
    return TORCH_NAMES.get(name) or getattr(torch, name)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 2)])
def test_unary(name: str, shape: tuple[int, ...]) -> None:
    low, high = DOMAINS.get(name, (-2, 2))
    against_torch(lambda x: node(name, x), torch_function(name),
                  random(*shape, low=low, high=high))


def test_polynomial() -> None:
    numbers = (1.0, -2.0, 0.5, 3.0)
    against_torch(lambda x: node("polynomial", x, coefficients=numbers),
                  lambda x: sum(c * x**k for k, c in enumerate(numbers)), random(3, 4))


@pytest.mark.parametrize("name", [*(n for n in ELEMENTARY_UNARY if n not in ("erf", "erfc")),
                                  "sqrt", "neg"])
def test_unary_complex(name: str) -> None:
    if name in ("log1p", "expm1", "exp2", "log2", "log10"):  # torch or NumPy lack some of them
        reference = {"log1p": lambda z: torch.log(1 + z), "expm1": lambda z: torch.exp(z) - 1,
                     "exp2": lambda z: torch.exp(z * math.log(2)),
                     "log2": lambda z: torch.log(z) / math.log(2),
                     "log10": lambda z: torch.log(z) / math.log(10)}[name]
    else:
        reference = torch_function(name)
    against_torch(lambda z: node(name, z), reference, random_complex(5, seed=3))


BINARY = ["add", "sub", "mul", "div", "rem", "maximum", "minimum", "atan2"]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shape", [(3, 4), (), (2, 0)])
def test_binary(name: str, shape: tuple[int, ...]) -> None:
    against_torch(lambda x, y: node(name, x, y), torch_function(name),
                  random(*shape, seed=1), random(*shape, seed=2))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
def test_binary_complex(name: str) -> None:
    against_torch(lambda x, y: node(name, x, y), torch_function(name),
                  random_complex(5, seed=1), random_complex(5, seed=2))


@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "sub"])
def test_same_operand_twice(name: str) -> None:
    against_torch(lambda x: node(name, x, x), lambda x: torch_function(name)(x, x), random(3))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_and_nan_of_extrema(name: str) -> None:
    x = np.array([1.0, 2.0, 2.0, np.nan, 1.0, np.inf])
    y = np.array([1.0, 1.0, 3.0, 1.0, np.nan, np.inf])
    against_torch(lambda x, y: node(name, x, y), torch_function(name), x, y)


def test_pow() -> None:
    against_torch(lambda x, y: node("pow", x, y), torch.pow, random(3, 4, low=0.2), random(3, 4))


def test_pow_at_its_corners() -> None:
    x = np.array([0.0, 0.0, 0.0, 0.0, 2.0, -2.0, -2.0])
    y = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 2.0, 3.0])
    against_torch(lambda x, y: node("pow", x, y), torch.pow, x, y, second=False)


def test_pow_is_flat_where_the_inverse_of_the_base_overflows() -> None:
    x, y = leaf(0, np.zeros(2)), leaf(1, np.zeros(2))
    gradient, = backward([node("pow", x, y)], [const(1.0, (2,))], [x])
    value, = evaluate([gradient], {x: np.array([1e-310, 1e-320]), y: np.zeros(2)})
    assert value.tolist() == [0.0, 0.0]


def test_mixed_second_derivative_of_pow_at_exponent_zero() -> None:
    """d²(x^y)/dx dy at y = 0 is 1/x, which masking y = 0 would lose."""
    x, y = leaf(0, np.ones(1)), leaf(1, np.ones(1))
    of_x, = backward([node("pow", x, y)], [const(1.0, (1,))], [x])
    mixed, = backward([of_x], [const(1.0, (1,))], [y])
    value, = evaluate([mixed], {x: np.array([4.0]), y: np.array([0.0])})
    assert value[0] == 0.25


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -2.0, 2.7])
def test_pow_with_constant_exponent(exponent: float) -> None:
    low = 0.2 if exponent != round(exponent) else -2.0
    against_torch(lambda x: node("pow", x, const(exponent, (5,))), lambda x: x ** exponent,
                  random(5, low=low))
    if exponent >= 0 and exponent != 0.5:
        against_torch(lambda x: node("pow", x, const(exponent, (1,))), lambda x: x ** exponent,
                      np.zeros(1), second=False)


@pytest.mark.parametrize("base", [2.0, 1.0, 0.0])
def test_pow_with_constant_base(base: float) -> None:
    against_torch(lambda y: node("pow", const(base, (5,)), y), lambda y: torch.pow(base, y),
                  random(5, low=0.1), second=base > 0)  # torch has NaN for the second at 0


def test_atan2_at_the_origin() -> None:
    against_torch(lambda y, x: node("atan2", y, x), torch.atan2, np.array([0.0, 0.0, 1.0]),
                  np.array([0.0, -1.0, 0.0]), second=False)


def test_where() -> None:
    condition = random(3, 4, seed=9) > 0
    against_torch(lambda c, x, y: node("where", c, x, y), torch.where, condition,
                  random(3, 4, seed=1), random(3, 4, seed=2))


def test_cast() -> None:
    def to(value: Node, dtype: dtypes.DType) -> Node:
        return node("cast", value, dtype=dtype)
    against_torch(lambda x: to(node("sin", to(x, dtypes.float64)), dtypes.float64),
                  lambda x: torch.sin(x.double()), random(4).astype(np.float32), second=False)
    against_torch(lambda x: to(x, dtypes.complex128), lambda x: x.to(torch.complex128), random(4))
    against_torch(lambda x: to(x, dtypes.float64), lambda x: x.real, random_complex(4))
    against_torch(lambda x: node("mul", x, to(to(x, dtypes.int64), dtypes.float64)),
                  lambda x: x * x.long().double(), random(4))


def test_gradient_has_the_dtype_of_its_node() -> None:
    for dtype in (dtypes.float16, dtypes.bfloat16, dtypes.float32):
        x = node("input", index=0, dtype=dtype, shape=(3,))
        y = node("cast", node("max", node("exp", x), axes=(0,)), dtype=dtypes.float64)
        gradient, = backward([y], [const(1.0)], [x])
        assert gradient.dtype is dtype


# ---- movement

def test_reshape_permute_expand_flip() -> None:
    x = random(2, 3, 4)
    against_torch(lambda x: node("reshape", x, shape=(6, 4)), lambda x: x.reshape(6, 4), x)
    against_torch(lambda x: node("permute", x, order=(2, 0, 1)), lambda x: x.permute(2, 0, 1), x)
    against_torch(lambda x: node("flip", x, axes=(0, 2)), lambda x: x.flip(0, 2), x)
    against_torch(lambda x: node("expand", x, shape=(5, 3, 2, 1)),
                  lambda x: x.expand(5, 3, 2, 1), random(1, 3, 1, 1))
    against_torch(lambda x: node("expand", x, shape=(0, 3)), lambda x: x.expand(0, 3), random(1, 3))
    against_torch(lambda x: node("reshape", x, shape=(1, 1)), lambda x: x.reshape(1, 1), random())


@pytest.mark.parametrize("starts, stops, steps", [
    ((0, 0), (5, 7), (1, 1)), ((1, 2), (4, 7), (1, 3)), ((0, 1), (5, 6), (2, 2)),
    ((3, 0), (3, 7), (1, 4)), ((5, 6), (5, 7), (2, 5))])
def test_slice(starts: tuple, stops: tuple, steps: tuple) -> None:
    against_torch(lambda x: node("slice", x, starts=starts, stops=stops, steps=steps),
                  lambda x: x[tuple(map(slice, starts, stops, steps))], random(5, 7))


@pytest.mark.parametrize("shape, low, high, interior", [
    ((3, 4), (1, 0), (0, 2), (0, 0)), ((3, 4), (2, 1), (1, 0), (2, 1)),
    ((1, 4), (0, 0), (0, 0), (3, 2)), ((0, 2), (1, 0), (2, 0), (4, 1)),
    ((3, 1), (0, 2), (0, 2), (0, 5))])
def test_pad(shape: tuple, low: tuple, high: tuple, interior: tuple) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        sizes = [size + a + b + max(size - 1, 0) * gap
                 for size, a, b, gap in zip(shape, low, high, interior, strict=True)]
        result = torch.full(sizes, 1.5, dtype=x.dtype)
        places = [a + torch.arange(size) * (gap + 1)
                  for size, a, gap in zip(shape, low, interior, strict=True)]
        return result.index_put(tuple(torch.meshgrid(*places, indexing="ij")), x)
    against_torch(lambda x: node("pad", x, low=low, high=high, interior=interior, value=1.5),
                  reference, random(*shape))


def test_concat() -> None:
    against_torch(lambda x, y, z: node("concat", x, y, z, x, axis=1),
                  lambda x, y, z: torch.cat([x, y, z, x], 1), random(2, 3), random(2, 0),
                  random(2, 1))


WINDOWS = [  # shape, axes, sizes, strides, dilations
    ((10,), (0,), (3,), (1,), (1,)), ((10,), (0,), (3,), (2,), (2,)),
    ((9,), (0,), (3,), (3,), (1,)), ((11,), (0,), (3,), (3,), (1,)),
    ((11,), (0,), (2,), (4,), (1,)), ((5,), (0,), (1,), (2,), (7,)),
    ((2, 6, 8), (1, 2), (2, 2), (2, 2), (1, 1)), ((2, 7, 9), (1, 2), (3, 3), (2, 2), (1, 1)),
    ((2, 7, 9), (2, 1), (2, 3), (1, 3), (3, 1)), ((7, 2, 9), (2, 0), (4, 2), (4, 3), (1, 2)),
    ((40,), (0,), (20,), (1,), (1,)), ((3, 50, 2), (1,), (18,), (3,), (2,)),
    ((0, 5), (1,), (2,), (1,), (1,)), ((60, 5), (0, 1), (20, 2), (2, 1), (3, 1)),
    ((4, 5, 6), (0, 1, 2), (2, 3, 2), (2, 1, 3), (1, 1, 1)),
]


@pytest.mark.parametrize("shape, axes, sizes, strides, dilations", WINDOWS)
def test_window(shape: tuple, axes: tuple, sizes: tuple, strides: tuple, dilations: tuple) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
            x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
        return x
    against_torch(lambda x: node("window", x, axes=axes, sizes=sizes, strides=strides,
                                 dilations=dilations), reference, random(*shape))


def test_folding_windows_that_do_not_overlap_adds_nothing() -> None:
    x = leaf(0, random(2, 6, 8))
    y = node("window", x, axes=(1, 2), sizes=(2, 2), strides=(2, 2), dilations=(1, 1))
    g = leaf(1, np.zeros(y.shape))
    gradient, = backward([y], [g], [x])
    assert [n.op for n in topological([gradient])] == ["input", "permute", "reshape"]


def test_folding_large_windows_takes_few_nodes() -> None:
    x = leaf(0, random(5000))
    y = node("window", x, axes=(0,), sizes=(1000,), strides=(3,), dilations=(2,))
    gradient, = backward([y], [leaf(1, np.zeros(y.shape))], [x])
    assert len(topological([gradient])) < 12


# ---- reductions

AXES = [((3, 4, 2), (1,)), ((3, 4, 2), (0, 2)), ((3, 4), ()), ((3, 4), (0, 1)), ((), ()),
        ((0, 3), (0,)), ((0, 3), (1,)), ((5,), (0,)), ((1, 7), (1,))]


@pytest.mark.parametrize("shape, axes", AXES)
def test_sum(shape: tuple, axes: tuple) -> None:
    against_torch(lambda x: node("sum", x, axes=axes),
                  lambda x: x.sum(axes) if axes else x.clone(), random(*shape))


@pytest.mark.parametrize("shape, axes", AXES)
def test_prod(shape: tuple, axes: tuple) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        for axis in reversed(axes):
            x = x.prod(axis)
        return x if axes else x.clone()
    if 0 not in shape:
        against_torch(lambda x: node("prod", x, axes=axes), reference, random(*shape))
    against_torch(lambda x: node("prod", x, axes=axes), reference, random(*shape), second=False)


def test_prod_complex() -> None:
    against_torch(lambda x: node("prod", x, axes=(1,)), lambda x: x.prod(1), random_complex(2, 5))


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_prod_with_zeros_to_third_order(zeros: int) -> None:
    x = random(2, 5, seed=4)
    x[0, :zeros] = 0.0
    against_torch(lambda x: node("prod", x, axes=(1,)), lambda x: x.prod(1), x, second=False)
    against_differences(lambda x: node("prod", x, axes=(1,)), x, order=3)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("shape, axes", [case for case in AXES if 0 not in case[0] and case[1]])
def test_extrema(name: str, shape: tuple, axes: tuple) -> None:
    reference = {"max": torch.amax, "min": torch.amin}[name]
    against_torch(lambda x: node(name, x, axes=axes), lambda x: reference(x, axes), random(*shape))
    against_torch(lambda x: node(name, x, axes=axes), lambda x: reference(x, axes),
                  np.round(random(*shape)))


def test_extremum_of_nan_gives_its_gradient_to_the_nan() -> None:
    x = leaf(0, np.zeros(4))
    gradient, = backward([node("max", x, axes=(0,))], [const(1.0)], [x])
    value, = evaluate([gradient], {x: np.array([1.0, np.nan, 3.0, np.nan])})
    assert value.tolist() == [0.0, 0.5, 0.0, 0.5]


def test_many_ties_in_sixteen_bits_are_counted_right() -> None:
    x = node("input", index=0, dtype=dtypes.float16, shape=(5000,))
    y = node("max", x, axes=(0,))
    gradient, = backward([y], [const(1.0, (), dtypes.float16)], [x])
    value, = evaluate([gradient], {x: np.ones(5000, np.float16)})
    assert value[0] == np.float16(1 / 5000)
