"""Unrolling: a kernel's instrs at points where some loop variables are known numbers.

In: instrs over loop variables.  Out: straight-line instrs, the same in meaning, in which equal
parts of different points are one.  So a window that slides by one row shares the rows that it
keeps, and conditions that a known number decides are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.loops.index import Affine, Term, substitute, variable
from lazygrad_compiler.loops.kernel import Instr

Place = Mapping[Term, Affine]


class Unrolled:
    """Collects the instrs; `at` gives the number of one of the kernel's values at a place."""

    def __init__(
        self,
        values: Sequence[Instr],
        vector: Term | None = None,
        assume: Callable[[Affine], bool] | None = None,
    ) -> None:
        """vector: the variable along which the code will be a vector.  assume: of which index
        expressions to take for granted that they are within bounds; `assumed` lists those
        conditions (expression, low, high).
        """
        self._vector = vector
        self._kernel = values
        self._assume = assume
        self.assumed: dict[tuple[Affine, int, int], None] = {}
        self.values: list[Instr] = []
        self._numbers: dict[Instr, int] = {}
        self._memo: dict[tuple[int, int], int] = {}
        self._places: list[Place] = []

    def place(self, mapping: Place) -> int:
        """Registers a place: what becomes of the loop variables there."""
        self._places.append(mapping)
        return len(self._places) - 1

    def at(self, number: int, place: int) -> int:
        """The number, among `values`, of the kernel's value at a registered place.

        A `row` becomes one of its own for each place; data: the kernel's number, the place.
        """
        stack = [number]
        while stack:
            current = stack[-1]
            if (current, place) not in self._memo:
                instr = self._kernel[current]
                waiting = [] if instr.op == "row" else [
                    argument for argument in instr.args if (argument, place) not in self._memo
                ]
                if waiting:
                    stack += waiting
                    continue
                self._memo[current, place] = self._instantiate(current, place)
            stack.pop()
        return self._memo[number, place]

    def needed(self, numbers: Iterable[int], known: set[int]) -> list[int]:
        """What has to be computed for the numbers, in order, but for what is known already, which
        it adds to `known`.
        """
        result: list[int] = []
        stack = list(numbers)[::-1]
        while stack:
            number = stack[-1]
            waiting = [a for a in self.values[number].args if a not in known]
            if number in known or not waiting:
                if number not in known:
                    known.add(number)
                    result.append(number)
                stack.pop()
            else:
                stack += waiting[::-1]
        return result

    def _instantiate(self, number: int, place: int) -> int:
        instr = self._kernel[number]
        if instr.op == "row":
            return self._add(Instr("row", instr.dtype, (), (number, place)))
        arguments = tuple(self._memo[argument, place] for argument in instr.args)
        data = tuple(
            substitute(item, self._places[place]) if isinstance(item, Affine) else item
            for item in instr.data
        )
        return self._simplified(replace(instr, args=arguments, data=data))

    def _simplified(self, instr: Instr) -> int:
        arguments = instr.args
        if instr.op == "bounds":
            index, low, high = instr.data
            if index.low >= low and index.high < high:
                return self._constant(instr.dtype, True)
            if index.high < low or index.low >= high:
                return self._constant(instr.dtype, False)
            if self._assume is not None and self._assume(index):
                self.assumed[instr.data] = None  # type: ignore[index]
                return self._constant(instr.dtype, True)
        elif instr.op == "divides" and not instr.data[0].terms:
            return self._constant(instr.dtype, instr.data[0].constant % instr.data[1] == 0)
        elif instr.op == "and" and instr.dtype.name == "bool":
            for known, other in (arguments, arguments[::-1]):
                if (truth := self._truth(known)) is not None:
                    return other if truth else known
        elif instr.op == "where":
            mask, here, outside = arguments
            if (truth := self._truth(mask)) is not None:
                return here if truth else outside
            if self._gives_zero(here, mask) and self._is_zero(outside):
                return here
        elif instr.op == "load" and arguments:
            truth = self._truth(arguments[0])
            if truth is False:
                return self._constant(instr.dtype, 0)
            if truth:
                return self._add(replace(instr, args=()))
        return self._add(instr)

    def _truth(self, number: int) -> bool | None:
        instr = self.values[number]
        return bool(instr.data[0]) if instr.op == "const" else None

    def _gives_zero(self, number: int, mask: int) -> bool:
        """Whether it is a load under the mask that moves along the vector: one that does not is a
        scalar, read where any lane is on.
        """
        instr = self.values[number]
        if instr.op != "load" or instr.args != (mask,):
            return False
        terms = [term for term, _ in instr.data[1].terms]
        moving = [term for term in terms if self._vector in variable(term).variables()]
        return moving == [self._vector]

    def _is_zero(self, number: int) -> bool:
        instr = self.values[number]
        return instr.op == "const" and repr(instr.data[0]) in ("0", "0.0", "False")

    def _constant(self, dtype: DType, value: object) -> int:
        return self._add(Instr("const", dtype, (), (value,)))

    def _add(self, instr: Instr) -> int:
        key = instr
        if instr.op == "const":  # 0.0 and -0.0 are equal, and not the same
            key = replace(instr, data=(repr(instr.data[0]),))
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.values)
            self.values.append(instr)
        return found
