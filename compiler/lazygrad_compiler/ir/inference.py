"""Dtype and shape inference: one function for each op, or kind of op, of the table.

`infer(definition, inputs, attrs) -> (dtype, shape)`; what does not fit is an IRError that names the
op and the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Dim, IRError, IRTypeError, Node, Shape

Inference = Callable[["OpDef", tuple[Node, ...], tuple], tuple[DType, Shape]]

MAX_ELEMENTS = 2**47
"""More elements than any address space holds: a size beyond it is a mistake, reported as such."""

MAX_EMPTY = 2**58
"""Of the other axes, where one is empty: NumPy counts their bytes in 63 bits."""


@dataclass(frozen=True, slots=True)
class OpDef:
    """One primitive: `infer(definition, inputs, attrs) -> (dtype, shape)` raises IRError on what
    does not fit.
    """

    name: str
    kind: str
    arity: int  # -1: any number, at least one
    attributes: tuple[str, ...]
    infer: Inference
    about: str


def fail(definition: OpDef, message: str) -> IRError:
    return IRError(f"[{definition.name}] {message}")


def not_defined(definition: OpDef, dtype: DType) -> IRError:
    return IRTypeError(f"[{definition.name}] is not defined for {dtype.name}")


def listed(shape: Shape) -> str:
    """A shape as people write it: (2, 3)."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def check_shape(definition: OpDef, shape: Shape) -> None:
    """Refuses what is no size, and more elements than memory can hold.  On the recording path."""
    elements = 1
    for size in shape:
        if type(size) is int and size >= 0:
            elements *= size or 1
        elif not isinstance(size, Dim):
            raise fail(
                definition,
                f"sizes are whole numbers of at least 0, and {listed(shape)} has {size!r}",
            )
    if elements > MAX_ELEMENTS and (0 not in shape or elements > MAX_EMPTY):
        raise fail(
            definition,
            f"shape {listed(shape)} has {elements} elements, more than memory can hold",
        )


def infer_leaf(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    check_shape(definition, attrs[2])
    return attrs[1], attrs[2]


def infer_iota(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    axis, dtype, shape = attrs
    check_shape(definition, shape)
    if not 0 <= axis < len(shape):
        raise fail(definition, f"axis {axis} does not exist in {listed(shape)}")
    return dtype, shape


def infer_random_bits(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    (state,) = inputs
    if state.dtype is not dtypes.int64 or state.shape != (2,):
        raise fail(definition, f"takes the int64 pair (seed, offset), not {state!r}")
    check_shape(definition, attrs[0])
    return dtypes.uint32, attrs[0]


def _same_shapes(definition: OpDef, inputs: tuple[Node, ...]) -> Shape:
    shape = inputs[0].shape
    for value in inputs:
        if value.shape != shape:
            raise fail(
                definition, "shapes differ: " + " and ".join(listed(v.shape) for v in inputs)
            )
    return shape


def elementwise(allowed: str, result: DType | None = None) -> Inference:
    """Inputs of one shape and one dtype, whose kind is among the allowed; the result has that dtype
    or a fixed one.
    """
    kinds = frozenset(allowed.split())

    def infer(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
        first = inputs[0]
        dtype, shape = first.dtype, first.shape
        for value in inputs:
            if value.shape != shape:
                _same_shapes(definition, inputs)
            if value.dtype is not dtype:
                raise fail(definition, f"dtypes differ: {dtype.name} and {value.dtype.name}")
        if dtype.kind not in kinds:
            raise not_defined(definition, dtype)
        return result or dtype, shape

    return infer


def infer_where(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    condition, yes, no = inputs
    if condition.dtype is not dtypes.bool_ or yes.dtype is not no.dtype:
        raise fail(
            definition, f"takes (bool, T, T), not ({', '.join(v.dtype.name for v in inputs)})"
        )
    return yes.dtype, _same_shapes(definition, inputs)


def infer_cast(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    return attrs[0], inputs[0].shape


def infer_polynomial(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    value, (coefficients,) = inputs[0], attrs
    if not value.dtype.is_floating or value.dtype.bits < 32:
        raise not_defined(definition, value.dtype)
    if not coefficients or not all(isinstance(number, float) for number in coefficients):
        raise fail(definition, f"coefficients are floats, not {coefficients!r}")
    return value.dtype, value.shape


def infer_bitcast(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    if attrs[0].itemsize != inputs[0].dtype.itemsize or "bool" in (
        attrs[0].kind,
        inputs[0].dtype.kind,
    ):
        raise fail(definition, f"{inputs[0].dtype.name} and {attrs[0].name} differ in size")
    return attrs[0], inputs[0].shape


def infer_reshape(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (shape,) = inputs[0], attrs
    check_shape(definition, shape)
    if math.prod(shape) != math.prod(value.shape):
        raise fail(
            definition,
            f"{listed(value.shape)} has {value.size} elements, {listed(shape)} {math.prod(shape)}",
        )
    return value.dtype, shape


def infer_permute(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (order,) = inputs[0], attrs
    if sorted(order) != list(range(value.ndim)):
        raise fail(
            definition,
            f"{listed(order)} is not an order of the {value.ndim} axes of {listed(value.shape)}",
        )
    return value.dtype, tuple(value.shape[axis] for axis in order)


def infer_expand(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (shape,) = inputs[0], attrs
    check_shape(definition, shape)
    if len(shape) != value.ndim or any(
        old not in (1, new) for old, new in zip(value.shape, shape, strict=True)
    ):
        raise fail(definition, f"{listed(value.shape)} does not broadcast to {listed(shape)}")
    return value.dtype, shape


def infer_slice(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (starts, stops, steps) = inputs[0], attrs
    if not len(starts) == len(stops) == len(steps) == value.ndim:
        raise fail(
            definition, f"needs a start, stop and step for each axis of {listed(value.shape)}"
        )
    shape = []
    for start, stop, step, size in zip(starts, stops, steps, value.shape, strict=True):
        if not (0 <= start <= stop <= size and step >= 1):
            raise fail(
                definition, f"{start}:{stop}:{step} does not lie within an axis of size {size}"
            )
        shape.append(-(-(stop - start) // step))
    return value.dtype, tuple(shape)


def infer_pad(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (low, high, interior, _) = inputs[0], attrs
    if not len(low) == len(high) == len(interior) == value.ndim:
        raise fail(
            definition, f"needs low, high and interior for each axis of {listed(value.shape)}"
        )
    if min((*low, *high, *interior), default=0) < 0:
        raise fail(definition, f"negative padding {low}, {high}, {interior}")
    shape = tuple(
        size + below + above + max(size - 1, 0) * between
        for size, below, above, between in zip(value.shape, low, high, interior, strict=True)
    )
    check_shape(definition, shape)
    return value.dtype, shape


def infer_flip(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (axes,) = inputs[0], attrs
    if len(set(axes)) != len(axes) or any(not 0 <= axis < value.ndim for axis in axes):
        raise fail(definition, f"axes {listed(axes)} of {listed(value.shape)}")
    return value.dtype, value.shape


def infer_concat(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    axis, first = attrs[0], inputs[0]
    if not 0 <= axis < first.ndim:
        raise fail(definition, f"axis {axis} does not exist in {listed(first.shape)}")
    for value in inputs:
        if value.dtype is not first.dtype:
            raise fail(definition, f"dtypes differ: {first.dtype.name} and {value.dtype.name}")
        if value.ndim != first.ndim or any(
            a != b
            for k, (a, b) in enumerate(zip(value.shape, first.shape, strict=True))
            if k != axis
        ):
            raise fail(
                definition,
                f"{listed(first.shape)} and {listed(value.shape)} differ off axis {axis}",
            )
    total = sum(value.shape[axis] for value in inputs)
    result = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    check_shape(definition, result)
    return first.dtype, result


def infer_window(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (axes, sizes, strides, dilations) = inputs[0], attrs
    if not len(axes) == len(sizes) == len(strides) == len(dilations) or len(set(axes)) != len(axes):
        raise fail(definition, "needs one size, stride and dilation for each of its distinct axes")
    shape = list(value.shape)
    for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
        if not 0 <= axis < value.ndim or size < 1 or stride < 1 or dilation < 1:
            raise fail(
                definition,
                f"axis {axis}, size {size}, stride {stride}, dilation {dilation} "
                f"on {listed(value.shape)}",
            )
        reach = (size - 1) * dilation + 1
        if reach > value.shape[axis]:
            raise fail(
                definition,
                f"a window of {reach} does not fit into axis {axis} of {listed(value.shape)}",
            )
        shape[axis] = (value.shape[axis] - reach) // stride + 1
    result = (*shape, *sizes)
    check_shape(definition, result)
    return value.dtype, result


def reduction(allowed: str, result: DType | None = None, needs_elements: bool = False) -> Inference:
    kinds = frozenset(allowed.split())

    def infer(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
        value, axes = inputs[0], attrs[0]
        if value.dtype.kind not in kinds:
            raise not_defined(definition, value.dtype)
        if tuple(sorted(set(axes))) != tuple(axes) or any(
            not 0 <= axis < value.ndim for axis in axes
        ):
            raise fail(
                definition,
                f"axes {listed(axes)} of {listed(value.shape)}: give each once, ascending",
            )
        if needs_elements and any(value.shape[axis] == 0 for axis in axes):
            raise fail(
                definition,
                f"of no elements is not defined: {listed(value.shape)} over axes {listed(axes)}",
            )
        return result or value.dtype, tuple(s for k, s in enumerate(value.shape) if k not in axes)

    return infer


def infer_dot(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    left, right = inputs
    left_batch, right_batch, left_contract, right_contract = attrs
    if left.dtype is not right.dtype or left.dtype.kind == "bool":
        raise fail(definition, f"of {left.dtype.name} and {right.dtype.name}")
    for value, batch, contract in (
        (left, left_batch, left_contract),
        (right, right_batch, right_contract),
    ):
        used = (*batch, *contract)
        if len(set(used)) != len(used) or any(not 0 <= axis < value.ndim for axis in used):
            raise fail(definition, f"axes {listed(used)} of {listed(value.shape)}")
    for what, ours, theirs in (
        ("batch", left_batch, right_batch),
        ("contracted", left_contract, right_contract),
    ):
        if len(ours) != len(theirs) or any(
            left.shape[a] != right.shape[b] for a, b in zip(ours, theirs, strict=True)
        ):
            raise fail(
                definition,
                f"{what} axes {listed(ours)} of {listed(left.shape)} and {listed(theirs)} of "
                f"{listed(right.shape)} differ in size",
            )
    batch_shape = tuple(left.shape[axis] for axis in left_batch)
    left_free = tuple(
        s for k, s in enumerate(left.shape) if k not in left_batch and k not in left_contract
    )
    right_free = tuple(
        s for k, s in enumerate(right.shape) if k not in right_batch and k not in right_contract
    )
    shape = (*batch_shape, *left_free, *right_free)
    check_shape(definition, shape)
    return left.dtype, shape


def infer_conv(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, weight = inputs
    strides, padding, left_dilation, right_dilation, groups = attrs
    rank = value.ndim - 2
    if value.dtype is not weight.dtype or value.dtype.kind == "bool":
        raise fail(definition, f"of {value.dtype.name} and {weight.dtype.name}")
    if rank < 1 or weight.ndim != value.ndim:
        raise fail(
            definition,
            f"takes (N, C, *space) and (out, C/groups, *kernel), not {listed(value.shape)} "
            f"and {listed(weight.shape)}",
        )
    if not len(strides) == len(padding) == len(left_dilation) == len(right_dilation) == rank:
        raise fail(definition, f"needs {rank} strides, padding pairs and dilations")
    if groups < 1 or value.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise fail(
            definition,
            f"{value.shape[1]} input and {weight.shape[0]} output channels do not split into "
            f"{groups} groups with weights {listed(weight.shape)}",
        )
    space, padded = [], []
    for k in range(rank):
        size = (value.shape[k + 2] - 1) * left_dilation[k] + 1 if value.shape[k + 2] else 0
        size += padding[k][0] + padding[k][1]
        padded.append(size)
        reach = (weight.shape[k + 2] - 1) * right_dilation[k] + 1
        if (
            reach > size
            or weight.shape[k + 2] < 1
            or min(strides[k], left_dilation[k], right_dilation[k]) < 1
        ):
            raise fail(
                definition,
                f"a kernel over {reach} positions does not fit into {size} of axis {k + 2}",
            )
        space.append((size - reach) // strides[k] + 1)
    shape = (value.shape[0], weight.shape[0], *space)
    # The padded input becomes a node, too, and so do its windows.
    check_shape(definition, (*value.shape[:2], *(max(size, 0) for size in padded)))
    check_shape(definition, (*value.shape[:2], *space, *weight.shape[2:]))
    check_shape(definition, shape)
    return value.dtype, shape


def _indices(definition: OpDef, value: Node, indices: tuple[Node, ...], axes: tuple) -> Shape:
    if (
        len(axes) != len(indices)
        or len(set(axes)) != len(axes)
        or any(not 0 <= a < value.ndim for a in axes)
    ):
        raise fail(
            definition,
            f"axes {listed(axes)} of {listed(value.shape)} with {len(indices)} index arrays",
        )
    if not indices:
        raise fail(definition, "needs at least one index array")
    for index in indices:
        if index.dtype is not dtypes.int64:
            raise fail(definition, f"indices are int64, not {index.dtype.name}")
        if index.shape != indices[0].shape:
            raise fail(
                definition,
                f"index shapes differ: {listed(indices[0].shape)} and {listed(index.shape)}",
            )
    return indices[0].shape


def infer_gather(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, *indices = inputs
    index_shape = _indices(definition, value, tuple(indices), attrs[0])
    shape = (*index_shape, *(s for k, s in enumerate(value.shape) if k not in attrs[0]))
    check_shape(definition, shape)
    return value.dtype, shape


SCATTER_MODES = ("set", "add", "mul", "max", "min")


def infer_scatter(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    base, updates, *indices = inputs
    axes, mode = attrs
    index_shape = _indices(definition, base, tuple(indices), axes)
    expected = (*index_shape, *(s for k, s in enumerate(base.shape) if k not in axes))
    if updates.shape != expected or updates.dtype is not base.dtype:
        raise fail(
            definition,
            f"updates of {listed(base.shape)} must be {base.dtype.name} {listed(expected)}, "
            f"not {updates.dtype.name} {listed(updates.shape)}",
        )
    if mode not in SCATTER_MODES:
        raise fail(definition, f"mode {mode!r}; there are {', '.join(SCATTER_MODES)}")
    return base.dtype, base.shape


def infer_identity(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    return inputs[0].dtype, inputs[0].shape
