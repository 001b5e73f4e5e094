"""Complex numbers: their parts, conjugates, and views of their memory as real numbers.

`real`, `imag`, `conj`, `view_as_real` and `view_as_complex` are views: what is written through them
lands in the tensor that they were taken from.  The rest computes.
"""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, here, method, now, operation
from lazygrad._core.tensor import Tensor, make_views, node_of, shape_of, strides_of, wrap
from lazygrad.functional._operands import as_node, floating
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_complex import PART, WHOLE
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS, listed

__all__ = ["real", "imag", "conj", "conj_physical", "resolve_conj", "is_conj", "resolve_neg",
           "is_neg", "view_as_real", "view_as_complex", "complex", "polar", "angle", "sgn",
           "isreal"]


def _view(tensor: Tensor, steps: list[tuple[str, tuple]], shape: tuple[int, ...],
          strides: tuple[int, ...], dtype: DType) -> Tensor:
    """A view whose steps change the dtype."""
    place = now.location or here()
    entries = tuple((OPS[name], attrs, place) for name, attrs in steps)
    result = make_views(tensor, entries, shape, strides)
    assert result._view is not None
    result._view.dtype = dtype
    return result


def _needs_complex(name: str, input: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise fail(name, f"takes a tensor, not {type(input).__name__}",
                   "Make one with lazygrad.tensor(...).", TypeError)
    if not input.dtype.is_complex:
        raise fail(name, f"takes complex tensors, not {input.dtype.name}",
                   "Convert with .to(lazygrad.complex64).", TensorTypeError)


# ---- views


@method
def view_as_real(input: Tensor) -> Tensor:
    """Real and imaginary parts along a new last axis of size 2: a view of a complex tensor."""
    _needs_complex("view_as_real", input)
    strides = (*(2 * step for step in strides_of(input)), 1)
    return _view(input, [("view_as_real", ())], (*shape_of(input), 2), strides, PART[input.dtype])


@method
def view_as_complex(input: Tensor) -> Tensor:
    """A float tensor with a last axis of size 2 as complex numbers: a view."""
    shape, strides = shape_of(input), strides_of(input)
    whole = WHOLE.get(input.dtype)
    if whole is None:
        raise fail("view_as_complex", f"takes float32 or float64 tensors, not {input.dtype.name}",
                   kind=TensorTypeError)
    if shape[-1:] != (2,):
        raise fail("view_as_complex", f"needs a last axis of size 2, not {listed(shape)}")
    if strides[-1] != 1 or any(step % 2 for step in strides[:-1]):
        raise fail("view_as_complex", f"the parts do not lie side by side in memory: the strides "
                   f"are {listed(strides)}", "Take it of x.contiguous().")
    halved = tuple(step // 2 for step in strides[:-1])
    return _view(input, [("view_as_complex", ())], shape[:-1], halved, whole)


def _part(input: Tensor, number: int) -> Tensor:
    shape = shape_of(input)
    front, steps = (0,) * len(shape), (1,) * (len(shape) + 1)
    column = ("slice", ((*front, number), (*shape, number + 1), steps))
    strides = tuple(2 * step for step in strides_of(input))
    return _view(input, [("view_as_real", ()), column, ("reshape", (shape,))], shape, strides,
                 PART[input.dtype])


@operation
def real(input: Tensor) -> Tensor:
    """The real part, as a view; a real tensor itself."""
    if isinstance(input, Tensor) and not input.dtype.is_complex:
        return input
    _needs_complex("real", input)
    return _part(input, 0)


@operation
def imag(input: Tensor) -> Tensor:
    """The imaginary part, as a view."""
    _needs_complex("imag", input)
    return _part(input, 1)


@method
def conj(input: Tensor) -> Tensor:
    """The complex conjugate, as a view; a real tensor itself."""
    if not input.dtype.is_complex:
        return input
    return _view(input, [("conj", ())], shape_of(input), strides_of(input), input.dtype)


@method
def is_conj(input: Tensor) -> bool:
    """Whether this view reads its memory conjugated."""
    steps = () if input._view is None else input._view.steps
    return sum(definition.name == "conj" for definition, _, _ in steps) % 2 == 1


@method
def resolve_conj(input: Tensor) -> Tensor:
    """A tensor of its own where `input` is a conjugated view; else itself."""
    return wrap(node_of(input)) if is_conj(input) else input


@method
def is_neg(input: Tensor) -> bool:
    """False: no view negates."""
    return False


@method
def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: no view negates."""
    return input


def _part_property(name: str, get: Any) -> property:
    def put(self: Tensor, value: Any) -> None:
        get(self).copy_(value if isinstance(value, Tensor) else wrap(as_node(name, value)))

    return property(get, operation(put))


Tensor.real = _part_property("real", real)  # type: ignore[attr-defined]
Tensor.imag = _part_property("imag", imag)  # type: ignore[attr-defined]


# ---- values


@method
def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugate in memory of its own; a real tensor itself."""
    if not input.dtype.is_complex:
        return input
    return wrap(graph.unary("conj", node_of(input)))


def _both_parts(name: str, first: Tensor, second: Tensor) -> tuple[Node, Node]:
    a, b = as_node(name, first), as_node(name, second)
    if a.dtype is not b.dtype or a.dtype not in WHOLE:
        raise fail(name, f"takes two float32 or two float64 tensors, not {a.dtype.name} and "
                   f"{b.dtype.name}", "Convert them with .to(...).", TensorTypeError)
    a, b = graph.together(name, a, b)
    return a, b


@operation
def complex(real: Tensor, imag: Tensor) -> Tensor:
    """The complex numbers with these parts (both float32 or both float64); broadcasts."""
    return wrap(graph.make("complex", *_both_parts("complex", real, imag)))


@operation
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """The complex numbers of these sizes at these angles (radians)."""
    size, turn = _both_parts("polar", abs, angle)
    return wrap(graph.make("complex", graph.mul(size, graph.unary("cos", turn)),
                           graph.mul(size, graph.unary("sin", turn))))


@method
def angle(input: Tensor) -> Tensor:
    """The angle of complex numbers in (-pi, pi]; of real ones 0, or pi where negative."""
    node = as_node("angle", input)
    if node.dtype.is_complex:
        return wrap(graph.make("atan2", graph.unary("imag", node), graph.unary("real", node)))
    node = floating(node)
    turned = graph.where(graph.binary("lt", node, 0), graph.like(math.pi, node), 0.0)
    return wrap(graph.where(graph.make("ne", node, node), node, turned))


@method
def sgn(input: Tensor) -> Tensor:
    """x / |x|, and 0 of 0; of real numbers their sign."""
    node = as_node("sgn", input)
    if node.dtype is dtypes.bool_:
        return wrap(node)
    result = graph.unary("sign", node)
    if node.dtype.is_floating:  # PyTorch's sign of NaN is 0; that of the op is NaN
        result = graph.where(graph.make("ne", node, node), 0, result)
    return wrap(result)


INPLACE += ["conj_physical", "sgn"]


@method
def isreal(input: Tensor) -> Tensor:
    """Where the imaginary part is 0."""
    node = as_node("isreal", input)
    if not node.dtype.is_complex:
        return wrap(graph.const(True, dtypes.bool_, node.shape))
    return wrap(graph.binary("eq", graph.unary("imag", node), 0))
