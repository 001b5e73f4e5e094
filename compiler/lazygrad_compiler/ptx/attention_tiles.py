"""Memory of an attention kernel: tiles of operands on their way in, of results on their way out,
and masks.

A tile is some rows of an operand, padded with zeros: rows beyond the operand's last, and columns
up to the width that the products need.  Rows that lie in whole 16-byte pieces are copied
asynchronously, others go element by element through registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.attention import Operand
from lazygrad_compiler.ptx.attention_products import (
    PIECE_COLUMNS,
    PIECE_ROWS,
    Products,
    Sums,
    piece,
)
from lazygrad_compiler.ptx.builder import WARP, KernelFunction
from lazygrad_compiler.ptx.tensor_core import copy_async, copy_async_or_zero

I32, I64 = "i32", "i64"


def power_of_two(value: int) -> int:
    """The least one that is not smaller."""
    return 1 << max(value - 1, 0).bit_length()


def scaled(f: KernelFunction, value: Value, factor: int) -> Value:
    """An i32 that is not negative, times a constant, as i64."""
    return f.mul(f.wide(value), factor) if factor else const(I64, 0)


def head_pointer(
    f: KernelFunction, operand: Operand, batch: Value, head: Value, element: str
) -> Value:
    """Where the operand's rows of one head begin."""
    place = f.add(scaled(f, batch, operand.strides[0]), scaled(f, head, operand.strides[1]))
    return f.offset(f.parameters[operand.buffer], f.add(place, operand.offset), element)


class TileLoader:
    """Brings `rows` rows of an operand into shared memory, by all threads of the block.

    width: columns that the tile has, zeros included.
    """

    def __init__(
        self,
        f: KernelFunction,
        products: Products,
        operand: Operand,
        rows: int,
        width: int,
        threads: int,
    ) -> None:
        self.f, self.products, self.operand, self.rows = f, products, operand, rows
        self.extent, self.used = operand.shape[2], operand.shape[3]
        self.row_stride = operand.strides[2]
        chunk = products.chunk
        across = width // chunk
        lanes = power_of_two(across)
        thread = f.thread()
        column, self.row = f.and_(thread, lanes - 1), f.lshr(thread, lanes.bit_length() - 1)
        self.at_once = threads // lanes
        self.has_column = f.icmp("ult", column, across) if lanes != across else None
        self.column = f.mul(column, chunk)
        self.place = f.add(f.mul(self.row, products.pitch), self.column)
        self.source = f.add(scaled(f, self.row, self.row_stride), f.wide(self.column))
        self.aligned = self.used % chunk == 0 and operand.offset % chunk == 0 and all(
            stride % chunk == 0 or size == 1
            for stride, size in zip(operand.strides[:3], operand.shape[:3], strict=True)
        )
        self.holds = f.icmp("slt", self.column, self.used) if self.used < width else None
        """Whether the thread's column has elements of the operand."""

    def copy(self, target: Value, pointer: Value, first: Value) -> None:
        """Asks for the rows from `first` on (i32) of the head that begins at `pointer`."""
        if not self.aligned:
            self._copy_elements(target, pointer, first)
            return
        f, pitch = self.f, self.products.pitch
        element = self.products.element
        source = f.add(self.source, scaled(f, first, self.row_stride))
        source = f.offset(pointer, source, element)
        target = f.offset(target, self.place, element)
        row = f.add(first, self.row)
        for begin in range(0, self.rows, self.at_once):
            wanted = self.has_column
            if begin + self.at_once > self.rows:
                wanted = self._both(f.icmp("slt", self.row, self.rows - begin), wanted)
            there = f.offset(target, begin * pitch, element) if begin else target
            here = f.offset(source, begin * self.row_stride, element) if begin else source
            present = self.holds
            if self.extent % self.rows:
                number = f.add(row, begin) if begin else row
                present = self._both(f.icmp("slt", number, self.extent), present)
            if wanted is None:
                self._piece(there, here, present)
            else:
                with f.when(wanted, "piece"):
                    self._piece(there, here, present)

    def _both(self, a: Value, b: Value | None) -> Value:
        return a if b is None else self.f.and_(a, b)

    def _piece(self, target: Value, source: Value, present: Value | None) -> None:
        """16 bytes."""
        if present is None:
            copy_async(self.f, target, source)
        else:
            copy_async_or_zero(self.f, target, source, present)

    def _copy_elements(self, target: Value, pointer: Value, first: Value) -> None:
        """The slow way, in a loop: few registers matter more here than loads in flight."""
        f, products = self.f, self.products
        element = products.element
        zero = const(element, 0.0 if element == "float" else 0)
        with f.grid_stride(self.row, const(I32, self.rows), self.at_once, "row") as row:
            number = f.add(first, row)
            present = f.icmp("slt", number, self.extent)
            source = f.add(scaled(f, number, self.row_stride), f.wide(self.column))
            values = []
            for offset in range(products.chunk):
                inside = f.and_(present, f.icmp("slt", self.column, self.used - offset))
                place = f.select(inside, f.add(source, offset), const(I64, 0))
                loaded = f.load(element, f.offset(pointer, place, element), products.bytes)
                values.append(f.select(inside, loaded, zero))
            place = f.add(f.mul(row, products.pitch), self.column)
            vector, address = f.pack(values), products.at(target, place)
            if self.has_column is None:
                f.store(vector, address, 16)
            else:
                with f.when(self.has_column, "piece"):
                    f.store(vector, address, 16)


class RowWriter:
    """Writes a warp's sums as rows of a result, which lies row by row without gaps, through the
    warp's own rows of a tile in shared memory.
    """

    def __init__(self, f: KernelFunction, products: Products, operand: Operand) -> None:
        self.f, self.products, self.operand = f, products, operand

    def write(
        self, sums: Sums, pieces: int, tile: Value, batch: Value, head: Value, first: Value
    ) -> None:
        """first: the block's first row of the result.  The tile is not read any more."""
        f, products = self.f, self.products
        element = products.element
        self._stage(sums, pieces, tile)
        width, rows = self.operand.shape[3], self.operand.shape[2]
        lanes = products.chunk if width % products.chunk == 0 else 1
        across = width // lanes
        height = PIECE_ROWS * products.rows
        team = max(min(power_of_two(across), WARP), WARP // height)
        lane = products.lane
        column, row = f.and_(lane, team - 1), f.lshr(lane, team.bit_length() - 1)
        pointer = head_pointer(f, self.operand, batch, head, element)
        for begin in range(0, height, WARP // team):
            own = f.add(f.add(row, begin), products.first_row)
            number = f.add(own, first)
            with f.when(f.icmp("slt", number, rows), "row"):
                for start in range(0, across, team):
                    place = f.add(column, start) if start else column
                    inside = f.icmp("slt", place, across)
                    with f.when(inside, "vector"):
                        place = f.mul(place, lanes)
                        held = f.add(f.mul(own, products.pitch), place)
                        target = f.add(scaled(f, number, width), f.wide(place))
                        type_ = f"<{lanes} x {element}>" if lanes > 1 else element
                        align = lanes * products.bytes
                        value = f.load(type_, products.at(tile, held), align)
                        f.store(value, f.offset(pointer, target, element), align)

    def _stage(self, sums: Sums, pieces: int, tile: Value) -> None:
        f, products = self.f, self.products
        place = f.add(products.first_row, products.row)
        place = f.add(f.mul(place, products.pitch), products.column)
        base = products.at(tile, place)
        f.warp_barrier()
        for i in range(products.rows):
            for j in range(pieces):
                for half in (0, 1):
                    begin = piece(pieces, i, j) + 2 * half
                    pair = f.pack(sums[begin : begin + 2])
                    if products.bytes == 2:
                        narrow = products.dtype is dtypes.bfloat16
                        type_ = "<2 x bfloat>" if narrow else "<2 x half>"
                        pair = f.bitcast(f.convert("fptrunc", pair, type_), "i32")
                    down = (PIECE_ROWS * i + 8 * half) * products.pitch
                    address = products.at(base, down + PIECE_COLUMNS * j)
                    f.store(pair, address, 2 * products.bytes)
        f.warp_barrier()


class MaskReader:
    """Elements of a mask at the scores that a thread holds.

    down, right: the mask's axes that run along rows and columns of scores.
    """

    def __init__(self, f: KernelFunction, mask: Operand, down: int, right: int) -> None:
        self.f, self.mask = f, mask
        self.element = scalar.memory_type(mask.dtype)
        steps = [0 if size == 1 else step for size, step in
                 zip(mask.shape, mask.strides, strict=True)]
        self.steps, self.sizes = steps, mask.shape
        self.down, self.right = down, right
        self.pairs = steps[right] == 1 and all(
            step % 2 == 0 for axis, step in enumerate(steps) if axis != right
        ) and mask.shape[right] % 2 == 0

    def start(self, batch: Value, head: Value) -> Value:
        f, steps = self.f, self.steps
        place = f.add(scaled(f, batch, steps[0]), scaled(f, head, steps[1]))
        return f.offset(f.parameters[self.mask.buffer], place, self.element)

    def values(
        self, pointer: Value, rows: Sequence[Value], columns: Sequence[Value]
    ) -> list[list[Value]]:
        """By row and column; columns come in pairs of neighbours, of which the first is even.
        Places beyond the mask's last repeat it.
        """
        f = self.f
        starts = [
            scaled(f, self._clamped(row, self.down, 1), self.steps[self.down]) for row in rows
        ]
        found: list[list[Value]] = [[] for _ in rows]
        known: dict[tuple[int, int], list[Value]] = {}
        for pair in range(0, len(columns), 2):
            places = self._places(columns[pair : pair + 2])
            for number, start in enumerate(starts):
                key = (
                    number if self.steps[self.down] else 0,
                    pair if self.steps[self.right] else 0,
                )
                if key not in known:
                    known[key] = self._loaded(pointer, start, places)
                found[number] += known[key]
        return found

    def _clamped(self, number: Value, axis: int, width: int) -> Value:
        """The place along an axis, or the last one where `width` elements are there."""
        f, last = self.f, max(self.sizes[axis] - width, 0)
        return f.select(f.icmp("slt", number, last), number, const(I32, last))

    def _places(self, columns: Sequence[Value]) -> list[Value]:
        width = 2 if self.pairs else 1
        used = columns[:1] if self.pairs else columns
        return [
            scaled(self.f, self._clamped(column, self.right, width), self.steps[self.right])
            for column in used
        ]

    def _loaded(self, pointer: Value, start: Value, places: Sequence[Value]) -> list[Value]:
        f, dtype = self.f, self.mask.dtype
        size = dtype.itemsize
        addresses = [
            f.offset(pointer, f.add(start, place), self.element) for place in places
        ]
        if self.pairs:
            both = f.load(scalar.memory_type(dtype, 2), addresses[0], 2 * size)
            loaded = f.unpack(both)
        else:
            loaded = [f.load(self.element, address, size) for address in addresses]
        return [scalar.from_memory(f, value, dtype) for value in loaded]
