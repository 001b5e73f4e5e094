"""Library calls for symmetric indefinite matrices: the factorization of Bunch and Kaufman (1977).

NumPy has no such function; this is the unblocked algorithm (Golub and Van Loan, section 4.4), with
results in the compact form that LAPACK's `sytrf` gives for the lower triangle: below the diagonal
the multipliers, on it D with blocks of one or two.  A pivot p > 0 at k says that rows k and p - 1
were exchanged; two equal pivots -p at k and k + 1 mark a block of two, whose second row was
exchanged with p - 1.
"""

from __future__ import annotations

import math

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.library_call import Array, LibraryCall, Options, Signature
from lazygrad_compiler.ir.library_linalg import check_matrices, square

ALPHA = (1 + math.sqrt(17)) / 8
"""Bounds the growth of elements the same in steps of one and of two (Bunch and Kaufman)."""


def _infer_factor(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (dtype, shape), (dtypes.int32, shape[:-1]), (dtypes.int32, shape[:-2])


def _size(values: Array) -> Array:
    """|re| + |im|, by which LAPACK chooses pivots."""
    return numpy.abs(values.real) + numpy.abs(values.imag)


def _choose(trailing: Array) -> tuple[int, int]:
    """(size of the next block of D, row to exchange its last row with), counted in `trailing`."""
    size = _size(trailing[:, 0])
    here = size[0]
    if len(size) == 1:
        return 1, 0
    below = 1 + int(size[1:].argmax())
    largest = size[below]
    if max(here, largest) == 0 or here >= ALPHA * largest:
        return 1, 0
    row = _size(trailing[below])
    diagonal, row[below] = row[below], 0
    most = row.max()
    if here * most >= ALPHA * largest * largest:
        return 1, 0
    return (1, below) if diagonal >= ALPHA * most else (2, below)


def _exchange(rows: Array, one: int, other: int) -> None:
    rows[[one, other]] = rows[[other, one]]


def _factor_one(a: Array, hermitian: bool) -> tuple[Array, Array, int]:
    lower = numpy.tril(a, -1)
    full = lower + (lower.conj().T if hermitian else lower.T)
    diagonal = numpy.diagonal(a)
    full[numpy.diag_indices(len(a))] = diagonal.real if hermitian else diagonal
    pivots = numpy.zeros(len(a), numpy.int32)
    info = k = 0
    while k < len(a):
        trailing = full[k:, k:]
        step, row = _choose(trailing)
        if row != step - 1:
            _exchange(trailing, step - 1, row)
            _exchange(trailing.T, step - 1, row)
        pivots[k : k + step] = (k + row + 1) * (1 if step == 1 else -1)
        block = trailing[:step, :step]
        columns = trailing[step:, :step]
        if step == 1 and block[0, 0] == 0:
            info = info or k + 1
        elif columns.size:
            multipliers = numpy.linalg.solve(block.T, columns.T).T
            turned = columns.conj().T if hermitian else columns.T
            trailing[step:, step:] -= multipliers @ turned
            trailing[step:, :step] = multipliers
        k += step
    return numpy.tril(full), pivots, info


def _factor(options: Options, a: Array) -> tuple[Array, Array, Array]:
    """options: (hermitian,)."""
    batch, n = a.shape[:-2], a.shape[-1]
    ld, info = numpy.zeros_like(a), numpy.zeros(batch, numpy.int32)
    pivots = numpy.zeros((*batch, n), numpy.int32)
    for place in numpy.ndindex(*batch):
        ld[place], pivots[place], info[place] = _factor_one(a[place], bool(options[0]))
    return ld, pivots, info


def _infer_solve(operands: Signature, options: Options) -> Signature:
    check_matrices((operands[0], operands[2]), (0,))
    return (operands[2],)


def _solve_one(ld: Array, pivots: Array, b: Array, hermitian: bool) -> Array:
    x = b.copy()
    n, k = len(ld), 0
    blocks: list[tuple[int, int, int]] = []
    while k < n:
        step = 1 if pivots[k] > 0 else 2
        row = abs(int(pivots[k])) - 1
        if not k <= row < n or k + step > n:
            raise numpy.linalg.LinAlgError(f"{int(pivots[k])} is no pivot of row {k}")
        blocks.append((k, step, row))
        _exchange(x, k + step - 1, row)
        x[k + step :] -= ld[k + step :, k : k + step] @ x[k : k + step]
        block = ld[k : k + step, k : k + step].copy()
        if step == 2:
            block[0, 1] = block[1, 0].conj() if hermitian else block[1, 0]
            x[k : k + 2] = numpy.linalg.solve(block, x[k : k + 2])
        else:
            x[k] /= block[0, 0]
        k += step
    for k, step, row in reversed(blocks):
        columns = ld[k + step :, k : k + step]
        x[k : k + step] -= (columns.conj().T if hermitian else columns.T) @ x[k + step :]
        _exchange(x, k + step - 1, row)
    return x


def _solve(options: Options, ld: Array, pivots: Array, b: Array) -> tuple[Array]:
    """options: (hermitian,)."""
    x = numpy.zeros_like(b)
    for place in numpy.ndindex(*ld.shape[:-2]):
        x[place] = _solve_one(ld[place], pivots[place], b[place], bool(options[0]))
    return (x,)


CALLS: dict[str, LibraryCall] = {
    call.name: call
    for call in (
        LibraryCall(
            "linalg.ldl_factor",
            _infer_factor,
            _factor,
            "(LD, pivots, info); options (hermitian,)",
            (2,),
        ),
        LibraryCall(
            "linalg.ldl_solve",
            _infer_solve,
            _solve,
            "X with A X = B, from LD and pivots; options (hermitian,)",
            (2, 1, 2),
        ),
    )
}
