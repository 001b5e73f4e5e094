"""Emission of dropout inside attention: which weights of a strip and a block of keys stay.

What is kept follows from the place of a weight among all scores (`ir/inference_attention.py`), so
that forward and backward draw the same, and the same as a dropout of stored weights would.  Lanes
run along queries; a Philox block has the words of four neighbouring keys of one query, so a vector
of blocks serves four keys.  Where rows of scores do not begin with a block, each lane is at a place
of its own in its blocks, and takes its words from two that follow one another.

Bits go to scratch memory, one for each weight, before the weights are computed.
"""

from __future__ import annotations

from lazygrad_compiler.ir.inference_attention import Dropout
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.attention_tiles import I64, Scratch, Tiles
from lazygrad_compiler.llvm.builder import Value, const, const_lanes, vector_of
from lazygrad_compiler.loops.attention import Operand

WORDS = 4
"""Of a Philox block."""


class Kept:
    """state: the operand (seed, offset)."""

    def __init__(self, tiles: Tiles, dropout: Dropout, state: Operand, scratch: Scratch) -> None:
        self.tiles, self.dropout = tiles, dropout
        cut, f = tiles.cut, tiles.f
        self.vectors = cut.strip // cut.lanes
        self.type = f"i{max(cut.lanes, 8)}"
        self.nbytes = max(cut.lanes // 8, 1)
        rows = cut.block + WORDS
        self.bits = scratch.take(-(-rows * self.vectors * self.nbytes // tiles.itemsize))
        pointer = f.offset(tiles.pointers[state.buffer], state.offset, I64)
        self.seed, self.offset = (f.load(I64, f.offset(pointer, n, I64), 8) for n in (0, 1))
        self.aligned = tiles.sizes.keys % WORDS == 0 and cut.block % WORDS == 0

    def draw(self, batch: Value, head: Value, query: Value, key: Value, count: Value) -> None:
        """Bits of `count` keys from `key` on, for the strip of queries from `query` on."""
        tiles = self.tiles
        f, sizes, lanes = tiles.f, tiles.sizes, tiles.cut.lanes
        if self.dropout.draws != sizes.batch:
            batch = f.urem(batch, self.dropout.draws)
        first = f.add(f.mul(f.add(f.mul(batch, sizes.heads), head), sizes.queries), query)
        places = []
        for number in range(self.vectors):
            lane = const_lanes(I64, list(range(number * lanes, (number + 1) * lanes)))
            row = f.add(f.splat(first, lanes), lane)
            places.append(f.add(f.mul(row, sizes.keys), f.splat(key, lanes)))
        if self.aligned:
            with f.loop(0, count, WORDS, hint="draw") as loop:
                for number, place in enumerate(places):
                    for step, kept in enumerate(self._block(place, loop.index)):
                        self._store(kept, f.add(loop.index, step), number)
            return
        at = [
            [(n, self._bits(f.icmp("eq", f.and_(place, WORDS - 1), n))) for n in range(WORDS)]
            for place in places
        ]
        before = [kept for place in places for kept in self._block(place, const(I64, 0))]
        with f.loop(0, count, WORDS, before, "draw") as loop:
            loop.next = []
            for number, place in enumerate(places):
                begin = WORDS * number
                new = self._block(place, f.add(loop.index, WORDS))
                both = [*loop.carried[begin : begin + WORDS], *new]
                for step in range(WORDS):
                    chosen = [f.and_(both[step + n], lanes_at) for n, lanes_at in at[number]]
                    kept = chosen[0]
                    for other in chosen[1:]:
                        kept = f.or_(kept, other)
                    self._store(kept, f.add(loop.index, step), number)
                loop.next += new

    def _block(self, place: Value, key: Value) -> list[Value]:
        """Whether weights stay: of the four in the block of each lane that `place` is in, `key`
        places on (a multiple of four).  Bits of lanes, as numbers.
        """
        f, lanes = self.tiles.f, self.tiles.cut.lanes
        block = f.add(f.lshr(f.add(place, f.splat(key, lanes)), 2), f.splat(self.offset, lanes))
        words = scalar.philox_block(f, self.seed, block)
        threshold = self.dropout.threshold
        return [self._bits(f.icmp("uge", f.lshr(word, 8), threshold)) for word in words]

    def _bits(self, flags: Value) -> Value:
        f, lanes = self.tiles.f, self.tiles.cut.lanes
        bits = f.bitcast(flags, f"i{lanes}") if lanes > 1 else flags
        return bits if lanes >= 8 else f.convert("zext", bits, self.type)

    def _address(self, key: Value, number: int) -> Value:
        f = self.tiles.f
        return f.offset(self.bits, f.add(f.mul(key, self.vectors), number), self.type)

    def _store(self, bits: Value, key: Value, number: int) -> None:
        f = self.tiles.f
        f.store(bits, self._address(key, number), self.nbytes)

    def kept(self, key: Value, number: int) -> Value:
        """Of key number `key` of the block and a vector of the strip's queries."""
        f, lanes = self.tiles.f, self.tiles.cut.lanes
        bits = f.load(self.type, self._address(key, number), self.nbytes)
        if lanes < 8:
            bits = f.convert("trunc", bits, f"i{lanes}")
        return f.bitcast(bits, vector_of("i1", lanes)) if lanes > 1 else bits

    def dropped(self, kept: Value, value: Value) -> Value:
        """The value times the factor, or 0."""
        f = self.tiles.f
        return f.select(kept, f.fmul(value, self.dropout.factor), 0.0)
