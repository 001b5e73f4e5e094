"""How the rows of decoding (all queries that share a head of keys) lie in vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import Function, Value


@dataclass(frozen=True, slots=True)
class Layout:
    """All rows' scores of one key lie together, then those of the next key.

    Rows are cut into `groups` of `rows` each, which take `slots` of a vector's `lanes`: the next
    power of two.  keys: how many a vector has scores of.  stride: elements from key to key.
    """

    groups: int
    rows: int
    slots: int
    lanes: int

    @staticmethod
    def of(rows: int, lanes: int) -> Layout:
        groups = -(-rows // lanes)
        each = -(-rows // groups)
        return Layout(groups, each, 1 << (each - 1).bit_length(), lanes)

    @property
    def keys(self) -> int:
        return self.lanes // self.slots if self.groups == 1 else 1

    @property
    def stride(self) -> int:
        return self.slots if self.groups == 1 else self.groups * self.lanes

    def place(self, f: Function, row: Value) -> Value:
        """The element of a row among all rows'."""
        if self.groups == 1:
            return row
        return f.add(f.mul(f.udiv(row, self.rows), self.lanes), f.urem(row, self.rows))

    def together(
        self, f: Function, value: Value, combine: Callable[[Value, Value], Value]
    ) -> Value:
        """What the lanes of each row of a vector come to together, in all of them."""
        step = self.lanes // 2
        while step >= self.slots:
            order = [lane ^ step for lane in range(self.lanes)]
            value = combine(value, f.shuffle(value, None, order))
            step //= 2
        return value
