"""Shuffles of blocks in registers, on lanes that say what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import vector_of
from lazygrad_compiler.llvm.transpose import sums_of_lanes


@dataclass
class Lanes:
    """A vector whose lanes say what was added up in them."""

    kind: str
    held: list[list[tuple[int, int]]]

    @property
    def type(self) -> str:
        return vector_of(self.kind, len(self.held))


def test_sums_of_lanes() -> None:
    """Of as many vectors as lanes, and of fewer, for vectors of every length."""
    class Lists:
        def shuffle(self, a: Lanes, b: Lanes | None, order: Sequence[int]) -> Lanes:
            both = a.held + (b.held if b else [])
            return Lanes(a.kind, [both[lane] for lane in order])

        def fadd(self, a: Lanes, b: Lanes) -> Lanes:
            return Lanes(a.kind, [x + y for x, y in zip(a.held, b.held, strict=True)])

    for kind, lanes in itertools.product(("float", "double"), (2, 4, 8, 16)):
        for count in (1, 2, 4, 8, 16):
            if count <= lanes:
                rows = [Lanes(kind, [[(row, lane)] for lane in range(lanes)])
                        for row in range(count)]
                found = sums_of_lanes(Lists(), rows)
                assert [sorted(each) for each in found.held] == [
                    [(row, lane) for lane in range(lanes)] for row in range(count)]
