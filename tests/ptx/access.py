"""Where a lane's address leads: state space, position, and the checks on the way.

In: the batch, lanes, a state space and int64 addresses (PTX ISA, section 5.1).  Out: loads and
stores done on `memory.Space`.  Every address must be a multiple of the access's size (section
6.4.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.ptx.compiler import Lanes, numbers_of
from tests.ptx.memory import (
    GLOBAL_BASE,
    LOCAL_WINDOW,
    SHARED_WINDOW,
    WINDOW_BYTES,
    MemoryFault,
    Space,
)

Part = tuple[Space, np.ndarray, Any]
"""A space, positions in it, and which elements of the access they belong to (None: all)."""

READ_ONLY = ("const", "param")
_WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}


def _fault(numbers: np.ndarray, element: int, address: np.ndarray, message: str) -> MemoryFault:
    return MemoryFault(f"address {int(address[element]):#x} {message}", int(numbers[element]))


def locate(
    batch: Any, numbers: np.ndarray, space: str, address: np.ndarray, size: int
) -> tuple[Space, np.ndarray]:
    """The positions of `size` bytes at each address of one named space."""
    misaligned = address & (size - 1) != 0
    if misaligned.any():
        element = int(np.flatnonzero(misaligned)[0])
        raise _fault(numbers, element, address, f"is not a multiple of {size} (.{space})")
    if space == "shared":
        held, limit, stride = batch.shared, batch.shared_size, batch.shared_stride
        base = batch.lane_block[numbers] * stride
    elif space == "local":
        held, limit, stride = batch.local, batch.local_size, batch.local_stride
        base = numbers * stride
    else:
        held, base = batch.memory.space, -GLOBAL_BASE
        if space == "param":
            base = batch.parameter_address - GLOBAL_BASE
            bad = (address < 0) | (address > batch.program.parameter_bytes - size)
        else:
            bad = (address < GLOBAL_BASE) | (address > GLOBAL_BASE + held.data.size - size)
        if bad.any():
            element = int(np.flatnonzero(bad)[0])
            raise _fault(numbers, element, address, f"lies outside of .{space} memory")
        return held, address + base
    bad = (address < 0) | (address > limit - size)
    if bad.any():
        element = int(np.flatnonzero(bad)[0])
        message = f"+ {size} lies outside of the {limit} bytes of .{space} memory"
        raise _fault(numbers, element, address, message)
    return held, address + base


def parts(
    batch: Any, numbers: np.ndarray, space: str, address: np.ndarray, size: int
) -> list[Part]:
    """As `locate`, for generic addresses ("") too: one part for each window that is hit."""
    if space:
        return [(*locate(batch, numbers, space, address, size), None)]
    found: list[Part] = []
    left = np.ones(len(address), bool)
    for name, start in _WINDOWS.items():
        inside = (address >= start) & (address < start + WINDOW_BYTES)
        if inside.all():
            return [(*locate(batch, numbers, name, address - start, size), None)]
        if inside.any():
            at = np.flatnonzero(inside)
            found.append((*locate(batch, numbers[at], name, address[at] - start, size), at))
            left &= ~inside
    if left.all():
        return [(*locate(batch, numbers, "global", address, size), None)]
    if left.any():
        at = np.flatnonzero(left)
        found.append((*locate(batch, numbers[at], "global", address[at], size), at))
    return found


def _of_lane(error: MemoryFault, numbers: np.ndarray, address: np.ndarray) -> MemoryFault:
    element = error.element or 0
    return _fault(numbers, element, address, str(error))


def load(
    batch: Any, lanes: Lanes, space: str, address: np.ndarray, size: int, count: int = 1,
    used: Sequence[int] = (),
) -> np.ndarray:  # fmt: skip
    """Unsigned values (lanes, count) of `size` bytes each, of which some are used (default: all):
    the others may be anything.
    """
    numbers = numbers_of(batch, lanes)
    result = None
    for held, index, at in parts(batch, numbers, space, address, size * count):
        some, where = (numbers, address) if at is None else (numbers[at], address[at])
        try:
            values = held.load(index, size, count, used)
        except MemoryFault as error:
            raise _of_lane(error, some, where) from None
        if batch.races is not None and held is batch.shared:
            if len(used) in (0, count):
                batch.races.read(some, index, size * count)
            else:
                for element in used:
                    batch.races.read(some, index + element * size, size)
        if at is None:
            return values
        if result is None:
            result = np.empty((len(numbers), count), values.dtype)
        result[at] = values
    assert result is not None
    return result


def store(batch: Any, lanes: Lanes, space: str, address: np.ndarray, values: np.ndarray) -> None:
    """Writes unsigned values (lanes, count)."""
    if space in READ_ONLY:
        raise MemoryFault(f".{space} memory cannot be written")
    numbers = numbers_of(batch, lanes)
    size, count = values.dtype.itemsize, values.shape[1]
    if len(values) != len(numbers):
        values = np.broadcast_to(values, (len(numbers), count))
    for held, index, at in parts(batch, numbers, space, address, size * count):
        some, where = (numbers, address) if at is None else (numbers[at], address[at])
        mine = values if at is None else values[at]
        try:
            held.store(index, mine)
        except MemoryFault as error:
            raise _of_lane(error, some, where) from None
        if held is batch.shared:
            kept = (held.data.view(mine.dtype)[(index // size)[:, None] + np.arange(count)]) == mine
            if not kept.all():
                element = int(np.flatnonzero(~kept.all(1))[0])
                message = "is written with different values by two threads in one instruction"
                raise _fault(some, element, where, message)
            if batch.races is not None:
                batch.races.write(some, index, size * count)
