"""How far a right answer may lie from the interpreter's: forward error analysis, node by node.

Compiled code may add in another order, contract x * y + z, and be 2 ulp off in elementary
functions.  `analyse(graph, inputs)` gives each node's value and, element by element, the error that
these liberties allow; zero where every bit is fixed (integers, movement, comparisons, single IEEE
operations).  What would make a comparison meaningless raises IllConditioned: a rounded value that
decides a branch, cancellation that leaves only noise, an overflow that depends on order.

`check(graph, inputs, got)` compares outputs by these bounds; `assert_close` compares one array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, OPS
from lazygrad_compiler.ir.reference import REFERENCE

Array = numpy.ndarray

PRECISION = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53, "complex64": 24,
             "complex128": 53}
LOWEST_EXPONENT = {"float16": -24, "bfloat16": -133, "float32": -149, "float64": -1074,
                   "complex64": -149, "complex128": -1074}
HIGHEST = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "float64": 1e308, "complex64": 1e19,
           "complex128": 1e154}
ELEMENTARY_ULPS = 6.0
"""Ours may be 2 off, NumPy's float32 vector functions up to 4."""

ILL_CONDITIONED = 0.05
"""Errors beyond this part of the array's largest value make a comparison say nothing."""


class IllConditioned(Exception):
    """The node's value cannot be compared: small liberties below it make large differences."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Allowed absolute errors (float64, the node's shape); product: may fuse with an add."""

    error: Array
    product: bool = False

    @property
    def exact(self) -> bool:
        return not self.error.any()


def ulp(value: Array, dtype: DType) -> Array:
    """The distance to the next number, roughly, in float64."""
    spacing = 2.0 ** (1 - PRECISION[dtype.name])
    return numpy.maximum(magnitude(value) * spacing, 2.0 ** LOWEST_EXPONENT[dtype.name])


def wide(value: Array) -> Array:
    """As float64, or complex as it is."""
    with numpy.errstate(invalid="ignore"):
        return value if value.dtype.kind == "c" else value.astype(numpy.float64)


def magnitude(value: Array) -> Array:
    return numpy.abs(wide(value))


# ---- one node


def bound_of(node: Node, inputs: Sequence[Array], bounds: Sequence[Bound], value: Array) -> Bound:
    """The allowed errors of a node's value, given its inputs'; IllConditioned where none hold."""
    with numpy.errstate(all="ignore"):
        fuzzy = any(not bound.exact for bound in bounds)
        if not node.dtype.is_differentiable:
            if fuzzy:
                check_decision(node, inputs, bounds)
            return Bound(numpy.zeros(node.shape))
        error, product = propagate(node, inputs, bounds, value, fuzzy)
        finite = numpy.isfinite(value.astype(numpy.complex128 if node.dtype.is_complex
                                             else numpy.float64))
        error = numpy.where(finite, error, 0.0)
        if not error.any():
            return Bound(error, product)
        if fuzzy and OPS[node.op].kind not in ("movement", "indexed", "marker"):
            check_overflow(node, inputs, value, finite)
        largest = magnitude(value)[finite].max(initial=0.0)
        if not numpy.isfinite(error).all() or error.max() > max(
                ILL_CONDITIONED * largest, 4 * 2.0 ** LOWEST_EXPONENT[node.dtype.name]):
            raise IllConditioned(f"{node!r}: error {error.max()} of {largest}")
        return Bound(error, product)


def check_decision(node: Node, inputs: Sequence[Array], bounds: Sequence[Bound]) -> None:
    """A discrete result must not hang on a rounded value."""
    if node.op in ("lt", "le", "eq", "ne"):
        left, right = (wide(value) for value in inputs)
        if not (magnitude(left - right) <= 2 * (bounds[0].error + bounds[1].error)).any():
            return
    elif OPS[node.op].kind in ("movement", "marker"):
        return
    raise IllConditioned(f"{node!r} decides by a rounded value")


def check_overflow(node: Node, inputs: Sequence[Array], value: Array, finite: Array) -> None:
    inputs_finite = all(numpy.isfinite(wide(array)).all() for array in inputs)
    if (inputs_finite and not finite.all()) or (
            magnitude(value)[finite].max(initial=0.0) > HIGHEST[node.dtype.name] / 4):
        raise IllConditioned(f"{node!r} may or may not overflow")


def propagate(node: Node, inputs: Sequence[Array], bounds: Sequence[Bound], value: Array,
              fuzzy: bool) -> tuple[Array, bool]:
    """The errors, before non-finite values and conditioning are looked at, and `product`."""
    op, errors = node.op, [bound.error for bound in bounds]
    product = any(bound.product for bound in bounds)
    if OPS[op].kind in ("leaf", "marker"):
        return (errors[0] if OPS[op].kind == "marker" else numpy.zeros(node.shape)), product
    if op == "pad":
        return padded(node, errors[0]), product
    if op in COMPLEX_BOUNDS and (node.dtype.is_complex or inputs[0].dtype.kind == "c"):
        return COMPLEX_BOUNDS[op](node, inputs, errors, value), False
    if OPS[op].kind == "movement" or op == "gather":
        return REFERENCE[op](node, [errors[0], *inputs[1:]] if op == "gather" else errors), product
    if op in ELEMENTWISE_BOUNDS:
        error = ELEMENTWISE_BOUNDS[op](node, [wide(v) for v in inputs], bounds, value)
        return error, op in PRODUCTS or (product and op not in ("add", "sub", "cast"))
    if op in ELEMENTARY_UNARY or op in ("pow", "atan2", "sigmoid"):
        return perturbed(node, inputs, errors) + ELEMENTARY_ULPS * ulp(value, node.dtype), False
    if op == "sqrt":
        return (perturbed(node, inputs, errors) + ulp(value, node.dtype)) * fuzzy, False
    if op in ("sum", "prod", "max", "min"):
        return reduced(node, wide(inputs[0]), errors[0], value), False
    if op in ("dot", "conv"):
        return contracted(node, inputs, errors, value), False
    if op == "scatter":
        return scattered(node, inputs, errors, value), False
    if op == "scan":
        return scanned(node, inputs[0], errors[0], value), False
    if fuzzy:  # floor, sign, rem, bitcast, and whatever is new: only of exact values
        raise IllConditioned(f"{node!r} of a rounded value")
    return numpy.zeros(node.shape), False


PRODUCTS = ("mul", "div")


def padded(node: Node, error: Array) -> Array:
    low, _, interior, _ = node.attrs
    result = numpy.zeros(node.shape)
    result[tuple(slice(start, start + size + max(size - 1, 0) * gap, gap + 1)
                 for start, size, gap in zip(low, error.shape, interior, strict=True))] = error
    return result


def _sum_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    error = bounds[0].error + bounds[1].error
    for array, bound in zip(inputs, bounds):
        if bound.product:
            error = error + ulp(array, node.dtype)
    return numpy.where(error > 0, error + ulp(value, node.dtype), 0.0)


def _mul_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    (x, y), (dx, dy) = [magnitude(v) for v in inputs], [bound.error for bound in bounds]
    error = numpy.where(dy > 0, x * dy, 0) + numpy.where(dx > 0, y * dx, 0) + dx * dy
    if node.dtype.is_complex:
        return error + 4 * ulp(value, node.dtype)
    return numpy.where(error > 0, error + ulp(value, node.dtype), 0.0)


def _div_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    (x, y), (dx, dy) = [magnitude(v) for v in inputs], [bound.error for bound in bounds]
    least = numpy.maximum(y - dy, 0)
    error = numpy.where(dx > 0, dx / least, 0) + numpy.where(dy > 0, x * dy / (y * least), 0)
    if node.dtype.is_complex:
        return error + 8 * ulp(value, node.dtype)
    return numpy.where(error > 0, error + ulp(value, node.dtype), 0.0)


def _larger_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    both_zero = (inputs[0] == 0) & (inputs[1] == 0)
    if (both_zero & (numpy.signbit(inputs[0]) != numpy.signbit(inputs[1]))).any():
        raise IllConditioned(f"{node!r} of 0.0 and -0.0")
    return numpy.maximum(bounds[0].error, bounds[1].error)


def _choice_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    return numpy.where(inputs[0] != 0, bounds[1].error, bounds[2].error)


def _same_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    return bounds[0].error


def _cast_bound(node: Node, inputs: list[Array], bounds: Sequence[Bound], value: Array) -> Array:
    error, source = bounds[0].error, node.inputs[0].dtype
    if node.dtype.name == "bfloat16" and source.bits >= 32 and source.name != "float32":
        error = error + ulp(value, node.dtype)  # the interpreter rounds twice, by way of float32
    return numpy.where(error > 0, error + ulp(value, node.dtype), 0.0)


ELEMENTWISE_BOUNDS = {
    "add": _sum_bound, "sub": _sum_bound, "mul": _mul_bound, "div": _div_bound,
    "maximum": _larger_bound, "minimum": _larger_bound, "where": _choice_bound,
    "neg": _same_bound, "abs": _same_bound, "cast": _cast_bound,
}


def _of_function(ulps: float) -> Callable[..., Array]:
    def bound(node: Node, inputs: Sequence[Array], errors: Sequence[Array], value: Array) -> Array:
        return perturbed(node, inputs, errors) + ulps * ulp(value, node.dtype)
    return bound


def _joined(node: Node, value: Array, error: Array) -> Array:
    if (error[~numpy.isfinite(value)] > 0).any():
        raise IllConditioned(f"{node!r}: a rounded part beside one that is not finite")
    return error


COMPLEX_BOUNDS: dict[str, Callable[..., Array]] = {
    "real": lambda node, inputs, errors, value: errors[0],
    "imag": lambda node, inputs, errors, value: errors[0],
    "conj": lambda node, inputs, errors, value: errors[0],
    "complex": lambda node, inputs, errors, value: _joined(node, value, errors[0] + errors[1]),
    "view_as_real": lambda node, inputs, errors, value: numpy.stack([errors[0]] * 2, axis=-1),
    "view_as_complex": lambda node, inputs, errors, value: _joined(
        node, value, errors[0].sum(axis=-1)),
    "abs": lambda node, inputs, errors, value: errors[0] + 2 * ulp(value, node.dtype),
    "sign": _of_function(4.0),
    "sqrt": _of_function(4.0),
}
"""Ops of complex numbers that round where the same op of real ones does not, or has no twin."""


def perturbed(node: Node, inputs: Sequence[Array], errors: Sequence[Array]) -> Array:
    """How far the function moves when its arguments do: by trying the ends."""
    at = REFERENCE[node.op](node, [wide(value) for value in inputs])
    worst = numpy.zeros(node.shape)
    if any(error.any() for error in errors):
        for signs in numpy.ndindex(*[2] * len(inputs)):
            moved = REFERENCE[node.op](node,
                                       [wide(value) + (2 * sign - 1) * error for value, error, sign
                                              in zip(inputs, errors, signs)])
            if (numpy.isnan(moved) != numpy.isnan(at)).any():
                raise IllConditioned(f"{node!r} at the border of its domain")
            worst = numpy.fmax(worst, numpy.where(moved == at, 0, magnitude(moved - at)))
    return 1.5 * worst


def accumulator_unit(dtype: DType) -> float:
    """The relative rounding error of one addition: 16-bit floats add in float32."""
    return 2.0 ** -max(24, PRECISION[dtype.name])


def reduced(node: Node, x: Array, error: Array, value: Array) -> Array:
    axes, dtype = node.attrs[0], node.dtype
    count = math.prod(x.shape[axis] for axis in axes)
    if node.op in ("max", "min"):
        zeros = x == 0
        negative = numpy.signbit(x)
        if ((zeros & negative).any(axis=axes) & (zeros & ~negative).any(axis=axes)).any():
            raise IllConditioned(f"{node!r} of 0.0 and -0.0")
        return error.max(axis=axes, initial=0.0)
    unit = accumulator_unit(dtype)
    sizes = magnitude(x)
    if node.op == "sum":
        total = sizes.sum(axis=axes)
        result = error.sum(axis=axes) + (count + 2) * unit * total
    else:
        relative = numpy.where(error > 0, error / sizes, 0).sum(axis=axes)
        total = numpy.maximum(sizes, 1).prod(axis=axes)
        result = (numpy.expm1(relative) + 4 * (count + 2) * unit) * magnitude(value)
    check_total(node, total)
    return result + ulp(value, dtype)


def scanned(node: Node, x: Array, error: Array, value: Array) -> Array:
    """As of reductions, for each element of what came before it."""
    axis, combine, reverse = node.attrs

    def along(ufunc: numpy.ufunc, array: Array) -> Array:
        turned = numpy.flip(array, axis) if reverse else array
        result = ufunc.accumulate(turned, axis=axis)
        return numpy.flip(result, axis) if reverse else result

    if combine in ("max", "min"):
        zero_signs = numpy.signbit(x[x == 0])
        if zero_signs.any() and not zero_signs.all():
            raise IllConditioned(f"{node!r} of 0.0 and -0.0")
        return along(numpy.maximum, error)
    unit, count = accumulator_unit(node.dtype), node.shape[axis]
    sizes = magnitude(x)
    if combine == "add":
        total = along(numpy.add, sizes)
        result = along(numpy.add, error) + (count + 2) * unit * total
    elif combine == "mul":
        relative = along(numpy.add, numpy.where(error > 0, error / sizes, 0))
        total = along(numpy.multiply, numpy.maximum(sizes, 1))
        result = (numpy.expm1(relative) + 4 * (count + 2) * unit) * magnitude(value)
    else:
        total = numpy.abs(value)
        largest = along(numpy.maximum, numpy.where(numpy.isfinite(sizes), sizes, 0))
        result = along(numpy.maximum, error) + (count + 2) * unit * (
            ELEMENTARY_ULPS * 2 * (1 + largest))
    check_total(node, total)
    return result + ulp(value, node.dtype)


def check_total(node: Node, total: Array) -> None:
    if (numpy.isfinite(total) & (total > HIGHEST[node.dtype.name] / 4)).any():
        raise IllConditioned(f"{node!r}: whether it overflows depends on the order")


def contracted(node: Node, inputs: Sequence[Array], errors: Sequence[Array], value: Array) -> Array:
    left, right = (magnitude(array) for array in inputs)
    compute = REFERENCE[node.op]
    if node.op == "dot":
        count = math.prod(left.shape[axis] for axis in node.attrs[2])
    else:
        count = math.prod(right.shape[1:])
    total = compute(node, [left, right])
    check_total(node, total)
    result = (count + 2) * accumulator_unit(node.dtype) * total
    for ours, theirs in ((errors[0], right), (left, errors[1]), (errors[0], errors[1])):
        if ours.any() and theirs.any():
            result = result + compute(node, [ours, theirs])
    factor = 4 if node.dtype.is_complex else 1
    # contracted to fma, a product is not rounded; where it is subnormal that is no relative error
    subnormal = count * 2.0 ** LOWEST_EXPONENT[node.dtype.name]
    return factor * (result + subnormal) + ulp(value, node.dtype)


def scattered(node: Node, inputs: Sequence[Array], errors: Sequence[Array], value: Array) -> Array:
    mode, compute, indices = node.attrs[1], REFERENCE["scatter"], inputs[2:]
    if mode == "set":
        return compute(node, [errors[0], errors[1], *indices])
    base, updates = magnitude(inputs[0]), magnitude(inputs[1])
    if mode == "add":
        total = compute(node, [base, updates, *indices])
        check_total(node, total)
        return (compute(node, [errors[0], errors[1], *indices])
                + 64 * accumulator_unit(node.dtype) * total + ulp(value, node.dtype))
    if errors[0].any() or errors[1].any():
        raise IllConditioned(f"{node!r} of rounded values")
    if mode == "mul":
        return 64 * accumulator_unit(node.dtype) * magnitude(value) + ulp(value, node.dtype)
    joined = numpy.concatenate([wide(inputs[0]).ravel(), wide(inputs[1]).ravel()])
    signs = numpy.signbit(joined[joined == 0])
    if signs.any() and not signs.all():
        raise IllConditioned(f"{node!r} of 0.0 and -0.0")
    return numpy.zeros(node.shape)


# ---- whole graphs


def compute_node(node: Node, inputs: Sequence[Array]) -> Array:
    """The interpreter's value of one node."""
    with numpy.errstate(all="ignore"):
        result = numpy.asarray(REFERENCE[node.op](node, inputs))
        return result.astype(node.dtype.numpy, copy=False).reshape(node.shape)


def analyse(graph: Graph, inputs: Sequence[Array]) -> list[tuple[Array, Bound]]:
    """Value and allowed errors of each output; IllConditioned where a node has none."""
    known: dict[Node, tuple[Array, Bound]] = {}
    for current in graph.nodes():
        if current.op == "input":
            known[current] = inputs[current.attrs[0]], Bound(numpy.zeros(current.shape))
            continue
        values = [known[operand][0] for operand in current.inputs]
        value = compute_node(current, values)
        bounds = [known[operand][1] for operand in current.inputs]
        known[current] = value, bound_of(current, values, bounds, value)
    return [known[output] for output in graph.outputs]


def assert_close(node: Node, got: Array, expected: Array, error: Array | None = None) -> None:
    """Dtype and shape must be right, and values within the allowed errors of the expected ones.

    error: allowed absolute errors; without them, integers and bools must be equal and floats agree
    to 64 ulp of the array's largest.  Where no error is allowed, the sign of zero counts; any NaN
    equals any NaN.
    """
    got = numpy.asarray(got)
    assert got.dtype == node.dtype.numpy, f"{node!r} came out as {got.dtype}"
    assert got.shape == node.shape, f"{node!r} came out as {got.shape}"
    if not node.dtype.is_differentiable:
        numpy.testing.assert_array_equal(got, expected, err_msg=repr(node))
        return
    with numpy.errstate(all="ignore"):
        left, right = (wide(array) for array in (got, expected))
        if error is None:
            largest = magnitude(right)[numpy.isfinite(right)].max(initial=0.0)
            error = numpy.full(node.shape, 64 * ulp(largest, node.dtype))
        same = (left == right) | (numpy.isnan(left) & numpy.isnan(right))
        if not node.dtype.is_complex:
            same &= (error > 0) | (left != 0) | (numpy.signbit(left) == numpy.signbit(right))
        wrong = ~same & ~(magnitude(left - right) <= error)
    if wrong.any():
        place = tuple(int(number) for number in numpy.argwhere(wrong)[0])
        raise AssertionError(
            f"{node!r} differs in {wrong.sum()} of {wrong.size} places; at {place} it is "
            f"{got[place]!r} and should be {expected[place]!r}, give or take {error[place]:.3g}"
        )


def check(graph: Graph, inputs: Sequence[Array], got: Sequence[Array]) -> None:
    """Compares outputs with the interpreter's, each element within what error analysis allows."""
    results = analyse(graph, inputs)
    assert len(got) == len(results)
    for output, array, (expected, bound) in zip(graph.outputs, got, results, strict=True):
        assert_close(output, array, expected, bound.error)
