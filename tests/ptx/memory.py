"""Device memory, shared memory and local memory with every access checked.

In: addresses of lanes, as arrays.  Out: values, or a MemoryFault that says which element of the
access went wrong and how.  The one idea: beside each byte lies a state byte (allocated, written),
so bounds and uninitialised reads are one more gather each; allocations are kept apart by a gap
wider than any access.

The windows are laid out as the driver does it: one 64-bit generic address space in which shared
and local memory occupy windows of their own, everything else is global.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.ptx.parser import PtxError

GLOBAL_BASE = 0x7F00_0000_0000
SHARED_WINDOW = 0x0000_1000_0000_0000
LOCAL_WINDOW = 0x0000_2000_0000_0000
WINDOW_BYTES = 1 << 40

ALLOCATED, WRITTEN = 1, 2
READABLE = ALLOCATED | WRITTEN
POISON = 0xFF
"""Fresh memory: NaN as a float of any width, -1 as an index."""

_GAP = 256


class MemoryFault(PtxError):
    """An access that no kernel may make.  element: which one of the access's lanes, or None."""

    def __init__(self, message: str, element: int | None = None) -> None:
        super().__init__(message)
        self.element = element


class Space:
    """Bytes with their states.  Indices are positions in `data`, checked by the callers for
    range."""

    def __init__(self, size: int, name: str, state: int) -> None:
        rounded = -(-max(size, 16) // 256) * 256
        self.name = name
        self.data = np.full(rounded, POISON, np.uint8)
        self.state = np.full(rounded, state, np.uint8)
        self.check_written = True

    def _check(self, index: np.ndarray, size: int, wanted: int, what: str) -> None:
        """Every byte of [index, index + size) has the wanted state; index is a multiple of size or
        of the part (at most 8 bytes) it is looked at in.
        """
        part = min(size & -size, 8)
        states = self.state.view(f"u{part}")
        pattern = np.array(int.from_bytes(bytes([wanted]) * part, "little"), f"u{part}")
        for offset in range(0, size, part):
            bad = (states[(index + offset) // part] & pattern) != pattern
            if bad.any():
                element = int(np.flatnonzero(bad)[0])
                raise MemoryFault(what, element)

    def load(
        self, index: np.ndarray, size: int, count: int, used: Sequence[int] = ()
    ) -> np.ndarray:
        """Unsigned values (len(index), count) of `size` bytes each, from checked memory; only the
        elements `used` are checked (default: all).
        """
        checked = [(index, size * count)]
        if len(used) not in (0, count):
            checked = [(index + element * size, size) for element in used]
        for start, length in checked:
            self._check(start, length, ALLOCATED, f"reads outside of any {self.name} allocation")
            if self.check_written:
                self._check(start, length, WRITTEN, f"reads {self.name} memory nobody wrote")
        view = self.data.view(f"u{size}")
        first = index // size
        if count == 1:
            return view[first][:, None]
        return view[first[:, None] + np.arange(count)]

    def store(self, index: np.ndarray, values: np.ndarray) -> None:
        """Writes unsigned values (len(index), count)."""
        size, count = values.dtype.itemsize, values.shape[1]
        self._check(index, size * count, ALLOCATED, f"writes outside of any {self.name} allocation")
        first = (index // size)[:, None] + np.arange(count)
        self.data.view(f"u{size}")[first] = values
        pattern = int.from_bytes(bytes([READABLE]) * size, "little")
        self.state.view(f"u{size}")[first] = pattern

    def mark(self, index: np.ndarray, size: int, state: int) -> None:
        """Sets the state of `size` bytes at each index."""
        self.state[index[:, None] + np.arange(size)] = state


class DeviceMemory:
    """The global memory of one device.

    allocate and free work as cuMemAlloc and cuMemFree do; addresses are multiples of 256.  Fresh
    memory is poisoned.  check_uninitialised: reading global memory that nobody wrote is an error.
    limit: bytes that may be allocated at once; beyond it `allocate` raises MemoryError.
    """

    def __init__(self, limit: int = 1 << 32, check_uninitialised: bool = True) -> None:
        self.space = Space(1 << 16, "global", 0)
        self.space.check_written = check_uninitialised
        self.limit = limit
        self.allocated = 0
        self._end = _GAP
        self._sizes: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}

    def allocate(self, size: int) -> int:
        """The address of `size` new, poisoned bytes."""
        if size <= 0:
            raise ValueError(f"allocate({size}): the size must be positive")
        if self.allocated + size > self.limit:
            raise MemoryError(f"{size} bytes asked for, {self.limit - self.allocated} are free")
        rounded = -(-size // 256) * 256
        reusable = self._free.get(rounded)
        if reusable:
            offset = reusable.pop()
        else:
            offset = self._end
            self._end += rounded + _GAP
            self._grow(self._end)
        self.space.data[offset : offset + size] = POISON
        self.space.state[offset : offset + size] = ALLOCATED
        self._sizes[offset] = size
        self.allocated += size
        return GLOBAL_BASE + offset

    def _grow(self, end: int) -> None:
        space = self.space
        if end <= space.data.size:
            return
        capacity = 1 << (end - 1).bit_length()
        extra = capacity - space.data.size
        space.data = np.concatenate([space.data, np.full(extra, POISON, np.uint8)])
        space.state = np.concatenate([space.state, np.zeros(extra, np.uint8)])

    def free(self, address: int) -> None:
        offset = address - GLOBAL_BASE
        if offset not in self._sizes:
            raise MemoryFault(f"free({address:#x}): no allocation begins there")
        size = self._sizes.pop(offset)
        self.space.state[offset : offset + size] = 0
        self.allocated -= size
        self._free.setdefault(-(-size // 256) * 256, []).append(offset)

    def range_of(self, address: int) -> tuple[int, int]:
        """First address and size of the allocation that holds an address."""
        offset = address - GLOBAL_BASE
        for start, size in self._sizes.items():
            if start <= offset < start + size:
                return GLOBAL_BASE + start, size
        raise MemoryFault(f"{address:#x} lies in no allocation")

    def _checked(self, address: int, size: int, what: str) -> slice:
        offset = address - GLOBAL_BASE
        inside = offset >= 0 and offset + size <= self.space.data.size
        if not inside or not (self.space.state[offset : offset + size] & ALLOCATED).all():
            raise MemoryFault(f"{what} of {size} bytes at {address:#x} leaves its allocation")
        return slice(offset, offset + size)

    def write(self, address: int, values: np.ndarray | bytes) -> None:
        """Copies host bytes in."""
        if isinstance(values, np.ndarray):
            raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        else:
            raw = np.frombuffer(values, np.uint8)
        where = self._checked(address, raw.size, "a copy in")
        self.space.data[where] = raw
        self.space.state[where] = READABLE

    def read(self, address: int, size: int) -> bytes:
        """Copies bytes out, written or not."""
        return self.space.data[self._checked(address, size, "a copy out")].tobytes()

    def read_array(
        self, address: int, dtype: np.dtype | type, shape: tuple[int, ...]
    ) -> np.ndarray:
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return (
            np.frombuffer(self.read(address, count * dtype.itemsize), dtype).reshape(shape).copy()
        )

    def upload(self, values: np.ndarray) -> int:
        """Allocates and copies in."""
        address = self.allocate(max(values.nbytes, 1))
        self.write(address, values)
        return address

    def fill(self, address: int, byte: int, size: int) -> None:
        where = self._checked(address, size, "a fill")
        self.space.data[where] = byte
        self.space.state[where] = READABLE

    def copy(self, destination: int, source: int, size: int) -> None:
        """Device to device, with the states."""
        origin = self._checked(source, size, "a copy")
        where = self._checked(destination, size, "a copy")
        self.space.data[where] = self.space.data[origin].copy()
        self.space.state[where] = self.space.state[origin].copy()

    def poison(self, address: int, size: int) -> None:
        """Makes bytes as fresh: unwritten, and filled with 0xFF."""
        where = self._checked(address, size, "a fill")
        self.space.data[where] = POISON
        self.space.state[where] = ALLOCATED

    def written(self, address: int, size: int) -> bool:
        """Whether every byte was written since it was allocated or poisoned."""
        where = self._checked(address, size, "a look")
        return bool((self.space.state[where] == READABLE).all())
