"""Gradients: every rule against torch in float64, to second order, and against differences.

A case says the same function twice, as nodes and in torch.  Both are differentiated, and the
gradients are differentiated again.  What torch has no word for (or another convention) is held
against central differences of the interpreted graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp import BLOCKING, VJP
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import dtype_of_numpy
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import IRError, Node, node, topological
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, OPS

Array = np.ndarray


def leaf(index: int, array: Array) -> Node:
    return node("input", index=index, dtype=dtype_of_numpy(array.dtype), shape=array.shape)


def const(value: float, shape: tuple = (), dtype: dtypes.DType = dtypes.float64) -> Node:
    return node("const", value=value, dtype=dtype, shape=shape)


def integers(array: object) -> Array:
    return np.asarray(array, np.int64)


def random(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def random_complex(*shape: int, seed: int = 0) -> Array:
    return random(*shape, seed=seed) + 1j * random(*shape, seed=seed + 100)


def zero_if_none(gradient: Node | None, of: Node) -> Node:
    return gradient if gradient is not None else node(
        "const", value=0.0 if of.dtype.is_floating else 0j, dtype=of.dtype, shape=of.shape)


def cotangent_for(array: Array, seed: int) -> Array:
    made = random_complex if array.dtype.kind == "c" else random
    return made(*array.shape, seed=seed).astype(array.dtype)


def plain(tensor: torch.Tensor) -> Array:
    return tensor.numpy(force=True)


def agree(ours: Array, theirs: Array, what: str, tolerance: float = 1e-9) -> None:
    assert ours.shape == theirs.shape, what
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=what)


def against_torch(ir: Callable[..., Node], reference: Callable[..., torch.Tensor],
                  *arrays: Array, second: bool = True) -> None:
    """Values, gradients, and gradients of the gradients, of all floating-point inputs."""
    leaves = [leaf(k, array) for k, array in enumerate(arrays)]
    tensors = [torch.tensor(array, requires_grad=array.dtype.kind in "fc") for array in arrays]
    places = [k for k, array in enumerate(arrays) if array.dtype.kind in "fc"]
    output, expected = ir(*leaves), reference(*tensors)
    known = dict(zip(leaves, arrays, strict=True))
    value, = evaluate([output], known)
    agree(value, plain(expected), "value")

    seed = cotangent_for(value, 7)
    seed_leaf = leaf(len(leaves), seed)
    known[seed_leaf] = seed
    seed_tensor = torch.tensor(seed, requires_grad=True)
    wanted, inputs = [leaves[k] for k in places], [tensors[k] for k in places]
    gradients = backward([output], [seed_leaf], wanted)
    theirs = torch.autograd.grad(expected, inputs, seed_tensor, create_graph=True,
                                 allow_unused=True)
    for place, ours, other in zip(places, gradients, theirs, strict=True):
        assert (ours is None) == (other is None), f"gradient {place}"
        if ours is not None:
            agree(evaluate([ours], known)[0], plain(other), f"gradient {place}")
    if not second:
        return
    found = [(ours, other) for ours, other in zip(gradients, theirs, strict=True)
             if ours is not None and other.requires_grad]
    if not found:
        return
    directions = [cotangent_for(plain(other), 20 + k) for k, (_, other) in enumerate(found)]
    direction_leaves = [leaf(len(known) + k, array) for k, array in enumerate(directions)]
    known.update(zip(direction_leaves, directions, strict=True))
    again = backward([ours for ours, _ in found], direction_leaves, [*wanted, seed_leaf])
    theirs_again = torch.autograd.grad([other for _, other in found], [*inputs, seed_tensor],
                                       [torch.tensor(d) for d in directions], allow_unused=True)
    for place, (ours, other) in enumerate(zip(again, theirs_again, strict=True)):
        of = [*wanted, seed_leaf][place]
        got = evaluate([zero_if_none(ours, of)], known)[0]
        want = np.zeros_like(got) if other is None else plain(other)
        agree(got, want, f"second gradient {place}", 1e-8)


def against_differences(ir: Callable[..., Node], *arrays: Array, order: int = 2,
                        step: float = 1e-5, tolerance: float = 1e-6) -> None:
    """Each order's directional derivative against the central difference of the order below."""
    leaves = [leaf(k, array) for k, array in enumerate(arrays)]
    places = [k for k, array in enumerate(arrays) if array.dtype.kind == "f"]
    output = ir(*leaves)
    weights: list[Array] = []

    def total(value: Node, seed: int) -> Node:
        weight = random(*value.shape, seed=seed)
        weights.append(weight)
        product = node("mul", value, leaf(len(arrays) + len(weights) - 1, weight))
        return node("sum", product, axes=tuple(range(value.ndim)))

    scalar = total(output, 50)
    for level in range(order):
        wanted = [leaves[k] for k in places]
        gradients = list(map(zero_if_none, backward([scalar], [const(1.0)], wanted), wanted))
        directions = {k: random(*arrays[k].shape, seed=60 + level, low=-1, high=1) for k in places}

        def at(distance: float, result: Node = scalar,
               directions: dict[int, Array] = directions) -> float:
            known = {leaves[k]: array if k not in directions else array + distance * directions[k]
                     for k, array in enumerate(arrays)}
            known |= {leaf(len(arrays) + k, weight): weight for k, weight in enumerate(weights)}
            return float(evaluate([result], known)[0])

        products = None
        for k, gradient in zip(places, gradients, strict=True):
            weights.append(directions[k])
            term = node("mul", gradient, leaf(len(arrays) + len(weights) - 1, directions[k]))
            term = node("sum", term, axes=tuple(range(term.ndim)))
            products = term if products is None else node("add", products, term)
        assert products is not None
        slope = (at(step) - at(-step)) / (2 * step)
        np.testing.assert_allclose(at(0.0, products), slope, rtol=tolerance, atol=tolerance,
                                   err_msg=f"order {level + 1}")
        scalar = products


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


# ---- the pass

def test_paths_that_block_and_paths_that_are_flat() -> None:
    x, y = leaf(0, random(3)), leaf(1, random(3))
    stopped = node("mul", x, node("stop_gradient", node("exp", x)))
    one = const(1.0, (3,))
    assert backward([stopped], [one], [x])[0] is node("stop_gradient", node("exp", x))
    assert backward([x], [one], [y]) == [None]
    assert backward([node("stop_gradient", x)], [one], [x]) == [None]
    assert backward([node("floor", x)], [one], [x]) == [const(0.0, (3,))]
    assert backward([node("cast", x, dtype=dtypes.int64)],
                    [const(1, (3,), dtypes.int64)], [x]) == [None]
    barrier = node("stop_gradient", x)
    both = node("mul", barrier, node("sin", x))
    of_barrier, of_x = backward([both], [one], [barrier, x])
    assert of_barrier is node("sin", x)
    assert of_x is node("mul", barrier, node("cos", x))


def test_variables_intermediates_and_outputs_can_be_wanted() -> None:
    x = leaf(0, random(3))
    parameter = node("variable", x, uid=1)
    middle = node("sin", parameter)
    y = node("exp", middle)
    g = leaf(1, random(3))
    of_x, of_parameter, of_middle, of_y = backward([y], [g], [x, parameter, middle, y])
    assert of_y is g
    assert of_middle is node("mul", g, y)
    assert of_x is of_parameter
    assert of_parameter is node("mul", of_middle, node("cos", parameter))


def test_several_outputs_and_users_are_summed() -> None:
    def total(x: Node) -> Node:
        a, b = node("sin", x), node("mul", x, x)
        g, h = const(2.0, (3,)), const(3.0, (3,))
        gradient, = backward([a, b, a], [g, h, h], [x])
        return gradient
    x = random(3)
    place = leaf(0, x)
    agree(evaluate([total(place)], {place: x})[0], 5 * np.cos(x) + 6 * x, "sum")
    assert total(place) is total(place)


def test_gradients_carry_the_forward_line() -> None:
    where = (("train.py", 12),)
    x = node("input", index=77, dtype=dtypes.float64, shape=(3,))
    y = node("tanh", x, location=where)
    gradient, = backward([y], [leaf(78, random(3))], [x])
    assert gradient.location == where


def test_only_what_is_wanted_is_computed() -> None:
    x, w = leaf(0, random(3, 4)), leaf(1, random(4, 5))
    y = node("dot", x, w, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,))
    gradient, = backward([y], [leaf(2, random(3, 5))], [w])
    assert w not in topological([gradient])


def test_a_seed_of_one_leaves_no_multiplication() -> None:
    x = leaf(0, random(3, 4))
    loss = node("sum", node("exp", x), axes=(0, 1))
    assert backward([loss], [const(1.0)], [x]) == [node("exp", x)]


def test_wrong_cotangents_are_refused() -> None:
    x = leaf(0, random(3))
    with pytest.raises(IRError, match=r"sin is float64 \(3,\), its cotangent float64 \(2,\)"):
        backward([node("sin", x)], [const(1.0, (2,))], [x])
    with pytest.raises(IRError, match="1 outputs, but 0 cotangents"):
        backward([x], [], [x])


def test_every_floating_op_has_a_rule_or_blocks() -> None:
    without = {name for name in OPS if name not in VJP} - BLOCKING
    assert without == {"input", "const", "iota", "random_bits", "not", "and", "or", "xor", "shl",
                       "shr", "idiv", "gcd", "lt", "le", "eq", "ne", "argmax", "argmin",
                       "argsort", "top_k", "select_rank", "searchsorted", "compact",
                       "winograd", "loop"}  # all results of a loop at once: `pull_back_loop`


def test_a_chain_of_fifty_thousand_nodes() -> None:
    start = leaf(0, np.ones(()))
    current = start
    for _ in range(25_000):
        current = node("neg", node("sin", current))
    gradient, = backward([current], [const(1.0)], [start])
    value, = evaluate([gradient], {start: np.zeros(())})
    assert value == 1.0


def test_as_torch_for_the_derivatives_of_a_small_network() -> None:
    def ours(x: Node, w: Node, v: Node) -> Node:
        def matmul(a: Node, b: Node) -> Node:
            return node("dot", a, b, left_batch=(), right_batch=(), left_contract=(1,),
                        right_contract=(0,))
        scores = matmul(node("tanh", matmul(x, w)), v)
        top = node("expand", node("reshape", node("max", scores, axes=(1,)), shape=(4, 1)),
                   shape=(4, 3))
        total = node("sum", node("exp", node("sub", scores, top)), axes=(1,))
        return node("log", total)

    def theirs(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.tanh(x @ w) @ v
        return (scores - scores.amax(1, keepdim=True)).exp().sum(1).log()
    against_torch(ours, theirs, random(4, 5), random(5, 6), random(6, 3))


# ---- random compositions against differences

def matrix(x: Node, y: Node) -> Node:
    return node("dot", x, y, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(1,))


def spread_rows(x: Node) -> Node:
    total = node("reshape", node("sum", x, axes=(0,)), shape=(1, 3))
    return node("expand", total, shape=(3, 3))


def neighbours(x: Node) -> Node:
    padded = node("pad", x, low=(1, 1), high=(1, 1), interior=(0, 0), value=0.5)
    windows = node("window", padded, axes=(0, 1), sizes=(3, 3), strides=(1, 1), dilations=(1, 1))
    return node("sum", windows, axes=(2, 3))


STEPS: list[Callable[[Node, Node], Node]] = [
    lambda x, y: node("sin", x), lambda x, y: node("tanh", node("add", x, y)),
    lambda x, y: node("mul", x, y), lambda x, y: node("erf", x),
    lambda x, y: node("div", x, node("add", node("mul", y, y), const(1.0, (3, 3)))),
    lambda x, y: node("tanh", matrix(x, y)), lambda x, y: spread_rows(x),
    lambda x, y: node("permute", x, order=(1, 0)), lambda x, y: neighbours(node("tanh", x)),
    lambda x, y: node("flip", x, axes=(1,)), lambda x, y: node("sub", node("atan", y), x),
    lambda x, y: node("reshape", node("prod", node("reshape", node("concat", x, y, axis=0),
                                                   shape=(3, 3, 2)), axes=(2,)), shape=(3, 3)),
    lambda x, y: node("sqrt", node("add", node("mul", x, x), const(0.5, (3, 3)))),
]


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 20), st.integers(0, 20)),
                min_size=1, max_size=8), st.integers(0, 1000))
def test_random_compositions(steps: list[tuple[int, int, int]], seed: int) -> None:
    def compose(x: Node, y: Node) -> Node:
        values = [x, y]
        for which, first, second in steps:
            values.append(STEPS[which](values[-1 - first % len(values)],
                                       values[-1 - second % len(values)]))
        return node("tanh", values[-1])
    against_differences(compose, random(3, 3, seed=seed, low=-1, high=1),
                        random(3, 3, seed=seed + 1, low=-1, high=1), tolerance=1e-5)
