"""Emission of the maps around the products of Winograd's convolution (`ir/winograd.py`).

Vectors run along channels: a window's 36 elements are 36 vectors, and every load, store and
operation is a whole one, whatever the image's size.  Images have their channels apart, so a task
turns squares of positions and channels (64 shuffles for 256 elements) on their way between an image
and a band of it in scratch memory, which stays in the first cache:

  windows, tiles  a band of rows is read, turned, and its windows are mapped and stored
  image           the tiles of a band are mapped, turned, and written row by row

Neighbouring tasks are neighbouring channels, so that together they fill whole lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lazygrad_compiler.ir.winograd import MATRICES, POINTS, SIDE, TAPS, TILE, Matrix, tiles_along
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Function, Module, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.transpose import transpose
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.schedule import stretch
from lazygrad_compiler.target import Target

FLOAT, BYTES = "float", 4
AREA = TAPS * TAPS
LINE = 64
PAST_CACHES = 1 << 24
"""Bytes of mapped weights from which on they do not stay near until they are read."""
MOST_LANES = 16
"""What channels come in multiples of."""
TASK_MAPS, MAP_CYCLES = 32, 300
"""Maps of vectors that are worth a thread's while, and what one takes, about.  Beyond that a thread
takes a stretch of memory (`loops/schedule.py`).
"""


def emit_winograd(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    """The kernel of one part."""
    part, geometry = kernel.attrs
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    lanes = min(target.lanes(8 * BYTES), MOST_LANES)
    code = _Code(f, lanes, MATRICES[part], pointers[0], pointers[1])
    first, second = kernel.shapes
    maps, scratch = 1, 0
    if part in ("windows", "tiles", "image"):
        if part == "image":
            band = _Band.of_image(geometry, lanes, target)
            tasks = code.image(band, second, first[1])
        else:
            band = _Band.of_windows(first, geometry, part, lanes, target)
            tasks = code.windows(band, second)
        maps, scratch = band.deep * band.across, band.rows * band.columns * lanes * BYTES
    elif part == "weights":
        tasks = code.weights(second, bool(geometry[0]))
    else:
        tasks = code.taps(second)
    nbytes = sum(buffer.size * BYTES for buffer in kernel.buffers)
    run = stretch(MAP_CYCLES * maps, nbytes, tasks)
    return Work(tasks, max(1, TASK_MAPS // maps, run), scratch)


@dataclass(frozen=True, slots=True)
class _Band:
    """Images, cut into bands of tile rows, each of which fits into the first cache.

    count, height, width: of the images.  top, left: padding.  down, across: tiles of an image.
    deep: rows of tiles in a band, which divides `down`.  over: rows and columns that neighbouring
    windows share.  joined: rows are shorter than a vector, which takes several.
    """

    count: int
    height: int
    width: int
    top: int
    left: int
    down: int
    across: int
    over: int
    deep: int
    joined: bool

    @staticmethod
    def of_windows(
        shape: tuple[int, ...], geometry: tuple[int, ...], part: str, lanes: int, target: Target
    ) -> _Band:
        count, _, height, width = shape
        top, left, down, across, _ = geometry
        over = SIDE - TILE if part == "windows" else 0
        return _Band._cut(count, height, width, top, left, down, across, over, lanes, target)

    @staticmethod
    def of_image(geometry: tuple[int, ...], lanes: int, target: Target) -> _Band:
        count, height, width = geometry
        down, across = tiles_along(height), tiles_along(width)
        return _Band._cut(count, height, width, 0, 0, down, across, 0, lanes, target)

    @staticmethod
    def _cut(
        count: int, height: int, width: int, top: int, left: int, down: int, across: int,
        over: int, lanes: int, target: Target,
    ) -> _Band:  # fmt: skip
        def fits(deep: int) -> bool:
            elements = (TILE * deep + over) * (TILE * across + over) * lanes
            return elements * BYTES <= target.l1_bytes * 2 // 3

        deep = max(
            (d for d in range(1, down + 1) if down % d == 0 and fits(d)), default=1
        )
        joined = width < lanes and lanes % width == 0 and height * width % lanes == 0
        return _Band(
            count, height, width, top, left, down, across, over, deep, joined and deep == down
        )

    @property
    def bands(self) -> int:
        return self.down // self.deep

    @property
    def rows(self) -> int:
        return TILE * self.deep + self.over

    @property
    def columns(self) -> int:
        return TILE * self.across + self.over


@dataclass(slots=True)
class _Code:
    """One part under emission."""

    f: Function
    lanes: int
    matrix: Matrix
    source: Value
    target: Value

    @property
    def vector(self) -> str:
        return vector_of(FLOAT, self.lanes)

    @contextmanager
    def tasks(self, *extents: int) -> Iterator[list[Value]]:
        """A loop over the tasks; gives the task's place along each of the extents."""
        f = self.f
        _, begin, end, _ = f.parameters
        with f.loop(begin, end, 1, hint="task") as loop:
            rest, places = loop.index, []
            for extent in reversed(extents):
                places.append(f.urem(rest, extent))
                rest = f.udiv(rest, extent)
            yield places[::-1]
        f.ret()

    def load(self, base: Value, place: Value | int) -> Value:
        return self.f.load(self.vector, self.f.offset(base, place, FLOAT), BYTES)

    def store(self, value: Value, base: Value, place: Value | int) -> None:
        self.f.store(value, self.f.offset(base, place, FLOAT), BYTES)

    def mapped(self, square: Sequence[Sequence[Value]]) -> list[list[Value]]:
        """matrix * square * matrix transposed."""
        columns = [apply(self.f, self.matrix, column) for column in zip(*square, strict=True)]
        return [apply(self.f, self.matrix, row) for row in zip(*columns, strict=True)]

    # ---- images to rows

    def windows(self, band: _Band, shape: tuple[int, ...]) -> int:
        f, lanes = self.f, self.lanes
        tiles = band.count * band.down * band.across
        _, rows, channels = shape
        groups = channels // lanes
        scratch = f.parameters[3]
        with self.tasks(band.count, band.bands, groups) as (image, number, group):
            first_channel = f.mul(group, lanes)
            plane = band.height * band.width
            images = f.offset(
                self.source, f.mul(f.add(f.mul(image, channels), first_channel), plane), FLOAT
            )
            self._clear(band)
            self._read(band, images, f.mul(number, band.deep * TILE))
            first = f.mul(f.add(f.mul(image, band.bands), number), band.deep * band.across)
            side = len(self.matrix[0])
            with (
                f.loop(0, band.deep, 1, hint="down") as down,
                f.loop(0, band.across, 1, hint="across") as across,
            ):
                place = f.add(f.mul(down.index, TILE * band.columns), f.mul(across.index, TILE))
                window = f.offset(scratch, f.mul(place, lanes), FLOAT)
                square = [
                    [self.load(window, (i * band.columns + j) * lanes) for j in range(side)]
                    for i in range(side)
                ]
                tile = f.add(f.add(first, f.mul(down.index, band.across)), across.index)
                row = f.offset(
                    self.target, f.add(f.mul(tile, channels), first_channel), FLOAT
                )
                for point, value in enumerate(_flat(self.mapped(square))):
                    self.store(value, row, point * rows * channels)
            if rows > tiles:
                last = f.and_(
                    f.icmp("eq", image, band.count - 1), f.icmp("eq", number, band.bands - 1)
                )
                with (
                    f.when(last, "rest"),
                    f.loop(0, POINTS, 1, hint="point") as point,
                    f.loop(tiles, rows, 1, hint="row") as empty,
                ):
                    place = f.add(f.mul(point.index, rows), empty.index)
                    place = f.add(f.mul(place, channels), first_channel)
                    self.store(const(self.vector, 0.0), self.target, place)
        return band.count * band.bands * groups

    def _clear(self, band: _Band) -> None:
        """Zeros in the scratch memory, where the images do not fill it."""
        whole = band.top == band.left == 0 and band.over == 0 and (
            band.height == TILE * band.down and band.width == TILE * band.across
        )
        if not whole:
            with self.f.loop(0, band.rows * band.columns, 1, hint="clear") as loop:
                place = self.f.mul(loop.index, self.lanes)
                self.store(const(self.vector, 0.0), self.f.parameters[3], place)

    def _read(self, band: _Band, images: Value, first: Value) -> None:
        """The band whose first row, in padded images, is `first`; channel by channel in memory,
        position by position in scratch.
        """
        f = self.f
        plane = band.height * band.width
        if band.joined:
            with f.loop(0, plane, self.lanes, hint="place") as loop:
                turned = self._turned_in(images, loop.index, plane, None)
                row = f.add(f.udiv(loop.index, band.width), band.top)
                self._keep(band, row, const("i64", 0), turned)
            return
        with f.loop(0, band.rows, 1, hint="row") as loop:
            line = f.sub(f.add(first, loop.index), band.top)
            with f.when(f.icmp("ult", line, band.height), "inside"):
                for place, count in self._along(band.width):
                    for x in place:
                        where = f.add(f.mul(line, band.width), x)
                        turned = self._turned_in(images, where, plane, count)
                        self._keep(band, loop.index, x, turned)

    def _along(self, width: int) -> Iterator[tuple[Iterator[Value], int | None]]:
        """Where vectors of a row begin, as values to emit code for, with how many elements count
        (None: all).  The last one overlaps its neighbour, where a row has a whole vector at all.
        """
        lanes = self.lanes
        if width < lanes:
            yield iter([const("i64", 0)]), width
            return

        def whole() -> Iterator[Value]:
            with self.f.loop(0, width // lanes * lanes, lanes, hint="x") as loop:
                yield loop.index

        yield whole(), None
        if width % lanes:
            yield iter([const("i64", width - lanes)]), None

    def _mask(self, count: int) -> Value:
        return const_lanes("i1", [lane < count for lane in range(self.lanes)])

    def _turned_in(
        self, images: Value, place: Value, plane: int, count: int | None
    ) -> list[Value]:
        """`lanes` positions (or `count`) of `lanes` channels: a vector for each position."""
        f, zero = self.f, const(self.vector, 0.0)
        start = f.offset(images, place, FLOAT)
        if count is None:
            values = [self.load(start, lane * plane) for lane in range(self.lanes)]
        else:
            values = [
                f.masked_load(
                    self.vector, f.offset(start, lane * plane, FLOAT), BYTES, self._mask(count),
                    zero,
                )
                for lane in range(self.lanes)
            ]  # fmt: skip
        return transpose(f, values)[:count]

    def _keep(self, band: _Band, row: Value, x: Value, turned: list[Value]) -> None:
        """Neighbouring positions from (row, x) on; where rows are joined, of several rows."""
        f = self.f
        place = f.add(f.mul(row, band.columns), f.add(x, band.left))
        start = f.offset(f.parameters[3], f.mul(place, self.lanes), FLOAT)
        for number, value in enumerate(turned):
            down, right = divmod(number, band.width) if band.joined else (0, number)
            self.store(value, start, (down * band.columns + right) * self.lanes)

    # ---- rows to images

    def image(self, band: _Band, shape: tuple[int, ...], rows: int) -> int:
        f, lanes = self.f, self.lanes
        channels, plane = shape[1], band.height * band.width
        groups = channels // lanes
        scratch = f.parameters[3]
        with self.tasks(band.count, band.bands, groups) as (image, number, group):
            first_channel = f.mul(group, lanes)
            first = f.mul(f.add(f.mul(image, band.bands), number), band.deep * band.across)
            with (
                f.loop(0, band.deep, 1, hint="down") as down,
                f.loop(0, band.across, 1, hint="across") as across,
            ):
                tile = f.add(f.add(first, f.mul(down.index, band.across)), across.index)
                row = f.offset(
                    self.source, f.add(f.mul(tile, channels), first_channel), FLOAT
                )
                square = [
                    [self.load(row, (i * SIDE + j) * rows * channels) for j in range(SIDE)]
                    for i in range(SIDE)
                ]
                place = f.add(f.mul(down.index, TILE * band.columns), f.mul(across.index, TILE))
                results = f.offset(scratch, f.mul(place, lanes), FLOAT)
                for i, values in enumerate(self.mapped(square)):
                    for j, value in enumerate(values):
                        self.store(value, results, (i * band.columns + j) * lanes)
            images = f.offset(
                self.target, f.mul(f.add(f.mul(image, channels), first_channel), plane), FLOAT
            )
            self._write(band, images, f.mul(number, band.deep * TILE))
        return band.count * band.bands * groups

    def _write(self, band: _Band, images: Value, first: Value) -> None:
        f = self.f
        plane = band.height * band.width
        if band.joined:
            with f.loop(0, plane, self.lanes, hint="place") as loop:
                row = f.udiv(loop.index, band.width)
                self._turn_out(band, row, const("i64", 0), images, loop.index, None)
            return
        with f.loop(0, band.rows, 1, hint="row") as loop:
            line = f.add(first, loop.index)
            with f.when(f.icmp("ult", line, band.height), "inside"):
                for place, count in self._along(band.width):
                    for x in place:
                        where = f.add(f.mul(line, band.width), x)
                        self._turn_out(band, loop.index, x, images, where, count)

    def _turn_out(
        self, band: _Band, row: Value, x: Value, images: Value, where: Value, count: int | None
    ) -> None:
        """Neighbouring positions from (row, x) on, a vector for each channel."""
        f = self.f
        start = f.offset(
            f.parameters[3], f.mul(f.add(f.mul(row, band.columns), x), self.lanes), FLOAT
        )
        values: list[Value] = []
        for number in range(self.lanes):
            down, right = divmod(number, band.width) if band.joined else (0, number)
            if count is not None and number >= count:
                values.append(values[0])
            else:
                values.append(self.load(start, (down * band.columns + right) * self.lanes))
        target = f.offset(images, where, FLOAT)
        plane = band.height * band.width
        for lane, value in enumerate(transpose(f, values)):
            place = f.offset(target, lane * plane, FLOAT)
            if count is None:
                f.store(value, place, BYTES)
            else:
                f.masked_store(value, place, BYTES, self._mask(count))

    # ---- weights

    def weights(self, shape: tuple[int, ...], turned: bool) -> int:
        """One input channel and a vector of output channels a task, input channels in order: so
        the lines of the taps are read while they are near.
        """
        f, lanes = self.f, self.lanes
        _, into, out = shape
        past = POINTS * into * out * BYTES >= PAST_CACHES and lanes * BYTES == LINE
        with self.tasks(into, out // lanes) as (channel, group):
            number = f.mul(group, lanes)
            place = (
                f.add(f.mul(channel, out), number)
                if turned
                else f.add(f.mul(number, into), channel)
            )
            start = f.offset(self.source, f.mul(place, AREA), FLOAT)
            step = AREA if turned else into * AREA
            taps: list[Value] = []
            for begin, mask in self._taps():
                rows = [
                    f.masked_load(
                        self.vector, f.offset(start, lane * step + begin, FLOAT), BYTES, mask,
                        const(self.vector, 0.0),
                    )
                    for lane in range(lanes)
                ]  # fmt: skip
                taps += transpose(f, rows)
            taps = taps[AREA - 1 :: -1] if turned else taps[:AREA]
            square = [taps[k : k + TAPS] for k in range(0, AREA, TAPS)]
            row = f.offset(self.target, f.add(f.mul(channel, out), number), FLOAT)
            for point, value in enumerate(_flat(self.mapped(square))):
                address = f.offset(row, point * into * out, FLOAT)
                if past:
                    f.store_past_caches(value, address, LINE)
                else:
                    f.store(value, address, BYTES)
        return out // lanes * into

    def taps(self, shape: tuple[int, ...]) -> int:
        f, lanes = self.f, self.lanes
        out, into = shape[:2]
        with self.tasks(out, into // lanes) as (channel, group):
            place = f.add(f.mul(channel, into), f.mul(group, lanes))
            start = f.offset(self.source, place, FLOAT)
            square = [
                [self.load(start, (i * SIDE + j) * out * into) for j in range(SIDE)]
                for i in range(SIDE)
            ]
            target = f.offset(self.target, f.mul(place, AREA), FLOAT)
            taps = _flat(self.mapped(square))
            for begin, mask in self._taps():
                some = taps[begin : begin + lanes]
                rows = transpose(f, some + [taps[0]] * (lanes - len(some)))
                for lane, row in enumerate(rows):
                    f.masked_store(row, f.offset(target, lane * AREA + begin, FLOAT), BYTES, mask)
        return out * (into // lanes)

    def _taps(self) -> Iterator[tuple[int, Value]]:
        """Vectors of the taps of one pair of channels: where they begin, which lanes are taps."""
        for begin in range(0, AREA, self.lanes):
            yield begin, self._mask(AREA - begin)


def _flat(square: Sequence[Sequence[Value]]) -> list[Value]:
    return [value for row in square for value in row]


# ---- a small matrix times a vector of values


def apply(f: Function, matrix: Matrix, values: Sequence[Value]) -> list[Value]:
    """The products of the matrix with a column of values.

    Points come in pairs p and -p, so columns, or rows, come in pairs that agree up to signs: their
    sums and differences are shared.
    """
    columns = list(zip(*matrix, strict=True))
    inputs, kept = list(values), [list(row) for row in matrix]
    for j in range(len(columns) - 1):
        if _are_a_pair(columns[j], columns[j + 1]):
            inputs[j], inputs[j + 1] = (
                f.fadd(values[j], values[j + 1]), f.fsub(values[j], values[j + 1]),
            )
            for row in kept:
                alike = row[j] == row[j + 1]
                row[j], row[j + 1] = (row[j], 0) if alike else (0, row[j])
    results: list[Value] = []
    while len(results) < len(kept):
        i = len(results)
        if i + 1 < len(kept) and _are_a_pair(kept[i], kept[i + 1]):
            both = list(zip(kept[i], kept[i + 1], strict=True))
            even = _sum(f, [a if a == b else 0 for a, b in both], inputs)
            odd = _sum(f, [a if a != b else 0 for a, b in both], inputs)
            results += [f.fadd(even, odd), f.fsub(even, odd)]
        else:
            results.append(_sum(f, kept[i], inputs))
    return results


def _are_a_pair(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two rows agree up to signs, in some places with and in others without."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a or b]
    return (
        all(abs(a) == abs(b) for a, b in both)
        and any(a == b for a, b in both)
        and any(a == -b for a, b in both)
    )


def _sum(f: Function, factors: Sequence[float], values: Sequence[Value]) -> Value:
    """The values times their factors; those with the factor one first, so that they cost one
    operation.
    """
    terms = sorted(
        ((c, v) for c, v in zip(factors, values, strict=True) if c), key=lambda term: term[0] != 1
    )
    (factor, value), *others = terms
    total = value if factor == 1 else f.fmul(value, const(value.type, factor))
    for factor, value in others:
        if factor in (1, -1):
            total = f.fadd(total, value) if factor == 1 else f.fsub(total, value)
        else:
            total = f.fma(value, const(value.type, factor), total)
    return total
