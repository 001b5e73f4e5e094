"""Records of Fourier transforms, short-time transforms and windows."""

from __future__ import annotations

from typing import Any

import numpy

from .record import (
    COMPLEX,
    FULL_FLOATS,
    REAL_AND_COMPLEX,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

ALL_FLOATS = (*FULL_FLOATS, *COMPLEX)
COMPLEX_RESULT = {"dtypes": ALL_FLOATS, "gradients": REAL_AND_COMPLEX}
REAL_ONLY = {"dtypes": FULL_FLOATS, "gradients": ("float64",)}


def along_one_axis(make: Maker) -> list[Sample]:
    return [
        sample(make(2, 5)),
        sample(make(3, 4), 6, 0, "ortho"),
        sample(make(2, 5), 3, norm="forward"),
        sample(make(4), norm="backward"),
    ]


def along_two_axes(make: Maker) -> list[Sample]:
    return [
        sample(make(2, 3, 4)),
        sample(make(3, 4), (5, 2), (1, 0), "ortho"),
        sample(make(2, 3, 4), s=(-1, 5), dim=(0, 2), norm="forward"),
    ]


def along_many_axes(make: Maker) -> list[Sample]:
    return [*along_two_axes(make), sample(make(2, 3, 4), s=(2, 6)), sample(make(3, 4), dim=(0,))]


def error(match: str, *arguments: Any, kind: Any = RuntimeError, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(*arguments, **keywords), kind, match)


ONES = numpy.ones((2, 4))
ERRORS = (
    error("norm", ONES, norm="none"),
    error("at least 1 point", ONES, 0),
    error("dim 2", ONES, dim=2, kind=IndexError),
    error("float16", ONES.astype(numpy.float16)),
    error("at least 1 axis", numpy.ones(())),
    error("whole", ONES, 2.5, kind=TypeError),
)
MANY_ERRORS = (
    error("norm", ONES, norm="none"),
    error("at least 1 point", ONES, (0, 2)),
    error("twice", ONES, dim=(1, -1)),
    error("sizes", ONES, (2, 2), (0,)),
)
NOT_REAL = error("real", ONES.astype(numpy.complex64))


TRANSFORMS = [
    OperationRecord("fft.fft", along_one_axis, compile=True, out=True, errors=ERRORS,
                    **COMPLEX_RESULT),
    OperationRecord("fft.ifft", along_one_axis, errors=ERRORS, **COMPLEX_RESULT),
    OperationRecord("fft.rfft", along_one_axis, errors=(*ERRORS, NOT_REAL), **REAL_ONLY),
    OperationRecord("fft.irfft", along_one_axis, errors=ERRORS, **COMPLEX_RESULT),
    OperationRecord("fft.hfft", along_one_axis, errors=ERRORS, **COMPLEX_RESULT),
    OperationRecord("fft.ihfft", along_one_axis, errors=(*ERRORS, NOT_REAL), **REAL_ONLY),
    OperationRecord(
        "fft.fft", along_one_axis, dtypes=("int64", "bool"), gradients=(), variant="integers"
    ),
]

SEVERAL_AXES = [
    OperationRecord(f"fft.{name}{suffix}", samples, errors=(*MANY_ERRORS, *more), **kinds)
    for suffix, samples in (("2", along_two_axes), ("n", along_many_axes))
    for names, kinds, more in (
        (("fft", "ifft", "irfft", "hfft"), COMPLEX_RESULT, ()),
        (("rfft", "ihfft"), REAL_ONLY, (NOT_REAL,)),
    )
    for name in names
]


def shifted(make: Maker) -> list[Sample]:
    return [sample(make(2, 5)), sample(make(4, 5), dim=1), sample(make(3, 4), dim=(0, -1))]


FREQUENCIES = [
    OperationRecord(f"fft.{name}", lambda make: [
        sample(5), sample(4, 0.5), sample(1), sample(6, d=2.0, dtype=make.dtype)
    ], gradients=(), errors=(error("number of points", -1),))
    for name in ("fftfreq", "rfftfreq")
] + [
    OperationRecord(f"fft.{name}", shifted, dtypes=("float32", "int64", "complex64"),
                    gradients=REAL_AND_COMPLEX, accepts=("rank 0 at 0",),
                    note="One number stays as it is, as in NumPy.")
    for name in ("fftshift", "ifftshift")
]


def spectrograms(make: Maker) -> list[Sample]:
    window = make(8, low=0.3, high=1.0)
    return [
        sample(make(2, 20), 8, window=window, return_complex=True),
        sample(make(20), 8, 3, window=window, normalized=True, return_complex=True),
        sample(make(2, 20), 8, 5, 6, window[:6], center=False, onesided=False,
               return_complex=True),
        sample(make(20), 8, pad_mode="constant", return_complex=False, window=window),
    ]


def signals(make: Maker) -> list[Sample]:
    """Spectrograms of signals, for windows that overlap everywhere."""
    window = make(8, low=0.5, high=1.0, dtype="float64" if "128" in make.dtype else "float32")
    return [
        Sample((make(2, 5, 6), 8), {"window": window}, (0,)),
        Sample((make(5, 6), 8, 3), {"window": window, "normalized": True, "length": 20}, (0,)),
        Sample((make(2, 5, 3), 8, 5), {"window": window, "center": False}, (0,)),
        Sample((make(8, 6), 8), {"window": window, "onesided": False}, (0,)),
        # ends in 0: nothing is divided by the weight that the cut ends have
        Sample((make(5, 6), 8), {"window": numpy.hanning(9)[:8].astype(window.dtype)}, (0,)),
    ]


SHORT_TIME = [
    OperationRecord(
        "stft",
        spectrograms,
        dtypes=(*FULL_FLOATS, *COMPLEX),
        gradients=REAL_AND_COMPLEX,
        method=True,
        errors=(
            error("return_complex", numpy.ones(20), 8),
            error("larger", numpy.ones(5), 8, center=False, return_complex=True),
            error("reflected", numpy.ones(3), 8, return_complex=True),
            error("win_length", numpy.ones(20), 8, win_length=9, return_complex=True),
            error("window", numpy.ones(20), 8, window=numpy.ones(7), return_complex=True),
            error("hop_length", numpy.ones(20), 8, 0, return_complex=True),
            error("signal", numpy.ones((1, 1, 20)), 8, return_complex=True),
        ),
    ),
    OperationRecord(
        "istft",
        signals,
        dtypes=COMPLEX,
        gradients=("complex128",),
        method=True,
        errors=(
            error("complex", numpy.ones((5, 3)), 8),
            error("frequencies", numpy.ones((4, 3), numpy.complex64), 8),
            error("no frames", numpy.ones((5, 0), numpy.complex64), 8),
            error("without weight", numpy.ones((5, 4), numpy.complex64), 8, 4, 8,
                  numpy.zeros(8, numpy.float32)),
            error("without weight", numpy.ones((5, 4), numpy.complex64), 8, 4, 8,
                  numpy.hanning(8).astype("float32"), center=False),
        ),
    ),
]


def windows(make: Maker) -> list[Sample]:
    return [
        sample(length, periodic, dtype=make.dtype)
        for length in (0, 1, 2, 5, 8)
        for periodic in (True, False)
    ]


WINDOWS = [
    OperationRecord(f"{name}_window", windows, gradients=(), tolerance={"float64": (1e-9, 1e-12)},
                    errors=(error("at least 0", -1), error("floating", 3, dtype="int64"),
                            error("whole", 2.5, kind=TypeError)))
    for name in ("hann", "hamming", "blackman", "bartlett", "kaiser")
]

RECORDS = [*TRANSFORMS, *SEVERAL_AXES, *FREQUENCIES, *SHORT_TIME, *WINDOWS]
