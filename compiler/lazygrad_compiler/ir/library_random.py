"""Library calls that draw: binomial numbers, whose quantile has no formula worth a kernel.

The generator's bits come in as an operand, so that a call is a function of its operands like any
other, and the same seed gives the same numbers (of one version of NumPy).
"""

from __future__ import annotations

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.library_call import Array, LibraryCall, Options, Signature, spelled


def _infer_binomial(operands: Signature, options: Options) -> Signature:
    (dtype, shape), (other, counted), (words, key) = operands
    if not dtype.is_floating or other is not dtype or dtype.bits < 32:
        raise ValueError(f"takes float32 or float64, not {dtype.name} and {other.name}")
    if shape != counted:
        raise ValueError(f"{spelled(shape)} counts with {spelled(counted)} probabilities")
    if words is not dtypes.uint32 or key != (4,):
        raise ValueError("the key is four words of 32 bits")
    return ((dtype, shape),)


def _binomial(options: Options, count: Array, prob: Array, key: Array) -> tuple[Array]:
    """Hits in `count` trials of chance `prob`; 0 for a negative count or chance, NaN for NaN."""
    # a count that is no number, or too large for any answer, must not reach the integer cast
    trials = numpy.nan_to_num(numpy.clip(count, 0, 2.0**53)).astype(numpy.int64)
    chance = numpy.nan_to_num(numpy.clip(prob, 0, 1)).astype(numpy.float64)
    source = numpy.random.Generator(numpy.random.Philox(key=key.view(numpy.uint64)))
    drawn = source.binomial(trials, chance).astype(count.dtype)
    unknown = numpy.isnan(count) | numpy.isnan(prob)
    return (numpy.where(unknown, numpy.asarray(numpy.nan, count.dtype), drawn),)


CALLS: dict[str, LibraryCall] = {
    "binomial": LibraryCall(
        "binomial", _infer_binomial, _binomial,
        "inputs (count, prob, key): hits in so many trials, drawn by Philox under the key"),
}
