"""What every op means, in NumPy: the oracle of the compiler.

`REFERENCE[op](node, inputs) -> array` takes NumPy arrays of the inputs and gives the result with
the node's dtype and shape. Clarity comes before speed here.  16-bit floats compute in float32 and
round once an op.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir import (
    dtypes,
    reference_attention,
    reference_loop,
    reference_scan,
    reference_sort,
    reference_special,
    winograd,
)
from lazygrad_compiler.ir.library import run_library
from lazygrad_compiler.ir.node import Named, Node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, SPECIAL_UNARY
from lazygrad_compiler.ir.philox import random_bits
from lazygrad_compiler.ir.requirements import broken_by

Array = numpy.ndarray
Rule = Callable[[Node, Sequence[Array]], Any]
REFERENCE: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            REFERENCE[name] = function
        return function

    return register


def widen(array: Any) -> Any:
    """16-bit floats as float32, all else as it is."""
    return (
        array.astype(numpy.float32)
        if array.dtype.itemsize == 2 and array.dtype.kind not in "iu"
        else array
    )


class IndexOutOfRange(IndexError):
    """A gather or scatter met an index beyond its axis."""


# ---- leaves


@rule("const")
def _const(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.full(node.shape, node.attrs[0], node.dtype.numpy)


@rule("iota")
def _iota(node: Node, inputs: Sequence[Array]) -> Array:
    axis, _, shape = node.attrs
    line = numpy.arange(shape[axis]).astype(node.dtype.numpy)
    return numpy.broadcast_to(
        line.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape
    )


@rule("random_bits")
def _random_bits(node: Node, inputs: Sequence[Array]) -> Array:
    return random_bits(inputs[0], node.shape)


# ---- elementwise


def _unary(name: str, compute: Callable[[Array], Array]) -> None:
    REFERENCE[name] = lambda node, inputs: compute(widen(inputs[0]))


def _binary(name: str, compute: Callable[[Array, Array], Array]) -> None:
    REFERENCE[name] = lambda node, inputs: compute(widen(inputs[0]), widen(inputs[1]))


def _log1p(x: Array) -> Array:
    """log(1 + x); NumPy's of complex numbers loses the small ones."""
    result = numpy.array(numpy.log1p(x))
    if x.dtype.kind == "c":
        real, imaginary = x.real, x.imag
        small = (abs(real) < 0.5) & (abs(imaginary) < 0.5)
        near = numpy.log1p(real * (real + 2) + imaginary * imaginary) / 2
        result.real = numpy.where(small, near, result.real)
    return result


def _sign(x: Array) -> Array:
    """Of complex numbers x / |x|, part by part."""
    if x.dtype.kind != "c":
        return numpy.sign(x)
    size, result = abs(x), numpy.empty_like(x)
    divisor = numpy.where(size == 0, 1, size)
    result.real, result.imag = x.real / divisor, x.imag / divisor
    return result


def _erf(x: Array) -> Array:
    return numpy.vectorize(math.erf, otypes=[x.dtype])(x)


def _erfc(x: Array) -> Array:
    return numpy.vectorize(math.erfc, otypes=[x.dtype])(x)


def _sigmoid(x: Array) -> Array:
    power = numpy.exp(-numpy.abs(x))
    return numpy.where(x < 0, power, 1).astype(x.dtype) / (1 + power)


_special: dict[str, Any] = {
    "asin": numpy.arcsin,
    "acos": numpy.arccos,
    "atan": numpy.arctan,
    "asinh": numpy.arcsinh,
    "acosh": numpy.arccosh,
    "atanh": numpy.arctanh,
    "log1p": _log1p,
    "erf": _erf,
    "erfc": _erfc,
}
for _name in ELEMENTARY_UNARY:
    _unary(_name, _special.get(_name) or getattr(numpy, _name))
for _name, _function in [
    ("neg", numpy.negative),
    ("abs", numpy.abs),
    ("floor", numpy.floor),
    ("ceil", numpy.ceil),
    ("trunc", numpy.trunc),
    ("round", numpy.rint),
    ("sqrt", numpy.sqrt),
    ("not", numpy.invert),
]:
    _unary(_name, _function)


_unary("sign", _sign)
_unary("sigmoid", _sigmoid)


def _integer_division(x: Array, y: Array) -> tuple[Array, Array]:
    """Quotient towards zero and remainder; 0 and 0 for a zero divisor; the lowest number by -1
    wraps.
    """
    safe = numpy.where(y == 0, 1, y).astype(y.dtype)
    quotient = numpy.floor_divide(x, safe)
    remainder = (x - quotient * safe).astype(x.dtype)
    if x.dtype.kind == "i":
        fix = (remainder != 0) & ((x < 0) != (safe < 0))
        quotient = (quotient + fix).astype(x.dtype)
        remainder = (x - quotient * safe).astype(x.dtype)
    zero = numpy.zeros_like(x)
    return numpy.where(y == 0, zero, quotient), numpy.where(y == 0, zero, remainder)


def _remainder(x: Array, y: Array) -> Array:
    return numpy.fmod(x, y) if x.dtype.kind == "f" else _integer_division(x, y)[1]


def _power(x: Array, y: Array) -> Array:
    if x.dtype.kind not in "iu":
        return numpy.power(x, y)
    result, base, left = numpy.ones_like(x), x.copy(), numpy.maximum(y, 0).astype(y.dtype)
    while numpy.any(left != 0):
        result = numpy.where(left & 1, result * base, result).astype(x.dtype)
        base = base * base
        left = left >> 1
    if x.dtype.kind == "u":
        return result
    odd = numpy.where(y & 1, x, numpy.ones_like(x))
    return numpy.where(y < 0, numpy.where(abs(x) == 1, odd, 0), result).astype(x.dtype)


def _shift(left: bool) -> Callable[[Array, Array], Array]:
    def compute(x: Array, y: Array) -> Array:
        bits = x.dtype.itemsize * 8
        legal = (y >= 0) & (y < bits)
        amount = numpy.where(legal, y, 0).astype(x.dtype)
        if left:
            return numpy.where(legal, numpy.left_shift(x, amount), 0).astype(x.dtype)
        beyond = (
            numpy.right_shift(x, x.dtype.type(bits - 1))
            if x.dtype.kind == "i"
            else numpy.zeros_like(x)
        )
        return numpy.where(legal, numpy.right_shift(x, amount), beyond).astype(x.dtype)

    return compute


_BINARY: list[tuple[str, Any]] = [
    ("add", numpy.add),
    ("sub", numpy.subtract),
    ("mul", numpy.multiply),
    ("div", numpy.divide),
    ("idiv", lambda x, y: _integer_division(x, y)[0]),
    ("rem", _remainder),
    ("maximum", numpy.maximum),
    ("minimum", numpy.minimum),
    ("pow", _power),
    ("atan2", numpy.arctan2),
    ("copysign", numpy.copysign),
    ("gcd", numpy.gcd),
    ("and", numpy.bitwise_and),
    ("or", numpy.bitwise_or),
    ("xor", numpy.bitwise_xor),
    ("shl", _shift(True)),
    ("shr", _shift(False)),
    ("lt", numpy.less),
    ("le", numpy.less_equal),
    ("eq", numpy.equal),
    ("ne", numpy.not_equal),
]
for _name, _function in _BINARY:
    _binary(_name, _function)


for _name, _special_function in reference_special.FUNCTIONS.items():
    (_unary if _name in SPECIAL_UNARY else _binary)(_name, _special_function)


@rule("polynomial")
def _polynomial(node: Node, inputs: Sequence[Array]) -> Array:
    x, total = inputs[0], numpy.zeros_like(inputs[0])
    for coefficient in reversed(node.attrs[0]):
        total = total * x + x.dtype.type(coefficient)
    return total


@rule("nextafter")
def _nextafter(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.nextafter(*inputs)


@rule("where")
def _where(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.where(*inputs)


def saturate(x: Array, dtype: numpy.dtype) -> Array:
    """Float to integer towards zero; beyond the range its end, NaN 0."""
    information = numpy.iinfo(dtype)
    whole = numpy.trunc(numpy.nan_to_num(x.astype(numpy.float64), nan=0.0))
    inside = (whole >= float(information.min)) & (whole < float(information.max) + 1)
    result = numpy.where(inside, whole, 0).astype(dtype)
    least, most = dtype.type(information.min), dtype.type(information.max)
    return numpy.where(inside, result, numpy.where(whole < 0, least, most))


@rule("cast")
def _cast(node: Node, inputs: Sequence[Array]) -> Array:
    value, target = inputs[0], node.dtype
    if target is dtypes.bool_:
        return value != 0
    if value.dtype.kind == "c" and not target.is_complex:
        value = value.real
    if target.is_integer and (value.dtype.kind == "f" or value.dtype == dtypes.bfloat16.numpy):
        if target.bits < 32:
            return saturate(value, numpy.dtype(numpy.int32)).astype(target.numpy)
        if target is dtypes.uint32:
            return saturate(value, numpy.dtype(numpy.int64)).astype(target.numpy)
        if target is dtypes.uint64:
            negative = saturate(value, numpy.dtype(numpy.int64)).astype(numpy.uint64)
            return numpy.where(value < 0, negative, saturate(value, target.numpy))
        return saturate(value, target.numpy)
    return value.astype(target.numpy)


@rule("bitcast")
def _bitcast(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.ascontiguousarray(inputs[0]).view(node.dtype.numpy).reshape(node.shape)


# ---- complex numbers


_unary("real", numpy.real)
_unary("imag", numpy.imag)
_unary("conj", numpy.conj)


@rule("complex")
def _complex(node: Node, inputs: Sequence[Array]) -> Array:
    result = numpy.empty(node.shape, node.dtype.numpy)
    result.real, result.imag = inputs
    return result


@rule("view_as_real", "view_as_complex")
def _view_as(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.ascontiguousarray(inputs[0]).reshape(-1).view(node.dtype.numpy).reshape(node.shape)


# ---- movement


@rule("reshape")
def _reshape(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].reshape(node.shape)


@rule("permute")
def _permute(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].transpose(node.attrs[0])


@rule("expand")
def _expand(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.broadcast_to(inputs[0], node.shape)


@rule("slice")
def _slice(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0][tuple(slice(*triple) for triple in zip(*node.attrs, strict=True))]


@rule("pad")
def _pad(node: Node, inputs: Sequence[Array]) -> Array:
    low, _, interior, value = node.attrs
    result = numpy.full(node.shape, value, node.dtype.numpy)
    result[
        tuple(
            slice(start, start + size + max(size - 1, 0) * gap, gap + 1)
            for start, size, gap in zip(low, inputs[0].shape, interior, strict=True)
        )
    ] = inputs[0]
    return result


@rule("flip")
def _flip(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.flip(inputs[0], node.attrs[0])


@rule("concat")
def _concat(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.concatenate(inputs, axis=node.attrs[0])


@rule("window")
def _window(node: Node, inputs: Sequence[Array]) -> Array:
    value = inputs[0]
    strides, offsets = list(value.strides), []
    for axis, _, stride, dilation in zip(*node.attrs, strict=True):
        offsets.append(value.strides[axis] * dilation)
        strides[axis] = value.strides[axis] * stride
    return numpy.lib.stride_tricks.as_strided(
        value, node.shape, (*strides, *offsets), writeable=False
    )


# ---- reductions


def _reduce(ufunc: Any) -> Rule:
    def compute(node: Node, inputs: Sequence[Array]) -> Array:
        value = inputs[0]
        if ufunc in (numpy.add, numpy.multiply):
            wide = widen(value)
            return ufunc.reduce(wide, axis=node.attrs[0], dtype=wide.dtype)
        low, high = node.inputs[0].dtype.limits()
        start = low if ufunc is numpy.maximum else high
        wide = widen(value)
        return ufunc.reduce(wide, axis=node.attrs[0], initial=wide.dtype.type(start))

    return compute


for _name, _ufunc in [
    ("sum", numpy.add),
    ("prod", numpy.multiply),
    ("max", numpy.maximum),
    ("min", numpy.minimum),
]:
    REFERENCE[_name] = _reduce(_ufunc)


def _arg(pick: Callable[..., Array]) -> Rule:
    def compute(node: Node, inputs: Sequence[Array]) -> Array:
        value, axes = widen(inputs[0]), node.attrs[0]
        kept = [axis for axis in range(value.ndim) if axis not in axes]
        length = math.prod(value.shape[axis] for axis in axes)
        moved = value.transpose([*kept, *axes]).reshape(
            [value.shape[axis] for axis in kept] + [length]
        )
        return pick(moved, axis=-1)

    return compute


REFERENCE["argmax"] = _arg(numpy.argmax)
REFERENCE["argmin"] = _arg(numpy.argmin)


# ---- contractions


def contract(left: Array, right: Array, attrs: tuple) -> Array:
    left_batch, right_batch, left_contract, right_contract = attrs
    letters = iter(range(left.ndim + right.ndim))
    left_names = [next(letters) for _ in range(left.ndim)]
    right_names = [next(letters) for _ in range(right.ndim)]
    for ours, theirs in zip(
        (*left_batch, *left_contract), (*right_batch, *right_contract), strict=True
    ):
        right_names[theirs] = left_names[ours]
    result = [left_names[axis] for axis in left_batch]
    result += [
        name
        for axis, name in enumerate(left_names)
        if axis not in left_batch and axis not in left_contract
    ]
    result += [
        name
        for axis, name in enumerate(right_names)
        if axis not in right_batch and axis not in right_contract
    ]
    # of an operand with steps of zero NumPy takes the sum of the other first: inf - inf is lost
    left, right = numpy.array(left, order="C"), numpy.array(right, order="C")
    return numpy.einsum(left, left_names, right, right_names, result)


@rule("dot")
def _dot(node: Node, inputs: Sequence[Array]) -> Array:
    return contract(widen(inputs[0]), widen(inputs[1]), node.attrs)


@rule("conv")
def _conv(node: Node, inputs: Sequence[Array]) -> Array:
    value, weight = widen(inputs[0]), widen(inputs[1])
    strides, padding, left_dilation, right_dilation, groups = node.attrs
    rank = value.ndim - 2
    sizes = [
        (size - 1) * gap + 1 if size else 0
        for size, gap in zip(value.shape[2:], left_dilation, strict=True)
    ]
    spread = numpy.zeros((*value.shape[:2], *sizes), value.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, gap) for gap in left_dilation))] = value
    spread = numpy.pad(
        spread, [(0, 0), (0, 0), *((max(low, 0), max(high, 0)) for low, high in padding)]
    )
    spread = spread[
        (
            slice(None),
            slice(None),
            *(
                slice(max(-low, 0), spread.shape[k + 2] - max(-high, 0))
                for k, (low, high) in enumerate(padding)
            ),
        )
    ]
    result = numpy.zeros(node.shape, value.dtype)
    out_channels, in_channels = weight.shape[0] // groups, weight.shape[1]
    for position in numpy.ndindex(*weight.shape[2:]):
        starts = [at * gap for at, gap in zip(position, right_dilation, strict=True)]
        # between the elements of a dilated operand there is nothing, not even zeros to multiply by
        meets = numpy.ones(node.shape[2:], bool)
        for axis, (start, stride, gap) in enumerate(
            zip(starts, strides, left_dilation, strict=True)
        ):
            places = numpy.arange(node.shape[2 + axis]) * stride + start - padding[axis][0]
            meets &= (places % gap == 0).reshape(-1, *(1,) * (rank - 1 - axis))
        patch = spread[
            (
                slice(None),
                slice(None),
                *(
                    slice(start, start + (count - 1) * stride + 1, stride)
                    for start, count, stride in zip(starts, node.shape[2:], strides, strict=True)
                ),
            )
        ]
        for group in range(groups):
            inside = slice(group * in_channels, (group + 1) * in_channels)
            outside = slice(group * out_channels, (group + 1) * out_channels)
            # not by BLAS, which may skip zeros and so lose a NaN
            products = numpy.einsum(
                "nc...,oc->no...", patch[:, inside], weight[(outside, slice(None), *position)]
            )
            result[:, outside] += numpy.where(meets, products, 0)
    assert rank == len(strides)
    return result


# ---- gather and scatter


def check_indices(
    node: Node, value: Array, indices: Sequence[Array], axes: Sequence[int]
) -> list[Array]:
    checked = []
    for index, axis in zip(indices, axes, strict=True):
        size = value.shape[axis]
        bad = (index < -size) | (index >= size)
        if bad.any():
            name = node.location.operation if isinstance(node.location, Named) else node.op
            broken = broken_by(int(index[bad].flat[0]), size)
            if broken is not None:
                raise IndexOutOfRange(f"[{name}] {broken}")
            raise IndexOutOfRange(
                f"[{name}] index {index[bad].flat[0]} is out of range for axis {axis} "
                f"of size {size}"
            )
        checked.append(numpy.where(index < 0, index + size, index))
    return checked


@rule("gather")
def _gather(node: Node, inputs: Sequence[Array]) -> Array:
    value, *indices = inputs
    axes = node.attrs[0]
    indices = check_indices(node, value, indices, axes)
    front = numpy.moveaxis(value, axes, range(len(axes)))
    return front[tuple(indices)]


COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "set": lambda old, new: new,
    "add": numpy.add,
    "mul": numpy.multiply,
    "max": numpy.maximum,
    "min": numpy.minimum,
}


@rule("scatter")
def _scatter(node: Node, inputs: Sequence[Array]) -> Array:
    base, updates, *indices = inputs
    axes, mode = node.attrs
    indices = check_indices(node, base, indices, axes)
    result = base.copy()
    front = numpy.moveaxis(result, axes, range(len(axes)))
    combine = COMBINE[mode]
    for position in numpy.ndindex(*indices[0].shape):
        place = tuple(index[position] for index in indices)
        # each update is an op of its own: 16-bit floats round after each
        front[place] = combine(widen(front[place]), widen(updates[position]))
    return result


# ---- scans


REFERENCE.update(reference_scan.RULES)


# ---- loops


REFERENCE.update(reference_loop.RULES)


# ---- order


REFERENCE.update(reference_sort.RULES)
REFERENCE.update(reference_attention.RULES)
REFERENCE["winograd"] = winograd.reference


@rule("variable", "stop_gradient", "transfer", "again")
def _marker(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0]


# ---- library calls


@rule("library")
def _library(node: Node, inputs: Sequence[Array]) -> Array:
    name, options, part = node.attrs
    return run_library(name, options, inputs)[part]
