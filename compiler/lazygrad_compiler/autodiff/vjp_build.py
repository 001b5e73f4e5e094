"""How gradient rules write nodes: a `Builder` that stamps the forward op's location on each.

It leaves out what would change nothing (a factor of 1, a reshape to the same shape, an expand
of a constant), so that rules need not ask, and the graphs that they make stay close to the
formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Location, Node, Shape, build
from lazygrad_compiler.ir.ops import OPS

REAL_OF = {dtypes.complex64: dtypes.float32, dtypes.complex128: dtypes.float64}


def is_const(value: Node, number: complex | None = None) -> bool:
    """True for a constant; with a number, for a constant that equals it."""
    return value.op == "const" and (number is None or value.attrs[0] == number)


def conjugated(value: Node) -> Node | None:
    """The z of a node that `Builder.conj` wrote for conj(z)."""
    return value.inputs[0] if value.op == "conj" else None


class Builder:
    """Makes nodes at one location.  Methods are named after the ops; operands share one shape."""

    __slots__ = ("location",)

    def __init__(self, location: Location = ()) -> None:
        self.location = location

    def op(self, name: str, *inputs: Node, attrs: tuple = ()) -> Node:
        """Any op of the table, attributes in its order."""
        return build(OPS[name], inputs, attrs, self.location)

    # ---- constants

    def const(self, value: complex, dtype: DType, shape: Shape) -> Node:
        number: Any = value
        if dtype.is_complex:
            number = complex(value)
        elif dtype.is_floating:
            number = float(value)  # type: ignore[arg-type]
        return self.op("const", attrs=(number, dtype, shape))

    def like(self, example: Node, value: complex) -> Node:
        """A constant with the dtype and shape of a node."""
        return self.const(value, example.dtype, example.shape)

    def zeros(self, example: Node) -> Node:
        return self.like(example, 0)

    # ---- elementwise

    def neg(self, value: Node) -> Node:
        return value.inputs[0] if value.op == "neg" else self.op("neg", value)

    def add(self, left: Node, right: Node) -> Node:
        return self.op("add", left, right)

    def sub(self, left: Node, right: Node) -> Node:
        return self.op("sub", left, right)

    def mul(self, left: Node, right: Node) -> Node:
        if is_const(right, 1):
            return left
        return right if is_const(left, 1) else self.op("mul", left, right)

    def div(self, left: Node, right: Node) -> Node:
        return left if is_const(right, 1) else self.op("div", left, right)

    def scale(self, value: Node, factor: complex) -> Node:
        """value * factor for a Python number."""
        if factor == 1:
            return value
        return self.neg(value) if factor == -1 else self.mul(value, self.like(value, factor))

    def shift(self, value: Node, amount: complex) -> Node:
        """value + amount for a Python number."""
        return self.add(value, self.like(value, amount))

    def square(self, value: Node) -> Node:
        return self.mul(value, value)

    def one_minus(self, value: Node) -> Node:
        return self.sub(self.like(value, 1), value)

    def power(self, value: Node, exponent: complex) -> Node:
        """value ** exponent for a Python number, by multiplication where that is all it takes."""
        if exponent == 1:
            return value
        if exponent == 2:
            return self.square(value)
        return self.op("pow", value, self.like(value, exponent))

    def compare(self, name: str, left: Node, right: Node | complex) -> Node:
        other = right if isinstance(right, Node) else self.like(left, right)
        return self.op(name, left, other)

    def where(self, condition: Node, yes: Node, no: Node) -> Node:
        return yes if yes is no else self.op("where", condition, yes, no)

    def cast(self, value: Node, dtype: DType) -> Node:
        return value if value.dtype is dtype else self.op("cast", value, attrs=(dtype,))

    def conj(self, value: Node) -> Node:
        """The complex conjugate; a real value is its own."""
        if not value.dtype.is_complex:
            return value
        original = conjugated(value)
        if original is not None:
            return original
        return self.op("conj", value)

    # ---- movement

    def reshape(self, value: Node, shape: Sequence[Any]) -> Node:
        shape = tuple(shape)
        if value.shape == shape:
            return value
        if is_const(value):
            return self.const(value.attrs[0], value.dtype, shape)
        return self.op("reshape", value, attrs=(shape,))

    def permute(self, value: Node, order: Sequence[int]) -> Node:
        order = tuple(order)
        if order == tuple(range(len(order))):
            return value
        if is_const(value):
            return self.const(value.attrs[0], value.dtype, tuple(value.shape[k] for k in order))
        return self.op("permute", value, attrs=(order,))

    def expand(self, value: Node, shape: Shape) -> Node:
        if value.shape == shape:
            return value
        if is_const(value):
            return self.const(value.attrs[0], value.dtype, shape)
        return self.op("expand", value, attrs=(shape,))

    def slice(self, value: Node, starts: Sequence[int], stops: Sequence[int],
              steps: Sequence[int] | None = None) -> Node:
        steps = tuple(steps) if steps is not None else (1,) * value.ndim
        starts, stops = tuple(starts), tuple(stops)
        if not any(starts) and stops == value.shape and all(step == 1 for step in steps):
            return value
        return self.op("slice", value, attrs=(starts, stops, steps))

    def slice_axis(self, value: Node, axis: int, start: int, stop: int) -> Node:
        """value[start:stop] along one axis, all of the others."""
        starts, stops = [0] * value.ndim, list(value.shape)
        starts[axis], stops[axis] = start, stop
        return self.slice(value, starts, stops)

    def pad(self, value: Node, low: Sequence[int], high: Sequence[int],
            interior: Sequence[int] | None = None, fill: complex = 0) -> Node:
        interior = tuple(interior) if interior is not None else (0,) * value.ndim
        low, high = tuple(low), tuple(high)
        gaps = any(gap and size > 1 for gap, size in zip(interior, value.shape, strict=True))
        if not any(low) and not any(high) and not gaps:
            return value
        number: Any = complex(fill) if value.dtype.is_complex else float(fill)  # type: ignore
        return self.op("pad", value, attrs=(low, high, interior, number))

    def pad_axis(self, value: Node, axis: int, low: int, high: int, interior: int = 0,
                 fill: complex = 0) -> Node:
        """Padding along one axis."""
        def along(amount: int) -> tuple[int, ...]:
            return tuple(amount if k == axis else 0 for k in range(value.ndim))
        return self.pad(value, along(low), along(high), along(interior), fill)

    def flip(self, value: Node, axes: Sequence[int]) -> Node:
        axes = tuple(axis for axis in axes if value.shape[axis] != 1)
        return self.op("flip", value, attrs=(axes,)) if axes else value

    def concat(self, values: Sequence[Node], axis: int) -> Node:
        return values[0] if len(values) == 1 else self.op("concat", *values, attrs=(axis,))

    # ---- reductions

    def sum(self, value: Node, axes: Sequence[int]) -> Node:
        return self.op("sum", value, attrs=(tuple(axes),)) if axes else value

    def spread(self, reduced: Node, axes: Sequence[int], shape: Shape) -> Node:
        """A reduction's result repeated over the axes that it reduced."""
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        return self.expand(self.reshape(reduced, kept), shape)


Needed = tuple[bool, ...]
"""For each input of the forward op, whether its gradient is asked for."""

Gradients = tuple[Node | None, ...]
"""One entry an input; None where there is no gradient, or none was asked for."""

Rule = Callable[[Builder, Node, Node, Needed], Gradients]
"""rule(at, forward, cotangent, needed): the cotangents of the forward op's inputs."""
