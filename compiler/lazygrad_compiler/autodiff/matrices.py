"""Formulas of matrices as nodes: what gradients of library calls are written with.

Matrices are the last two axes, vectors the last one; all axes before them are one batch, the same
in every operand.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import REAL_OF, Builder
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.library_call import Options
from lazygrad_compiler.ir.node import Node, Shape


class Matrices:
    """Makes nodes through a Builder, at its location."""

    __slots__ = ("at",)

    def __init__(self, at: Builder) -> None:
        self.at = at

    def call(self, name: str, *inputs: Node, options: Options = (), part: int = 0) -> Node:
        """One result of a library call."""
        return self.at.op("library", *inputs, attrs=(name, options, part))

    # ---- products

    def product(self, *factors: Node) -> Node:
        """The matrix product, from the left."""
        result = factors[0]
        for factor in factors[1:]:
            batch = tuple(range(result.ndim - 2))
            attrs = (batch, batch, (result.ndim - 1,), (factor.ndim - 2,))
            result = self.at.op("dot", result, factor, attrs=attrs)
        return result

    def transpose(self, a: Node) -> Node:
        return self.at.permute(a, (*range(a.ndim - 2), a.ndim - 1, a.ndim - 2))

    def adjoint(self, a: Node) -> Node:
        """Conjugated and transposed."""
        return self.transpose(self.at.conj(a))

    def of_rows(self, a: Node, factors: Node) -> Node:
        """diag(factors) A."""
        column = self.at.reshape(factors, (*factors.shape, 1))
        return self.at.mul(a, self.at.expand(self.like(column, a.dtype), a.shape))

    def of_columns(self, a: Node, factors: Node) -> Node:
        """A diag(factors)."""
        row = self.at.reshape(factors, (*factors.shape[:-1], 1, factors.shape[-1]))
        return self.at.mul(a, self.at.expand(self.like(row, a.dtype), a.shape))

    def scaled(self, a: Node, factor: Node) -> Node:
        """Each matrix times the number of its item."""
        number = self.at.reshape(factor, (*factor.shape, 1, 1))
        return self.at.mul(a, self.at.expand(self.like(number, a.dtype), a.shape))

    # ---- parts

    def _line(self, axis: int, shape: Shape) -> Node:
        return self.at.op("iota", attrs=(axis, dtypes.int64, shape))

    def on_diagonal(self, shape: Shape) -> Node:
        """Where row and column are the same."""
        rows, columns = self._line(len(shape) - 2, shape), self._line(len(shape) - 1, shape)
        return self.at.op("eq", rows, columns)

    def below(self, shape: Shape, strict: bool) -> Node:
        """Where the row is larger than the column (strict), or the same."""
        rows, columns = self._line(len(shape) - 2, shape), self._line(len(shape) - 1, shape)
        return self.at.op("lt" if strict else "le", columns, rows)

    def lower(self, a: Node, strict: bool = False) -> Node:
        """The lower triangle, with the diagonal unless strict."""
        return self.at.where(self.below(a.shape, strict), a, self.at.zeros(a))

    def upper(self, a: Node, strict: bool = False) -> Node:
        """The upper triangle, with the diagonal unless strict."""
        return self.at.where(self.below(a.shape, not strict), self.at.zeros(a), a)

    def half_diagonal(self, a: Node) -> Node:
        return self.at.where(self.on_diagonal(a.shape), self.at.scale(a, 0.5), a)

    def off_diagonal(self, a: Node) -> Node:
        return self.at.where(self.on_diagonal(a.shape), self.at.zeros(a), a)

    def diagonal(self, a: Node) -> Node:
        """The diagonal of square matrices, as vectors."""
        kept = self.at.where(self.on_diagonal(a.shape), a, self.at.zeros(a))
        return self.at.sum(kept, (a.ndim - 1,))

    def diagonal_matrix(self, vector: Node) -> Node:
        shape = (*vector.shape, vector.shape[-1])
        spread = self.at.expand(self.at.reshape(vector, (*vector.shape, 1)), shape)
        return self.only_diagonal(spread)

    def only_diagonal(self, a: Node) -> Node:
        """Only the diagonal of square matrices, zeros elsewhere."""
        return self.at.where(self.on_diagonal(a.shape), a, self.at.zeros(a))

    def identity(self, example: Node, size: int) -> Node:
        """Identities with the batch and dtype of a node."""
        shape = (*example.shape[:-2], size, size)
        one = self.at.const(1, example.dtype, shape)
        return self.at.where(self.on_diagonal(shape), one, self.at.zeros(one))

    def block(self, a: Node, rows: tuple[int, int], columns: tuple[int, int]) -> Node:
        """Rows and columns from the first to before the second of each pair."""
        part = self.at.slice_axis(a, a.ndim - 2, *rows)
        return self.at.slice_axis(part, a.ndim - 1, *columns)

    # ---- numbers

    def like(self, a: Node, dtype: DType) -> Node:
        """Real numbers as complex ones where asked; complex ones by their real part."""
        return self.at.cast(a, dtype)

    def real(self, a: Node) -> Node:
        return self.at.cast(a, REAL_OF[a.dtype]) if a.dtype.is_complex else a

    def imaginary(self, a: Node) -> Node:
        """The imaginary part of complex numbers."""
        return self.real(self.at.mul(a, self.at.like(a, -1j)))

    def differences(self, vector: Node) -> Node:
        """v[j] - v[i] in row i, column j; ones on the diagonal."""
        shape = (*vector.shape, vector.shape[-1])
        rows = self.at.expand(self.at.reshape(vector, (*vector.shape, 1)), shape)
        columns = self.at.expand(
            self.at.reshape(vector, (*vector.shape[:-1], 1, vector.shape[-1])), shape
        )
        apart = self.at.sub(columns, rows)
        return self.at.where(self.on_diagonal(shape), self.at.like(apart, 1), apart)
