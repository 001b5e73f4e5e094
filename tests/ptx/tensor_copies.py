"""Bulk and tensor copies, TMA (PTX ISA, sections 9.7.9.25.4 and .5; tensor maps: section 5.5).

A copy into shared memory is put on the batch's list and lands only when no lane can run any more
(or one polls `mbarrier.test_wait`), as late as a GPU might let it: its bytes count as unwritten
until then.  A copy to global memory lands when its thread waits for its bulk group.  Missing
`fence.proxy.async` instructions are not found.

A tensor map's 128 opaque bytes are, here, what `TensorMap.encode` writes; see `driver.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.ptx import access, types
from tests.ptx.asynchronous import commit, group_wait, literal, update
from tests.ptx.compiler import (
    Compiler,
    Deferred,
    Lanes,
    Reader,
    Step,
    Suffixes,
    instruction,
    numbers_of,
)
from tests.ptx.control import nothing
from tests.ptx.memory import ALLOCATED, MemoryFault
from tests.ptx.parser import Address, Instruction

ELEMENT_BYTES = (1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4)
"""By CUtensorMapDataType: u8, u16, u32, s32, u64, s64, f16, f32, f64, bf16, f32, tf32 twice."""
_MAGIC = 0x4D545854
_FORMAT = "<IBBBBBxxxQ5I4x4Q5H5B"
SWIZZLE_BYTES = (16, 32, 64, 128)
"""By CUtensorMapSwizzle: none, 32B, 64B, 128B."""


@dataclass(frozen=True, slots=True)
class TensorMap:
    """sizes, box and element_strides from the innermost dimension; strides in bytes, without it."""

    data_type: int
    address: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...]
    swizzle: int = 0
    fill_nan: int = 0

    def encode(self) -> bytes:
        rank = len(self.sizes)
        pad = (0,) * (5 - rank)
        raw = struct.pack(
            _FORMAT, _MAGIC, self.data_type, rank, 0, self.swizzle, self.fill_nan, self.address,
            *(size - 1 for size in self.sizes), *pad, *self.strides, *pad, *self.box, *pad,
            *self.element_strides, *pad,
        )  # fmt: skip
        return raw.ljust(128, b"\0")

    @staticmethod
    def decode(raw: bytes) -> TensorMap:
        fields = struct.unpack_from(_FORMAT, raw)
        if fields[0] != _MAGIC:
            raise MemoryFault("the tensor map was not made by cuTensorMapEncodeTiled")
        rank = fields[2]
        sizes, strides, box, steps = fields[7:12], fields[12:16], fields[16:21], fields[21:26]
        return TensorMap(
            fields[1], fields[6], tuple(size + 1 for size in sizes[:rank]), strides[: rank - 1],
            box[:rank], steps[:rank], fields[4], fields[5],
        )  # fmt: skip

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.data_type]

    @property
    def box_bytes(self) -> int:
        return int(np.prod(self.box)) * self.element_bytes

    def places(self, start: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Global addresses of the box's elements (innermost last), and which are inside."""
        address = np.full(1, self.address, np.int64)
        inside = np.ones(1, bool)
        strides = (self.element_bytes, *self.strides)
        for axis in reversed(range(len(self.box))):
            # A traversal stride takes every so many-th element of the box.
            index = start[axis] + np.arange(self.box[axis]) * self.element_strides[axis]
            address = (address[:, None] + index * strides[axis]).reshape(-1)
            inside = (inside[:, None] & (index >= 0) & (index < self.sizes[axis])).reshape(-1)
        return address, inside


def swizzled(offset: np.ndarray, width: int) -> np.ndarray:
    """Shared addresses under the 32-, 64- or 128-byte swizzle (16: none).

    The 16-byte chunk's number within its row is combined by xor with the number of the row of 128
    bytes: address bits 4 to 6 with bits 7 to 9, as many as the width has chunks (section 5.5.4).
    """
    mask = width // 16 - 1
    return offset ^ ((offset >> 7 & mask) << 4)


def _read_map(batch: Any, lane: int, address: int) -> TensorMap:
    if address % 64:
        raise batch.fault(f"the tensor map at {address:#x} is not 64-byte aligned", lane)
    halves = [
        access.load(batch, np.array([lane]), "", np.array([at], np.int64), 8, 8).tobytes()
        for at in (address, address + 64)
    ]
    return TensorMap.decode(b"".join(halves))


def _shared_places(batch: Any, lane: int, offset: int, tensor: TensorMap) -> np.ndarray:
    if offset % 128:
        raise batch.fault(f"the shared address {offset:#x} is not 128-byte aligned", lane)
    size = tensor.element_bytes
    # The pattern follows the address, so a box may begin inside of it.
    at = swizzled(
        offset + np.arange(int(np.prod(tensor.box))) * size, SWIZZLE_BYTES[tensor.swizzle]
    )
    numbers = np.full(len(at), lane)
    return access.locate(batch, numbers, "shared", at, size)[1]


def _landing(
    batch: Any,
    lane: int,
    places: np.ndarray,
    values: Callable[[], np.ndarray],
    barrier: int,
    size: int,
) -> None:
    """Puts a copy into shared memory on the list."""
    batch.shared.mark(places, size, ALLOCATED)

    def land() -> None:
        found = values()
        batch.shared.store(places, found[:, None])
        update(batch, barrier, lane, complete=found.nbytes)

    batch.pending.append(land)


def _barrier_place(batch: Any, lane: int, address: int) -> int:
    where = np.array([address], np.int64)
    access.load(batch, np.array([lane]), "shared", where, 8)
    return int(access.locate(batch, np.array([lane]), "shared", where, 8)[1][0])


_SHARED = ("shared::cluster", "shared::cta", "shared")


@instruction("cp.async.bulk", "cp.reduce.async")
def bulk_copy(compiler: Compiler, item: Instruction) -> Step:
    compiler.track_races = False
    reduces = item.opcode.startswith("cp.reduce")
    suffixes = Suffixes(item, skip=3)
    if reduces and not suffixes.take("bulk"):
        raise suffixes.error("is not known")
    if suffixes.flag("commit_group"):
        suffixes.done()
        return commit("bulk_group")
    if suffixes.flag("wait_group"):
        suffixes.flag("read")
        suffixes.done()
        count = literal(item, 0)
        return group_wait("bulk", "bulk_group", lambda batch, lanes: count)
    if suffixes.flag("prefetch"):
        return nothing
    tensor = suffixes.flag("tensor")
    rank = int(suffixes.take("1d", "2d", "3d", "4d", "5d", default="0d")[0])
    suffixes.flag("tile")
    spaces = item.opcode.split(".")
    inward = next(part for part in spaces if part in _SHARED or part == "global") != "global"
    suffixes.take("global")
    suffixes.take(*_SHARED)
    operation = suffixes.take("add", "min", "max") if reduces else ""
    if reduces and (inward or not tensor):
        raise suffixes.error("reduces in a form that is not known")
    suffixes.take("bulk_group") if not inward else suffixes.take("mbarrier::complete_tx::bytes")
    multicast = suffixes.flag("multicast::cluster")
    suffixes.drop(frozenset())
    suffixes.done()
    if tensor:
        side = item.operands[1] if inward else item.operands[0]
        assert isinstance(side, Address)
        if len(side.coordinates) != rank:
            raise suffixes.error(f"gives {len(side.coordinates)} coordinates for {rank}d")
        coordinates = compiler.readers(side.coordinates, "s32")
        _, map_address = compiler.address(side)
        if inward:
            _, target = compiler.address(item.operands[0])
            _, barrier = compiler.address(item.operands[2])
            mask = compiler.reader(item.operands[3], "u16") if multicast else None
            return _tensor_in(target, map_address, coordinates, barrier, mask)
        _, source = compiler.address(item.operands[1])
        return _tensor_out(source, map_address, coordinates, operation)
    _, to = compiler.address(item.operands[0])
    _, come = compiler.address(item.operands[1])
    size = compiler.reader(item.operands[2], "u32")
    if inward:
        return _linear_in(to, come, size, compiler.address(item.operands[3])[1])
    return _linear_out(to, come, size)


def _each(batch: Any, lanes: Lanes, *readers: Reader) -> list[list[int]]:
    """(lane, values …) of the lanes that execute: one thread of a block, as a rule."""
    numbers = numbers_of(batch, lanes)
    columns = [np.broadcast_to(read(batch, lanes), numbers.shape) for read in readers]
    return [list(map(int, row)) for row in zip(numbers, *columns)]


def _tensor_in(
    target: Reader, map_address: Reader, coordinates: list[Reader], barrier: Reader,
    mask: Reader | None,
) -> Step:  # fmt: skip
    def run(batch: Any, lanes: Lanes) -> None:
        if mask is not None and (mask(batch, lanes) != 1).any():
            raise batch.fault("multicast to other blocks: clusters are not interpreted", 0)
        for lane, to, at, arrive, *start in _each(
            batch, lanes, target, map_address, barrier, *coordinates
        ):
            tensor = _read_map(batch, lane, at)
            if len(tensor.sizes) != len(start):
                raise batch.fault(f"{len(start)} coordinates for a map of {tensor.sizes}", lane)
            places = _shared_places(batch, lane, to, tensor)
            address, inside = tensor.places(start)
            size = tensor.element_bytes

            def values(address: Any = address, inside: Any = inside, lane: int = lane,
                       size: int = size) -> np.ndarray:  # fmt: skip
                found = np.zeros(len(address), types.UNSIGNED[size])
                some = np.full(int(inside.sum()), lane)
                if len(some):
                    found[inside] = access.load(batch, some, "global", address[inside], size)[:, 0]
                return found

            _landing(batch, lane, places, values, _barrier_place(batch, lane, arrive), size)

    return run


def _tensor_out(
    source: Reader, map_address: Reader, coordinates: list[Reader], operation: str
) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        for lane, come, at, *start in _each(batch, lanes, source, map_address, *coordinates):
            tensor = _read_map(batch, lane, at)
            places = _shared_places(batch, lane, come, tensor)
            address, inside = tensor.places(start)
            group = np.array([batch.bulk_group[lane]])

            def complete(chosen: np.ndarray, lane: int = lane, tensor: TensorMap = tensor,
                         places: Any = places, address: Any = address, inside: Any = inside,
                         ) -> None:  # fmt: skip
                if not chosen.any():
                    return
                size = tensor.element_bytes
                values = batch.shared.load(places, size, 1)[inside]
                some = np.full(len(values), lane)
                if operation:
                    values = _reduced(batch, some, address[inside], values, tensor, operation)
                access.store(batch, some, "global", address[inside], values)

            batch.bulk.append(Deferred(np.array([lane]), group, complete))

    return run


_TYPE = ("u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f64", "bf16", "f32", "f32", "f32")


def _reduced(
    batch: Any, some: np.ndarray, address: np.ndarray, values: np.ndarray, tensor: TensorMap,
    operation: str,
) -> np.ndarray:  # fmt: skip
    type_ = _TYPE[tensor.data_type]
    old = access.load(batch, some, "global", address, tensor.element_bytes)
    combine = {"add": np.add, "min": np.fmin, "max": np.fmax}[operation]
    left, right = types.decode(old[:, 0].copy(), type_), types.decode(values[:, 0].copy(), type_)
    return types.encode(combine(left, right), type_)[:, None]


def _octets(batch: Any, lane: int, start: int, size: int) -> np.ndarray:
    if size % 16 or start % 16:
        raise batch.fault(
            f"a bulk copy of {size} bytes at {start:#x}: 16-byte multiples only", lane
        )
    return start + np.arange(0, size, 8, dtype=np.int64)


def _linear_in(to: Reader, come: Reader, size: Reader, barrier: Reader) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        for lane, target, source, count, arrive in _each(batch, lanes, to, come, size, barrier):
            where = _octets(batch, lane, target, count)
            origin = _octets(batch, lane, source, count)
            numbers = np.full(len(where), lane)
            places = access.locate(batch, numbers, "shared", where, 8)[1]

            def values(numbers: Any = numbers, origin: Any = origin) -> np.ndarray:
                return access.load(batch, numbers, "global", origin, 8)[:, 0]

            _landing(batch, lane, places, values, _barrier_place(batch, lane, arrive), 8)

    return run


def _linear_out(to: Reader, come: Reader, size: Reader) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        for lane, target, source, count in _each(batch, lanes, to, come, size):
            where = _octets(batch, lane, target, count)
            origin = _octets(batch, lane, source, count)
            numbers = np.full(len(where), lane)

            def complete(chosen: np.ndarray, numbers: Any = numbers, where: Any = where,
                         origin: Any = origin) -> None:  # fmt: skip
                if chosen.any():
                    values = access.load(batch, numbers, "shared", origin, 8)
                    access.store(batch, numbers, "global", where, values)

            group = np.array([batch.bulk_group[lane]])
            batch.bulk.append(Deferred(np.array([lane]), group, complete))

    return run
