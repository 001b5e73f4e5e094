"""atom and red (PTX ISA, sections 9.7.13.5 and 9.7.13.6), lanes in the order of their numbers.

Lanes that meet at one address are served round by round: in round r the r-th lane of each address.
Where no old value is asked for, or the operation is an integer sum, one pass does for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import access, types
from tests.ptx.compiler import Compiler, Lanes, Step, Suffixes, instruction, numbers_of
from tests.ptx.memory import Space
from tests.ptx.moves import HINTS, space_of
from tests.ptx.parser import Instruction

_OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "min": np.fmin,
    "max": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: np.broadcast_to(new, old.shape),
    "inc": lambda old, limit: np.where(old >= limit, 0, old + 1).astype(old.dtype),
    "dec": lambda old, limit: np.where((old == 0) | (old > limit), limit, old - 1).astype(
        old.dtype
    ),
    "cas": lambda old, expected, new: np.where(old == expected, new, old),
}
_BATCHED = {"add": np.add, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
            "min": np.minimum, "max": np.maximum}  # fmt: skip


@instruction("atom", "red")
def atomic(compiler: Compiler, item: Instruction) -> Step:
    returns = item.opcode.startswith("atom")
    suffixes = Suffixes(item)
    space = space_of(suffixes)
    name = suffixes.take(*_OPERATIONS)
    suffixes.flag("noftz")
    suffixes.drop(HINTS)
    type_ = suffixes.type()
    suffixes.done()
    operation = _OPERATIONS[name]
    if name in ("and", "or", "xor", "exch", "cas") and types.is_float(type_):
        raise suffixes.error("is no operation on floats")
    write = compiler.writer(item.operands[0], type_) if returns else None
    named, address = compiler.address(item.operands[1 if returns else 0])
    reads = compiler.readers(item.operands[2 if returns else 1 :], type_)
    space, size = space or named, types.BYTES[type_]
    batched = _BATCHED.get(name) if type_ in types.INTEGERS else None

    def serve(held: Space, index: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
        view = held.data.view(types.UNSIGNED[size])
        places, inverse = np.unique(index // size, return_inverse=True)
        if len(places) == len(index):
            old = view[index // size]
            view[index // size] = types.encode(operation(types.decode(old, type_), *values), type_)
            return old
        if not returns and batched is not None:
            batched.at(view.view(types.INTEGERS[type_]), index // size, values[0])
            return view[index // size]
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(len(places)))
        rank = np.empty(len(index), np.int64)
        rank[order] = np.arange(len(index)) - starts[inverse[order]]
        if name == "add" and batched is not None:
            old = view[index // size]
            terms = values[0][order].view(types.UNSIGNED[size])
            before = np.cumsum(terms, dtype=terms.dtype) - terms
            before = before - before[starts[inverse[order]]]
            old[order] = old[order] + before
            np.add.at(view, index // size, values[0].view(types.UNSIGNED[size]))
            return old
        old = np.empty(len(index), view.dtype)
        by_rank = np.argsort(rank, kind="stable")
        bounds = np.searchsorted(rank[by_rank], np.arange(rank.max() + 2))
        for first, last in itertools.pairwise(bounds):
            lanes = by_rank[first:last]
            at = index[lanes] // size
            old[lanes] = view[at]
            result = operation(types.decode(view[at], type_), *(value[lanes] for value in values))
            view[at] = types.encode(np.ascontiguousarray(result), type_)
        return old

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        where = address(batch, lanes)
        values = [read(batch, lanes) for read in reads]
        values = [np.ascontiguousarray(np.broadcast_to(v, (len(numbers), *v.shape[1:])))
                  for v in values]  # fmt: skip
        old = np.empty(len(numbers), types.UNSIGNED[size])
        races, batch.races = batch.races, None
        try:
            # The checks of a load; atomics do not race with each other.
            access.load(batch, lanes, space, where, size)
        finally:
            batch.races = races
        for held, index, at in access.parts(batch, numbers, space, where, size):
            if at is None:
                old = serve(held, index, values)
            else:
                old[at] = serve(held, index, [value[at] for value in values])
        if write is not None:
            write(batch, lanes, types.decode(old, type_))

    return run
