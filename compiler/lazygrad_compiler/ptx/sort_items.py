"""What sorts on a GPU compare: items of a key and a position, the position breaking ties.

Keys are those of `llvm/sort_keys.py`, compared as unsigned numbers, so that every method gives the
one stable order.  Keys of up to 32 bits and their positions are one number of 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType, dtype_named
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.sort_keys import Keys
from lazygrad_compiler.ptx.arrays import Step
from lazygrad_compiler.ptx.builder import KernelFunction


def item_dtypes(dtype: DType) -> tuple[DType, ...]:
    """The arrays that hold half-sorted items."""
    return (dtypes.uint64, dtypes.uint32) if dtype.itemsize == 8 else (dtypes.uint64,)


def keys_of(step: Step) -> Keys:
    """The keys of what a step sorts, whose dtype its name ends with."""
    attrs = step.kernel.attrs
    # top_k is descending if it wants the largest
    descending = {"argsort": lambda: attrs[0], "top_k": lambda: attrs[1]}
    return Keys(dtype_named(step.words[-1]),
                bool(descending.get(step.kernel.op, lambda: False)()))


@dataclass(frozen=True, slots=True)
class Item:
    """number: key and position together, or the key alone where they do not fit."""

    number: Value
    position: Value | None = None


class Items:
    """Items of one dtype: how they are made, compared, kept in memory."""

    def __init__(self, step: Step) -> None:
        self.f: KernelFunction = step.f
        self.keys = keys_of(step)
        self.dtype = self.keys.dtype
        self.apart = self.dtype.itemsize == 8

    def of(self, raw: Value, position: Value) -> Item:
        """raw: the element's bits.  position: i32."""
        f = self.f
        return self.made(self.keys.key(f, self.keys.carried(f, raw)), position)

    def made(self, key: Value, position: Value) -> Item:
        f = self.f
        if self.apart:
            return Item(key, position)
        return Item(f.or_(f.shl(f.wide(key), 32), f.wide(position)))

    def last(self) -> Item:
        """What comes after everything."""
        end = const("i64", -1)
        return Item(end, const("i32", -1)) if self.apart else Item(end)

    def less(self, a: Item, b: Item) -> Value:
        f = self.f
        below = f.icmp("ult", a.number, b.number)
        if a.position is None or b.position is None:
            return below
        tied = f.icmp("eq", a.number, b.number)
        return f.or_(below, f.and_(tied, f.icmp("ult", a.position, b.position)))

    def position(self, item: Item) -> Value:
        """In the row, as i64."""
        f = self.f
        if item.position is not None:
            return f.wide(item.position)
        return f.and_(item.number, 0xFFFFFFFF)

    def choose(self, condition: Value, a: Item, b: Item) -> Item:
        f = self.f
        number = f.select(condition, a.number, b.number)
        if a.position is None or b.position is None:
            return Item(number)
        return Item(number, f.select(condition, a.position, b.position))

    def load(self, arrays: list[Value], place: Value) -> Item:
        f = self.f
        number = f.load(I64, f.offset(arrays[0], place, I64), 8)
        if not self.apart:
            return Item(number)
        return Item(number, f.load("i32", f.offset(arrays[1], place, "i32"), 4))

    def store(self, arrays: list[Value], place: Value, item: Item) -> None:
        f = self.f
        f.store(item.number, f.offset(arrays[0], place, I64), 8)
        if item.position is not None:
            f.store(item.position, f.offset(arrays[1], place, "i32"), 4)

    def shared(self, count: int) -> list[Value]:
        f = self.f
        arrays = [f.shared_address(f.module.shared(8 * count))]
        if self.apart:
            arrays.append(f.shared_address(f.module.shared(4 * count)))
        return arrays
