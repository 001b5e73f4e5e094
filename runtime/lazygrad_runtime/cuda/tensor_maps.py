"""Tensor maps of launches: encoded by the driver for the addresses of a run.

A kernel takes its maps by value, so they lie in host memory of their own, where the launch reads
them.  They are encoded again only when an address has changed.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint, c_uint64
from typing import TYPE_CHECKING

from lazygrad_compiler.artifact import GridLaunch

if TYPE_CHECKING:
    from lazygrad_runtime.cuda.driver import Driver

Table = ctypes.Array[c_int64]
"""A program's table of addresses, by slot."""
BYTES, ALIGNMENT = 128, 128
"""Of a CUtensorMap: 64 would do for the driver, cuda.h of CUDA 13 asks for 128."""
# CUtensorMapDataType, CUtensorMapSwizzle, CUtensorMapL2promotion
DATA_TYPES = {"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9}
SWIZZLE_128, PROMOTE_256 = 3, 3


class TensorMaps:
    """The maps of one launch.  addresses: where each of them lies."""

    def __init__(self, launch: GridLaunch) -> None:
        self.maps = launch.maps
        self._bound = [launch.arguments[each.argument] for each in launch.maps]
        self._memory = (ctypes.c_ubyte * (BYTES * len(launch.maps) + ALIGNMENT))()
        start = ctypes.addressof(self._memory)
        start += -start % ALIGNMENT
        self.addresses = [start + BYTES * number for number in range(len(launch.maps))]
        self._known: list[int] = [0] * len(launch.maps)

    def encode(self, driver: Driver, table: Table) -> bool:
        """For the addresses in the program's table; gives whether any map changed."""
        changed = False
        for number, (each, (slot, offset)) in enumerate(
            zip(self.maps, self._bound, strict=True)
        ):
            address = table[slot] + offset + each.offset
            if address == self._known[number]:
                continue
            rank = len(each.sizes)
            driver.cuTensorMapEncodeTiled(
                self.addresses[number], DATA_TYPES[each.dtype], rank, address,
                (c_uint64 * rank)(*each.sizes), (c_uint64 * (rank - 1))(*each.strides),
                (c_uint * rank)(*each.box), (c_uint * rank)(*[1] * rank),
                0, SWIZZLE_128, PROMOTE_256, 0,
            )  # fmt: skip
            self._known[number] = address
            changed = True
        return changed
