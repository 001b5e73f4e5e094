"""What saving and loading share: the format's constants, its error, entries of archives, and
tensors over bytes.
"""

from __future__ import annotations

import os
import zipfile
from itertools import pairwise
from typing import Any, BinaryIO

import numpy

import lazygrad as lg

FORMAT = "lazygrad"
VERSION = 1
MANIFEST = "manifest.json"
MOST_AXES = 64

File = str | os.PathLike | BinaryIO


class FileFormatError(RuntimeError):
    """The file is truncated, damaged, or not one of ours."""


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes.  Compressed entries are refused: a small file could fill the memory."""
    try:
        information = archive.getinfo(name)
    except KeyError:
        raise FileFormatError(f"the entry {name} is missing") from None
    if information.compress_type != zipfile.ZIP_STORED:
        raise FileFormatError(f"the entry {name} is compressed, which save never does")
    return archive.read(name)


def as_tensor_view(storage: numpy.ndarray, base: Any, offset: Any, shape: Any, strides: Any) -> Any:
    """A tensor over a flat storage, given in elements; FileFormatError where it would reach
    outside.

    storage: flat array.  base: None, or the flat tensor that several views share.
    """
    numbers = [offset, *shape, *strides]
    if any(type(number) is not int or not 0 <= number < 2**62 for number in numbers) \
            or len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise FileFormatError(f"a tensor of shape {shape}, strides {strides} and offset {offset} "
                              "makes no sense")
    empty = 0 in shape
    reach = 0 if empty else offset + 1 + sum((size - 1) * step for size,
                                             step in zip(shape, strides))
    if reach > storage.size:
        raise FileFormatError(f"a tensor of shape {shape} reaches over the end of its data")
    if empty:
        return lg.from_numpy(numpy.zeros(shape, storage.dtype))
    if base is not None:
        aliasing = _strided_view(base, offset, shape, strides)
        if aliasing is not None:
            return aliasing
    view = numpy.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * storage.itemsize for step in strides])
    return lg.from_numpy(view if view.flags.c_contiguous else numpy.array(view, order="C"))


def _strided_view(base: Any, offset: int, shape: list[int], strides: list[int]) -> Any:
    """A view of a flat tensor made by slicing a row-major shape and reordering its axes; None where
    that cannot be.

    The axes in order of falling strides s0, s1, ... are cut out of the shape (size // s0, s0 // s1,
    s1 // s2, ...).
    """
    axes = sorted((axis for axis, size in enumerate(shape) if size != 1),
                  key=lambda axis: -strides[axis])
    steps = [strides[axis] for axis in axes]
    if 0 in steps or any(outer % inner for outer, inner in pairwise(steps)):
        return None
    if not axes:
        return base[offset].reshape(shape)
    rows = base.numel() // steps[0]
    parents = [rows, *(outer // inner for outer, inner in pairwise(steps)), steps[-1]]
    index: list[Any] = []
    rest = offset
    for axis, step, parent in zip(axes, steps, parents):
        start, rest = divmod(rest, step)
        if start + shape[axis] > parent:
            return None
        index.append(slice(start, start + shape[axis]))
    view = base[:rows * steps[0]].view(parents)[(*index, rest)]
    view = view.permute(sorted(range(len(axes)), key=lambda position: axes[position]))
    for axis, size in enumerate(shape):
        if size == 1:
            view = view.unsqueeze(axis)
    return view
