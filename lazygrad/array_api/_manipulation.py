"""Shapes of arrays, with the standard's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad._core.types import promote_types
from lazygrad.functional._operands import axes_of, axis_of

__all__ = ["broadcast_arrays", "broadcast_shapes", "broadcast_to", "concat", "expand_dims", "flip",
           "moveaxis", "permute_dims", "repeat", "reshape", "roll", "squeeze", "stack", "tile",
           "unstack"]


def _of_one_dtype(name: str, arrays: Sequence[Tensor]) -> list[Tensor]:
    if not arrays:
        raise fail(name, "needs at least one array", kind=ValueError)
    dtype = arrays[0].dtype
    for each in arrays[1:]:
        dtype = promote_types(dtype, each.dtype)
    return [each.to(dtype) for each in arrays]


def broadcast_arrays(*arrays: Tensor) -> tuple[Tensor, ...]:
    return tuple(lazygrad.broadcast_tensors(*arrays))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all shapes broadcast to."""
    from lazygrad._core.graph import broadcast_shape
    result: tuple[int, ...] = ()
    for shape in shapes:
        result = broadcast_shape("broadcast_shapes", result, tuple(shape))
    return result


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    return lazygrad.broadcast_to(x, tuple(shape))


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other; axis=None flattens them first."""
    parts = _of_one_dtype("concat", arrays)
    if axis is None:
        return lazygrad.cat([each.reshape(-1) for each in parts])
    return lazygrad.cat(parts, axis)


def expand_dims(x: Tensor, /, axis: int = 0) -> Tensor:
    """A new axis of size 1."""
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise fail("expand_dims", f"axis {axis} does not exist in {x.ndim + 1} axes",
                   kind=IndexError)
    return x.unsqueeze(axis)


def flip(x: Tensor, /, *, axis: Any = None) -> Tensor:
    """Backwards along axes; all of them by default."""
    return lazygrad.flip(x, axes_of("flip", axis, x.ndim)) if x.ndim else x


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    return lazygrad.movedim(x, source, destination)


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    return x.permute(tuple(axes))


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element several times; flattened first where axis is None."""
    return lazygrad.repeat_interleave(x, repeats, axis)


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """Another shape; copy=False raises ValueError where the memory does not allow a view."""
    shape = tuple(shape)
    if copy is False:
        try:
            return x.view(shape)
        except RuntimeError:
            raise fail("reshape", "this array cannot be reshaped without a copy",
                       "Leave out copy=False.", ValueError) from None
    result = x.reshape(shape)
    return result.clone() if copy else result


def roll(x: Tensor, /, shift: Any, *, axis: Any = None) -> Tensor:
    """Moves elements along axes, round the end; over the flattened array without axes."""
    if axis is not None and isinstance(shift, int) and not isinstance(axis, int):
        shift = (shift,) * len(axis)
    return lazygrad.roll(x, shift, axis)


def squeeze(x: Tensor, /, axis: Any) -> Tensor:
    """Without axes of size 1; ValueError for any other size."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    found = [axis_of("squeeze", each, x.ndim) for each in axes]
    for each in found:
        if x.ndim and x.shape[each] != 1:
            raise fail("squeeze", f"axis {each} of {tuple(x.shape)} has not size 1",
                       kind=ValueError)
    return x.reshape([size for each, size in enumerate(x.shape) if each not in found])


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    return lazygrad.stack(_of_one_dtype("stack", arrays), axis)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    return lazygrad.tile(x, tuple(repetitions))


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    return tuple(lazygrad.unbind(x, axis))
