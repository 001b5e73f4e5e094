"""More ways to take tensors apart and put them together, all by movement of what is there.

Pieces under further names, diagonals of vectors, products and combinations of vectors, and the
`…_copy` variants, which give a tensor of its own where the plain name gives a view.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import Tensor, shape_of, wrap
from lazygrad._core.types import can_cast as _can_cast
from lazygrad._core.values import Size
from lazygrad.functional import strided, views
from lazygrad.functional._operands import as_node, axis_of, sizes_of
from lazygrad.functional.joining import diag_embed, meshgrid, vstack
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.ops import listed

__all__ = ["diagflat", "cartesian_prod", "combinations", "adjoint", "broadcast_shapes", "row_stack",
           "split_with_sizes", "dsplit", "unravel_index", "is_same_size", "is_nonzero",
           "is_signed", "can_cast", "typename"]


_MOST_CHOSEN = 1 << 28
"""Elements of the list of combinations: 2 GiB of indices, made in some seconds."""


@method
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A square matrix with all elements of `input` on a diagonal."""
    return diag_embed(input.reshape(-1), offset)


@operation
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All tuples of elements of some vectors, one in each row; of one vector, itself."""
    for each in tensors:
        if not isinstance(each, Tensor) or each.ndim != 1:
            raise fail("cartesian_prod", "takes vectors, not " + (
                listed(each.shape) if isinstance(each, Tensor) else type(each).__name__))
    if len(tensors) == 1:
        return views.view(tensors[0], tuple(tensors[0].shape))
    from lazygrad.functional.joining import stack
    return stack([each.reshape(-1) for each in meshgrid(*tensors, indexing="ij")], 1)


@operation
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All ways to choose r elements of a vector, in order, one in each row."""
    if not isinstance(input, Tensor):
        raise fail("combinations", f"takes a tensor, not {type(input).__name__}", kind=TypeError)
    if input.ndim != 1:
        raise fail("combinations", f"takes a vector, not {listed(input.shape)}")
    if r < 0:
        raise fail("combinations", f"r is {r}", "Choose at least 0 elements.")
    if r == 0:
        return wrap(graph.const(0, input.dtype, (0,)))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    size = len(input)
    count = math.comb(max(size + r - 1, 0) if with_replacement else size, r)
    if count * r > _MOST_CHOSEN:
        raise fail("combinations", f"{r} of {size} elements can be chosen in {count:.3g} ways, too "
                   "many to list", kind=MemoryError)
    chosen = itertools.chain.from_iterable(choose(range(size), r))
    from lazygrad.functional.creation import from_numpy
    return input[from_numpy(numpy.fromiter(chosen, numpy.int64, count * r).reshape(count, r))]


@method
def adjoint(input: Tensor) -> Tensor:
    """The last two axes exchanged, complex numbers conjugated."""
    if input.ndim < 2:
        raise fail("adjoint", f"needs at least 2 axes, not {listed(input.shape)}")
    return input.mH


@operation
def broadcast_shapes(*shapes: Any) -> Size:
    """The common shape of some shapes (each a tuple or a number)."""
    sizes = [sizes_of("broadcast_shapes", (shape,)) for shape in shapes]
    for shape in sizes:
        if min(shape, default=0) < 0:
            raise fail("broadcast_shapes", f"{listed(shape)} has a size below 0")
    return Size(graph.broadcast_shape("broadcast_shapes", *sizes)) if sizes else Size()


row_stack = vstack


@method
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces of the sizes given."""
    return views.split(input, list(split_sizes), dim)


@method
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along the third axis."""
    if input.ndim < 3:
        raise fail("dsplit", f"needs at least 3 axes, not {listed(input.shape)}")
    return views.split_evenly("dsplit", input, indices_or_sections, 2)


def _copied(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The variant of a view function whose results are tensors of their own."""
    def copy(*arguments: Any, **keywords: Any) -> Any:
        result = function(*arguments, **keywords)
        return result.clone() if isinstance(result, Tensor) else tuple(
            each.clone() for each in result)
    copy.__name__ = copy.__qualname__ = name
    copy.__doc__ = f"{function.__name__}, as a copy that shares no memory."
    return operation(copy)


_SLICES: dict[str, Callable[..., Any]] = {
    "alias_copy": lambda input: wrap(as_node("alias_copy", input)),
    "detach_copy": lambda input: input.detach(),
    "expand_copy": lambda input, size, *, implicit=False: input.expand(size),
    "slice_copy": lambda input, dim=0, start=None, end=None, step=1: input[
        (slice(None),) * axis_of("slice_copy", dim, input.ndim) + (slice(start, end, step),)],
    "unfold_copy": lambda input, dimension, size, step: strided.unfold(
        input, dimension, size, step),
    "unsafe_chunk": views.chunk,
    "unsafe_split": views.split,
    "unsafe_split_with_sizes": split_with_sizes,
    "narrow_copy": views.narrow,
    "as_strided_copy": strided.as_strided,
    "diagonal_copy": strided.diagonal,
    "permute_copy": views.permute,
    "select_copy": views.select,
    "split_copy": views.split,
    "split_with_sizes_copy": split_with_sizes,
    "squeeze_copy": views.squeeze,
    "t_copy": views.t,
    "transpose_copy": views.transpose,
    "unbind_copy": views.unbind,
    "unsqueeze_copy": views.unsqueeze,
    "view_copy": views.view,
}
for _name, _function in _SLICES.items():
    globals()[_name] = _copied(_name, _function)
    __all__.append(_name)
for _name in ("unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "narrow_copy"):
    METHODS[_name] = globals()[_name]


@operation
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The places, one tensor an axis, of row-major numbers in a shape."""
    sizes = sizes_of("unravel_index", (shape,))
    if not indices.dtype.is_integer:
        raise fail("unravel_index", f"indices are integers, not {indices.dtype.name}",
                   "Convert with .long().", TypeError)
    if min(sizes, default=0) < 0:
        raise fail("unravel_index", f"{listed(sizes)} has a size below 0")
    if 0 in sizes and indices.numel():
        raise fail("unravel_index", f"{listed(sizes)} has no places", kind=ZeroDivisionError)
    numbers, places = indices.long(), []
    for size in reversed(sizes):
        # As many as fit; what is left over belongs to the axes before.
        places.append(numbers.remainder(max(size, 1)))
        numbers = numbers.div(max(size, 1), rounding_mode="floor")
    return tuple(reversed(places))


# ---- questions


@method
def is_same_size(input: Tensor, other: Tensor) -> bool:
    return shape_of(input) == shape_of(other)


@method
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not zero; looks at the value."""
    if input.numel() != 1:
        raise fail("is_nonzero", f"the truth of a tensor {listed(input.shape)} is not one value",
                   "Use .any() or .all().")
    return bool(input)


@operation
def is_signed(input: Tensor) -> bool:
    return input.dtype.is_signed


def can_cast(from_: Any, to: Any) -> bool:
    """Whether in-place operations may put a result of dtype `from_` into a tensor of `to`."""
    for given in (from_, to):
        if not isinstance(given, DType):
            raise fail("can_cast", f"takes two dtypes, not {type(given).__name__}", kind=TypeError)
    return _can_cast(from_, to)


def typename(obj: Any) -> str:
    """The name of a type, or of the type of a value."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__name__ if kind.__module__ == "builtins" else \
        f"{kind.__module__}.{kind.__qualname__}"
