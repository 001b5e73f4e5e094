"""Finding, sorting, sets and picking, with the standard's arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad.array_api._elementwise import promoted
from lazygrad.functional._operands import axis_of

__all__ = ["argsort", "isin", "nonzero", "searchsorted", "sort", "take", "take_along_axis",
           "unique_all", "unique_counts", "unique_inverse", "unique_values", "where"]


class UniqueAll(NamedTuple):
    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    values: Tensor
    inverse_indices: Tensor


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """Where x is not zero: one array of positions for each axis; looks at the values."""
    if not x.ndim:
        raise fail("nonzero", "a 0-d array has no positions", kind=ValueError)
    return tuple(lazygrad.nonzero(x, as_tuple=True))


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition holds, else x2."""
    return lazygrad.where(condition, *promoted("where", x1, x2))


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left",
                 sorter: Tensor | None = None) -> Tensor:
    """Where x2 would go into the sorted x1."""
    if isinstance(x2, Tensor):
        x1, x2 = promoted("searchsorted", x1, x2)
    else:
        x2 = lazygrad.tensor(x2, dtype=x1.dtype)
    return lazygrad.searchsorted(x1, x2, side=side, sorter=sorter)


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Which elements of x1 are in x2."""
    x1, x2 = (each if isinstance(each, Tensor) else lazygrad.tensor(each) for each in (x1, x2))
    found = lazygrad.isin(*promoted("isin", x1, x2))
    return ~found if invert else found


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False,
         stable: bool = True) -> Tensor:
    return lazygrad.sort(x, dim=axis, descending=descending, stable=stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False,
            stable: bool = True) -> Tensor:
    return lazygrad.argsort(x, dim=axis, descending=descending, stable=stable)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Slices of x along an axis; it may be left out of one-dimensional arrays only."""
    if axis is None:
        if x.ndim != 1:
            raise fail("take", f"needs an axis for {x.ndim} axes", "Say axis=….", ValueError)
        axis = 0
    axis = axis_of("take", axis, x.ndim)
    if indices.ndim == 1:
        places = lazygrad.where(indices < 0, indices + x.shape[axis], indices)
        return lazygrad.index_select(x, axis, places)
    return x[(*(slice(None),) * axis, indices)]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """Elements of x along an axis, by an array of positions of the same rank."""
    axis = axis_of("take_along_axis", axis, x.ndim)
    places = lazygrad.where(indices < 0, indices + x.shape[axis], indices)
    return lazygrad.take_along_dim(x, places, axis)


def unique_all(x: Tensor, /) -> UniqueAll:
    """Distinct values in order, their first positions in the flattened array, where each element
    went, and how often each is there; looks at the values.
    """
    flat = x.reshape(-1)
    values, inverse, counts = lazygrad.unique(flat, return_inverse=True, return_counts=True)
    order = lazygrad.argsort(flat, stable=True)
    starts = lazygrad.cumsum(counts, 0) - counts
    first = lazygrad.index_select(order, 0, starts)
    return UniqueAll(values, first, inverse.reshape(x.shape), counts)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    return UniqueCounts(*lazygrad.unique(x, return_counts=True))


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    values, inverse = lazygrad.unique(x, return_inverse=True)
    return UniqueInverse(values, inverse.reshape(x.shape))


def unique_values(x: Tensor, /) -> Tensor:
    return lazygrad.unique(x)
