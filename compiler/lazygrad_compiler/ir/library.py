"""Library calls: what a program leaves to LAPACK and FFT, through NumPy.

`LIBRARY` has a row for each call: what comes out, and the function on arrays that computes it.  The
interpreter and the runtime call the same function.  A call with several results is one op
`library(call, options, part)` for each result that is used; parts of one call run as one launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir import (
    library_factor,
    library_fft,
    library_linalg,
    library_random,
    library_symmetric,
)
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, fail
from lazygrad_compiler.ir.library_call import LibraryCall, Options
from lazygrad_compiler.ir.library_pairs import paired
from lazygrad_compiler.ir.node import IRError, Node, Shape

LIBRARY: dict[str, LibraryCall] = {
    **library_linalg.CALLS,
    **library_factor.CALLS,
    **library_symmetric.CALLS,
    **library_fft.CALLS,
    **library_random.CALLS,
}
LIBRARY |= paired(LIBRARY)


def infer_library(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    """The part's dtype and shape."""
    name, options, part = attrs
    call = LIBRARY.get(name)
    if call is None:
        raise fail(definition, f"there is no library call {name!r}")
    try:
        results = call.infer(tuple((value.dtype, value.shape) for value in inputs), options)
        return results[part]
    except (ValueError, IndexError, TypeError) as error:
        raise IRError(f"[{name}] {error}") from None


def run_library(name: str, options: Options, arrays: Sequence[numpy.ndarray]) -> tuple[Any, ...]:
    """All results of a call.  Warnings of NumPy about NaN and overflow are no errors here."""
    with numpy.errstate(all="ignore"):
        return LIBRARY[name].function(options, *arrays)
