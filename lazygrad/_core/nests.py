"""Nests: tuples, lists, dicts and named tuples that hold tensors, as arguments and as results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from lazygrad._core.tensor import Tensor


def rebuild(nest: Any, items: list[Any]) -> Any:
    """A nest of the same kind with other items, in the order of `parts_of`."""
    kind = type(nest)
    if isinstance(nest, dict):
        return kind(zip(nest, items, strict=True))
    return kind(*items) if hasattr(nest, "_fields") else kind(items)


def parts_of(value: Any) -> list[Any] | None:
    """The items of a nest, or None for anything else."""
    kind = type(value)
    if kind is tuple or kind is list or (isinstance(value, tuple) and hasattr(value, "_fields")):
        return list(value)
    if kind is dict or kind is OrderedDict:
        return list(value.values())
    return None


def replace(value: Any, replacement: Callable[[Tensor], Any]) -> Any:
    """The same nest with every tensor replaced."""
    if isinstance(value, Tensor):
        return replacement(value)
    items = parts_of(value)
    if items is None:
        return value
    return rebuild(value, [replace(item, replacement) for item in items])


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for item in parts_of(value) or ():
        yield from tensors_in(item)
