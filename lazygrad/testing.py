"""`assert_close`, for tests of programs."""

from __future__ import annotations

from typing import Any

import numpy

import lazygrad as lg
from lazygrad_compiler.ir import dtypes

__all__ = ["assert_close"]

TOLERANCES = {dtypes.float16: (1e-3, 1e-5), dtypes.bfloat16: (1.6e-2, 1e-5),
              dtypes.float32: (1.3e-6, 1e-5), dtypes.float64: (1e-7, 1e-7),
              dtypes.complex64: (1.3e-6, 1e-5), dtypes.complex128: (1e-7, 1e-7)}
"""dtype -> (rtol, atol), PyTorch's; everything else has to be equal."""


def assert_close(actual: Any, expected: Any, *, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_dtype: bool = True,
                 msg: Any = None, **options: Any) -> None:
    """AssertionError unless both agree in shape, dtype, and values within the tolerances.

    Lists, tuples and dictionaries are compared element by element.
    """
    given = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype,
             "msg": msg}
    if isinstance(actual, dict) and isinstance(expected, dict):
        _same("keys", list(actual), list(expected), msg)
        for key in actual:
            assert_close(actual[key], expected[key], **given)
        return
    if isinstance(actual, (list, tuple)) and isinstance(expected, (list, tuple)):
        _same("lengths", len(actual), len(expected), msg)
        for left, right in zip(actual, expected):
            assert_close(left, right, **given)
        return
    left, right = lg.as_tensor(actual), lg.as_tensor(expected)
    _same("shapes", tuple(left.shape), tuple(right.shape), msg)
    if check_dtype:
        _same("dtypes", left.dtype, right.dtype, msg)
    both = (TOLERANCES.get(left.dtype, (0.0, 0.0)), TOLERANCES.get(right.dtype, (0.0, 0.0)))
    relative = max(pair[0] for pair in both) if rtol is None else rtol
    absolute = max(pair[1] for pair in both) if atol is None else atol
    mine, other = (each.detach().to(dtypes.complex128 if left.is_complex() else dtypes.float64)
                   .numpy(force=True) if each.is_floating_point() or each.is_complex()
                   else each.detach().numpy(force=True) for each in (left, right))
    close = numpy.isclose(mine, other, relative, absolute, equal_nan)
    if not close.all():
        raise AssertionError(_text(msg, (
            f"Tensor-likes are not close!\n\nMismatched elements: {(~close).sum()} / {close.size}\n"
            f"Greatest absolute difference: {numpy.abs(mine - other).max()} "
            f"(up to {absolute} allowed, and {relative} of the expected value)")))


def _same(what: str, actual: Any, expected: Any, msg: Any) -> None:
    if actual != expected:
        raise AssertionError(_text(msg, f"The {what} differ: {actual} != {expected}."))


def _text(msg: Any, standard: str) -> str:
    return standard if msg is None else msg(standard) if callable(msg) else str(msg)
