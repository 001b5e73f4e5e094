"""Library calls on complex arrays whose parts lie along a last axis.

Compiled programs know complex values only as pairs of real ones.  For every row of `LIBRARY` there
is another, its name followed by " of pairs", that takes a complex operand of shape S as floats of
shape S + (2,), and gives complex results in the same way.  The bytes are those of a complex array,
so the views cost nothing.  Its options are (the call's options, which operands are complex).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.dtypes import DType, dtype_named, dtype_of_numpy
from lazygrad_compiler.ir.library_call import Array, LibraryCall, Options, Signature
from lazygrad_compiler.ir.node import Shape

PAIRED = " of pairs"


def _complex_of(dtype: DType) -> numpy.dtype:
    return numpy.dtype(f"complex{2 * dtype.bits}")


def _joined(dtype: DType, shape: Shape) -> tuple[DType, Shape]:
    return dtype_of_numpy(_complex_of(dtype)), shape[:-1]


def _apart(dtype: DType, shape: Shape) -> tuple[DType, Shape]:
    if not dtype.is_complex:
        return dtype, shape
    return dtype_of_numpy(f"float{dtype.bits // 2}"), (*shape, 2)


def _as_complex(array: Array) -> Array:
    whole = numpy.ascontiguousarray(array).view(f"complex{16 * array.dtype.itemsize}")
    return whole.reshape(array.shape[:-1])


def _as_pairs(array: Array) -> Array:
    array = numpy.asarray(array)
    if array.dtype.kind != "c":
        return array
    flat = numpy.ascontiguousarray(array).reshape(-1)
    return flat.view(f"float{4 * array.dtype.itemsize}").reshape(*array.shape, 2)


def _paired(row: LibraryCall) -> LibraryCall:
    def operands(options: Options, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(
            _as_complex(array) if is_complex else array
            for array, is_complex in zip(arrays, options[1], strict=True)
        )

    def infer(signature: Signature, options: Options) -> Signature:
        plain = tuple(
            _joined(*operand) if is_complex else operand
            for operand, is_complex in zip(signature, options[1], strict=True)
        )
        return tuple(_apart(*result) for result in row.infer(plain, options[0]))

    def function(options: Options, *arrays: Array) -> tuple[Any, ...]:
        results = row.function(options[0], *operands(options, arrays))
        return tuple(_as_pairs(result) for result in results)

    class Paired(LibraryCall):
        __slots__ = ()

        def failing_item(
            self, options: Options, arrays: tuple[Array, ...]
        ) -> tuple[int, ...] | None:
            return row.failing_item(options[0], operands(options, arrays))

    return Paired(row.name, infer, function, row.about, row.cores, row.hint)


def as_written(
    name: str, options: Options, operands: Sequence[tuple[str, Shape]]
) -> tuple[str, list[tuple[str, Shape]]]:
    """A call and its operands (dtype name, shape) as users know them, for messages."""
    if not name.endswith(PAIRED):
        return name, list(operands)
    shown = [
        (_joined(dtype_named(dtype), shape)[0].name, shape[:-1]) if is_complex else (dtype, shape)
        for (dtype, shape), is_complex in zip(operands, options[1], strict=True)
    ]
    return name.removesuffix(PAIRED), shown


def paired(rows: Mapping[str, LibraryCall]) -> dict[str, LibraryCall]:
    """The rows on pairs, for a table of rows."""
    return {name + PAIRED: _paired(row) for name, row in rows.items()}
