"""Library calls of the discrete Fourier transform.

Three primitives, as in PyTorch: complex to complex, real to half a spectrum, half a spectrum to
real.  Each takes the axes and a scale: "none", "root" (1 / sqrt(n)) or "all" (1 / n), where n is
the product of the transformed sizes.  Single precision stays single.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.library_call import (
    Array,
    LibraryCall,
    Options,
    Signature,
    complex_of,
    real_of,
    spelled,
)

SCALES = ("none", "root", "all")
Norm = Literal["backward", "ortho", "forward"]
FORWARD_NORM: dict[str, Norm] = {"none": "backward", "root": "ortho", "all": "forward"}
INVERSE_NORM: dict[str, Norm] = {"none": "forward", "root": "ortho", "all": "backward"}
"""NumPy's names: which of the two directions carries the factor 1 / n."""


def _checked(operands: Signature, axes: tuple[int, ...], scale: str) -> tuple[DType, tuple]:
    dtype, shape = operands[0]
    if dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise ValueError(f"is not defined for {dtype.name}; convert to float32, float64 or complex")
    if scale not in SCALES:
        raise ValueError(f"the scale is one of {', '.join(SCALES)}, not {scale!r}")
    for axis in axes:
        if not 0 <= axis < len(shape):
            raise ValueError(f"axis {axis} does not exist in {spelled(shape)}")
        if shape[axis] < 1:
            raise ValueError(f"axis {axis} of {spelled(shape)} has no elements to transform")
    return dtype, shape


def _infer_c2c(operands: Signature, options: Options) -> Signature:
    axes, scale, _ = options
    dtype, shape = _checked(operands, axes, scale)
    return ((complex_of(dtype), shape),)


def _c2c(options: Options, x: Array) -> tuple[Array]:
    """options: (axes, scale, inverse)."""
    axes, scale, inverse = options
    transform: Any = numpy.fft.ifftn if inverse else numpy.fft.fftn
    names = INVERSE_NORM if inverse else FORWARD_NORM
    return (transform(x, axes=axes, norm=names[scale]),)


def _infer_r2c(operands: Signature, options: Options) -> Signature:
    axes, scale = options
    dtype, shape = _checked(operands, axes, scale)
    if dtype.is_complex:
        raise ValueError(f"takes real numbers, not {dtype.name}")
    half = list(shape)
    half[axes[-1]] = shape[axes[-1]] // 2 + 1
    return ((complex_of(dtype), tuple(half)),)


def _r2c(options: Options, x: Array) -> tuple[Array]:
    """options: (axes, scale); the last of the axes is halved."""
    axes, scale = options
    return (numpy.fft.rfftn(x, axes=axes, norm=FORWARD_NORM[scale]),)


def _infer_c2r(operands: Signature, options: Options) -> Signature:
    axes, scale, last = options
    dtype, shape = _checked(operands, axes, scale)
    if last < 1 or shape[axes[-1]] != last // 2 + 1:
        raise ValueError(f"{last} real values have {last // 2 + 1} frequencies, not "
                         f"{shape[axes[-1]]}")
    whole = list(shape)
    whole[axes[-1]] = last
    return ((real_of(dtype), tuple(whole)),)


def _c2r(options: Options, x: Array) -> tuple[Array]:
    """options: (axes, scale, size of the last axis)."""
    axes, scale, last = options
    sizes = [x.shape[axis] for axis in axes[:-1]] + [last]
    return (numpy.fft.irfftn(x, s=sizes, axes=axes, norm=INVERSE_NORM[scale]),)


CALLS: dict[str, LibraryCall] = {
    call.name: call
    for call in (
        LibraryCall("fft.c2c", _infer_c2c, _c2c, "transform; options (axes, scale, inverse)"),
        LibraryCall(
            "fft.r2c",
            _infer_r2c,
            _r2c,
            "transform of reals, the half of it that tells the rest; options (axes, scale)",
        ),
        LibraryCall(
            "fft.c2r",
            _infer_c2r,
            _c2r,
            "inverse transform of half a spectrum; options (axes, scale, last size)",
        ),
    )
}
