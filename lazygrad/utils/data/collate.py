"""Making a batch of items: nested structures of arrays, tensors and numbers, stacked leaf by leaf.

The work is done on NumPy arrays; leaves become tensors at the end.  Worker processes leave that end
out and hand arrays over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.entries import entry


class Handed:
    """An array on its way to become a tensor: what workers send for tensors."""

    __slots__ = ("array",)

    def __init__(self, array: numpy.ndarray) -> None:
        self.array = array

    def __getstate__(self) -> Any:
        return self.array

    def __setstate__(self, array: Any) -> None:
        self.array = array


def mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A nested structure with every instance of `kind` changed; containers keep their type."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (str, bytes)):
        return value
    if isinstance(value, Mapping):
        changed = {key: mapped(inner, kind, change) for key, inner in value.items()}
        return changed if type(value) is dict else _like(value, changed)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(inner, kind, change) for inner in value))
    if type(value) in (list, tuple):
        return type(value)(mapped(inner, kind, change) for inner in value)
    return value


def _like(original: Any, changed: Any) -> Any:
    """The changed container in the type of the original, where that can be made from it."""
    try:
        return type(original)(changed)
    except TypeError:
        return changed


def to_handed(value: Any) -> Any:
    """Tensors as arrays, for the way between processes."""
    return mapped(value, lg.Tensor,
                  lambda tensor: Handed(numpy.ascontiguousarray(tensor.detach().numpy())))


def to_tensors(value: Any) -> Any:
    """Arrays that came from tensors as tensors again."""
    return mapped(value, Handed, lambda handed: lg.from_numpy(_writable(handed.array)))


def _writable(array: numpy.ndarray) -> numpy.ndarray:
    return array if array.flags.writeable else array.copy()


def default_convert(data: Any) -> Any:
    """Arrays and NumPy numbers as tensors, the rest as it is: what a loader without batches does to
    items.
    """
    if isinstance(data, lg.Tensor):
        return data
    if isinstance(data, (numpy.ndarray, numpy.generic)):
        return data if data.dtype.kind in "SUO" else lg.from_numpy(numpy.array(data))
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, tuple):
        return [default_convert(value) for value in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like(data, [default_convert(value) for value in data])
    return data


@entry
def default_collate(batch: Sequence[Any]) -> Any:
    """A batch of items: arrays, tensors and numbers stacked along a new first axis, within dicts,
    tuples and lists.

    Whole numbers become int64, Python floats float64, strings stay a list.
    """
    return to_tensors(collate_arrays(batch))


def collate_arrays(batch: Sequence[Any]) -> Any:
    """`default_collate` with `Handed` arrays in place of tensors."""
    first = batch[0]
    if isinstance(first, lg.Tensor):
        if first.is_cuda:
            return lg.stack(list(batch))
        return Handed(_stacked([item.detach().numpy() for item in batch]))
    if isinstance(first, (numpy.ndarray, numpy.generic)):
        if first.dtype.kind in "SUO":
            raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, "
                            f"dicts or lists; found an array of {first.dtype}")
        return Handed(_stacked([numpy.asarray(item) for item in batch]))
    if isinstance(first, bool):
        return Handed(numpy.array(batch, numpy.bool_))
    if isinstance(first, float):
        return Handed(numpy.array(batch, numpy.float64))
    if isinstance(first, int):
        return Handed(numpy.array(batch, numpy.int64))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return _like(first, {key: collate_arrays([item[key] for item in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(collate_arrays(parts) for parts in zip(*batch)))
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        parts = [collate_arrays(part) for part in zip(*batch)]
        return parts if isinstance(first, tuple) else _like(first, parts)
    raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or "
                    f"lists; found {type(first)}; pass a collate_fn of your own")


def _stacked(arrays: list[numpy.ndarray]) -> numpy.ndarray:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise RuntimeError("default_collate: the items of a batch differ in shape: "
                           f"{', '.join(map(str, sorted(shapes)))}; pad them, or pass a collate_fn "
                           "of your own")
    return numpy.stack(arrays)
