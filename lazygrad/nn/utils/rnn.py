"""Sequences of different lengths: padding them to one tensor, and packing them without padding.

Packed data holds all first steps, then all second steps, and so on, longest sequence first, so that
a recurrent step works on the sequences that are still running.  Lengths are looked at when a
sequence is packed; what follows is gathers at known places.
"""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.context import fail

__all__ = ["PackedSequence", "invert_permutation", "pack_padded_sequence", "pad_packed_sequence",
           "pad_sequence", "unpad_sequence", "pack_sequence", "unpack_sequence"]

_Fields = namedtuple("_Fields", ["data", "batch_sizes", "sorted_indices", "unsorted_indices"])


def _numbers(values: Any) -> list[int]:
    """Whole numbers of a list or of a tensor, which is looked at."""
    if isinstance(values, lg.Tensor):
        kept = values.__dict__.get("_known_numbers")
        return list(kept) if kept is not None else [int(each) for each in values.tolist()]
    return [int(each) for each in values]


def _tensor_of(numbers: Sequence[int]) -> lg.Tensor:
    """An int64 tensor that remembers its numbers, so that reading them back computes nothing."""
    made = lg.tensor(list(numbers), dtype=lg.int64)
    made.__dict__["_known_numbers"] = tuple(numbers)
    return made


class PackedSequence(_Fields):
    """Sequences without padding: data (total, *), batch_sizes (longest,), and the order.

    batch_sizes[t]: how many sequences have a step t.  sorted_indices: which sequence of the batch
    each row belongs to, longest first; None where the batch came sorted.
    """

    __slots__ = ()

    def __new__(cls, data: lg.Tensor, batch_sizes: lg.Tensor | None = None,
                sorted_indices: lg.Tensor | None = None,
                unsorted_indices: lg.Tensor | None = None) -> PackedSequence:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            raise fail("PackedSequence", "needs batch_sizes", "Use pack_padded_sequence.",
                       ValueError)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    @property
    def sizes(self) -> list[int]:
        """batch_sizes as numbers."""
        return _numbers(self.batch_sizes)

    def with_data(self, data: lg.Tensor) -> PackedSequence:
        """The same sequences with other data."""
        return PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self.with_data(self.data.to(*args, **kwargs))

    def cpu(self) -> PackedSequence:
        return self

    def pin_memory(self) -> PackedSequence:
        return self

    def double(self) -> PackedSequence:
        return self.to(dtype=lg.float64)

    def float(self) -> PackedSequence:
        return self.to(dtype=lg.float32)

    def half(self) -> PackedSequence:
        return self.to(dtype=lg.float16)

    @property
    def is_cuda(self) -> bool:
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        return False


def invert_permutation(permutation: lg.Tensor | None) -> lg.Tensor | None:
    """The permutation that undoes the given one."""
    if permutation is None:
        return None
    order = _numbers(permutation)
    back = [0] * len(order)
    for place, number in enumerate(order):
        back[number] = place
    return _tensor_of(back)


def _sizes_of(lengths: Sequence[int]) -> list[int]:
    """How many sequences have a step t, for every t."""
    return [sum(length > t for length in lengths) for t in range(max(lengths))]


def pack_padded_sequence(input: lg.Tensor, lengths: Any, batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """(T, N, *), or (N, T, *) with batch_first, without its padding.

    lengths: (N,), each at least 1; with enforce_sorted they must not grow.
    """
    name = "pack_padded_sequence"
    counts = _numbers(lengths)
    if batch_first:
        input = input.transpose(0, 1)
    if input.ndim < 2 or len(counts) != input.shape[1]:
        raise fail(name, f"{len(counts)} lengths for an input of {tuple(input.shape)}",
                   "There is one length for each sequence of the batch.")
    if not counts or min(counts) < 1 or max(counts) > input.shape[0]:
        raise fail(name, f"lengths {counts} must be greater than 0 and at most the "
                   f"{input.shape[0]} steps of the input")
    order = None
    if enforce_sorted:
        if any(after > before for before, after in itertools.pairwise(counts)):
            raise fail(name, f"lengths {counts} must be sorted in decreasing order",
                       "Pass enforce_sorted=False.")
        ranks = list(range(len(counts)))
    else:
        ranks = sorted(range(len(counts)), key=lambda each: -counts[each])
        order = _tensor_of(ranks)
    sizes = _sizes_of(counts)
    batch = len(counts)
    places = [t * batch + ranks[row] for t, size in enumerate(sizes) for row in range(size)]
    flat = input.reshape(-1, *input.shape[2:])
    data = flat.index_select(0, lg.from_numpy(numpy.array(places, numpy.int64)).to(input.device))
    return PackedSequence(data, _tensor_of(sizes), order)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False,
                        padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[lg.Tensor, lg.Tensor]:
    """The inverse of `pack_padded_sequence`: the padded tensor, and the lengths."""
    sizes = sequence.sizes
    longest = len(sizes)
    if total_length is not None and total_length < longest:
        raise fail("pad_packed_sequence", f"total_length {total_length} is below the longest "
                   f"sequence, {longest}", kind=ValueError)
    time, batch = total_length or longest, sizes[0]
    starts = numpy.concatenate([[0], numpy.cumsum(sizes)])
    rows = list(range(batch)) if sequence.unsorted_indices is None \
        else _numbers(sequence.unsorted_indices)
    places = numpy.zeros((time, batch), numpy.int64)
    present = numpy.zeros((time, batch), bool)
    for t, size in enumerate(sizes):
        for column, row in enumerate(rows):
            if row < size:
                places[t, column], present[t, column] = starts[t] + row, True
    lengths = _tensor_of(present.sum(0).tolist())
    if batch_first:
        places, present = places.T.copy(), present.T.copy()
    data = sequence.data
    flat = data.index_select(0, lg.from_numpy(places.reshape(-1)).to(data.device))
    padded = flat.reshape(*places.shape, *data.shape[1:])
    if not present.all():
        gaps = lg.from_numpy(~present).reshape(*present.shape, *(1,) * (data.ndim - 1))
        padded = padded.masked_fill(gaps.to(data.device), padding_value)
    return padded, lengths


def pad_sequence(sequences: Iterable[lg.Tensor], batch_first: bool = False,
                 padding_value: float = 0.0, padding_side: str = "right") -> lg.Tensor:
    """Tensors (length, *) as one (longest, N, *), or (N, longest, *) with batch_first."""
    parts = list(sequences)
    if not parts or any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        raise fail("pad_sequence", "takes tensors that differ in their first axis only, not "
                   f"{[tuple(part.shape) for part in parts]}")
    if padding_side not in ("left", "right"):
        raise fail("pad_sequence", f"padding_side {padding_side!r} is neither 'left' nor 'right'")
    longest = max(part.shape[0] for part in parts)
    padded = []
    for part in parts:
        gap = longest - part.shape[0]
        sides = [0, 0] * (part.ndim - 1) + ([0, gap] if padding_side == "right" else [gap, 0])
        padded.append(lg.nn.functional.pad(part, sides, value=padding_value))
    return lg.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: lg.Tensor, lengths: Any,
                   batch_first: bool = False) -> list[lg.Tensor]:
    """The inverse of `pad_sequence`."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    counts = _numbers(lengths)
    return [sequence[:count] for sequence, count in zip(padded_sequences, counts, strict=True)]


def pack_sequence(sequences: Iterable[lg.Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (length, *) packed."""
    parts = list(sequences)
    return pack_padded_sequence(pad_sequence(parts), [part.shape[0] for part in parts],
                                enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[lg.Tensor]:
    """The inverse of `pack_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
