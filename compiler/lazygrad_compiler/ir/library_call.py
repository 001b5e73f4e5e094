"""What one library call is: a row of the table in `library.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from lazygrad_compiler.ir.dtypes import DType, dtype_of_numpy
from lazygrad_compiler.ir.node import Shape

Array = numpy.ndarray
Signature = tuple[tuple[DType, Shape], ...]
"""Dtype and shape of each operand, or of each result."""
Options = tuple[Any, ...]
"""Numbers, strings, None and tuples of them: part of the program, stored as JSON."""


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """A function of whole arrays that NumPy computes.

    name: as users know it.  infer(operands, options): dtype and shape of every result; ValueError
    where something does not fit.  function(options, *arrays): the results, in the same order;
    numpy.linalg.LinAlgError where there is none.  cores: of each operand, how many trailing axes
    make one item; the axes before them are the batch (empty: the call has no batch).  hint: what
    to do when it fails.
    """

    name: str
    infer: Callable[[Signature, Options], Signature]
    function: Callable[..., tuple[Array, ...]]
    about: str
    cores: tuple[int, ...] = ()
    hint: str = ""

    def failing_item(self, options: Options, arrays: tuple[Array, ...]) -> tuple[int, ...] | None:
        """The first place in the batch for which the function fails alone; None without a batch."""
        if not self.cores:
            return None
        batch = arrays[0].shape[: arrays[0].ndim - self.cores[0]]
        if not batch:
            return None
        for place in numpy.ndindex(*batch):
            try:
                self.function(options, *(array[place] for array in arrays))
            except numpy.linalg.LinAlgError:
                return place
        return None


def real_of(dtype: DType) -> DType:
    """The dtype of the parts of a complex number; a real one itself."""
    if not dtype.is_complex:
        return dtype
    return dtype_of_numpy(numpy.empty(0, dtype.numpy).real.dtype)


def complex_of(dtype: DType) -> DType:
    """The complex dtype of the same precision."""
    if dtype.is_complex:
        return dtype
    return dtype_of_numpy(numpy.result_type(dtype.numpy, numpy.complex64))


def spelled(shape: Shape) -> str:
    """A shape as people write it."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
