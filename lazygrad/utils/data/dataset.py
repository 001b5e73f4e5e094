"""Datasets: indexed ones (`Dataset`), streams (`IterableDataset`), and ways to combine them."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy

import lazygrad as lg
from lazygrad._core.entries import Entry, entry
from lazygrad.utils.data.randomness import numpy_generator

Item = TypeVar("Item", covariant=True)


class Dataset(Entry, Generic[Item]):
    """Items by index: subclasses define `__getitem__`, and `__len__` for most samplers."""

    def __getitem__(self, index: Any) -> Item:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Item]):
    """A stream of items: subclasses define `__iter__`.

    With several workers each iterates over its own copy: use `get_worker_info()` to share the work
    out.
    """

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__")

    def __add__(self, other: Dataset[Any]) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[lg.Tensor, ...]]):
    """Tensors of equal first size; an item is the tuple of their rows."""

    def __init__(self, *tensors: lg.Tensor) -> None:
        if not tensors:
            raise ValueError("TensorDataset needs at least one tensor")
        sizes = [tensor.shape[0] for tensor in tensors]
        if any(size != sizes[0] for size in sizes):
            raise ValueError("TensorDataset: size mismatch between tensors: the first sizes are "
                             f"{sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[lg.Tensor, ...]:
        if isinstance(index, lg.Tensor) or any(tensor.requires_grad for tensor in self.tensors):
            return tuple(tensor[index] for tensor in self.tensors)
        # Rows of values that are there are taken without recording anything: each index would be a
        # graph of its own.
        return tuple(_own(tensor.detach().numpy()[index]) for tensor in self.tensors)

    def rows(self, indices: Sequence[int]) -> list[numpy.ndarray]:
        """One array for each tensor with the rows at the indices: what collating the items
        gives.
        """
        return [numpy.take(tensor.detach().numpy(), indices, axis=0) for tensor in self.tensors]

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getstate__(self) -> list[numpy.ndarray]:
        return [tensor.detach().numpy() for tensor in self.tensors]

    def __setstate__(self, arrays: list[numpy.ndarray]) -> None:
        self.tensors = tuple(_own(array) for array in arrays)


def _own(array: Any) -> lg.Tensor:
    return lg.from_numpy(numpy.array(array))


class StackDataset(Dataset[Any]):
    """Datasets of equal length side by side: items are tuples, or dicts where they are given by
    name.
    """

    def __init__(self, *args: Dataset[Any], **kwargs: Dataset[Any]) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset takes datasets by position or by name, at least one "
                             "and not both")
        self.datasets: Any = kwargs or args
        lengths = {len(dataset) for dataset in (kwargs.values() or args)}  # type: ignore[arg-type]
        if len(lengths) != 1:
            raise ValueError(f"Size mismatch between datasets: {sorted(lengths)}")
        self._length = lengths.pop()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Items at indices, asking datasets that give several at a time for all of them."""
        if isinstance(self.datasets, dict):
            columns = [items_at(dataset, indices) for dataset in self.datasets.values()]
            return [dict(zip(self.datasets, items)) for items in zip(*columns)]
        return list(zip(*(items_at(dataset, indices) for dataset in self.datasets)))

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Any]):
    """Datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset does not support IterableDataset; use ChainDataset")
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range: the dataset has {len(self)} items")
        index %= len(self)
        position = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[position - 1] if position else 0
        return self.datasets[position][index - before]


class ChainDataset(IterableDataset[Any]):
    """Streams one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        super().__init__()
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError("ChainDataset only supports IterableDataset")
            yield from dataset

    def __len__(self) -> int:
        lengths: list[int] = [len(dataset) for dataset in self.datasets]  # type: ignore[arg-type]
        return sum(lengths)


class Subset(Dataset[Any]):
    """The items of a dataset at given indices."""

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[position] for position in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> Sequence[Any]:
        return items_at(self.dataset, [self.indices[index] for index in indices])

    def __len__(self) -> int:
        return len(self.indices)


def items_at(dataset: Any, indices: Sequence[Any]) -> Sequence[Any]:
    """The items at indices: by `__getitems__` where the dataset has it.  ValueError where that
    gives too few or too many.
    """
    several = getattr(dataset, "__getitems__", None)
    if not callable(several):
        return [dataset[index] for index in indices]
    items = several(list(indices))
    if len(items) != len(indices):
        raise ValueError(f"{type(dataset).__name__}.__getitems__ gave {len(items)} items for "
                         f"{len(indices)} indices")
    return items


@entry
def random_split(dataset: Dataset[Any], lengths: Sequence[int | float],
                 generator: Any = None) -> list[Subset]:
    """Shuffled, non-overlapping subsets of given lengths, or of given shares that sum to 1."""
    total = len(dataset)  # type: ignore[arg-type]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        if any(not 0 <= share <= 1 for share in lengths):
            raise ValueError(f"shares must be between 0 and 1, and they are {list(lengths)}")
        sizes = [math.floor(total * share) for share in lengths]
        for position in range(total - sum(sizes)):
            sizes[position % len(sizes)] += 1
        for position, size in enumerate(sizes):
            if size == 0:
                warnings.warn(f"Length of split at index {position} is 0. This might result in an "
                              "empty dataset.", stacklevel=2)
    else:
        sizes = [int(length) for length in lengths]
    if sum(sizes) != total:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset! "
                         f"They sum to {sum(sizes)}, and the dataset has {total} items")
    order = numpy_generator(generator).permutation(total).tolist()
    ends = list(accumulate(sizes))
    return [Subset(dataset, order[end - size:end]) for size, end in zip(sizes, ends)]
