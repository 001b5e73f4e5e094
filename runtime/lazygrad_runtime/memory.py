"""Memory: 64-byte aligned buffers from a caching allocator.

In: sizes in bytes.  Out: `Buffer`s, and NumPy arrays that share their bytes both ways.
The one idea: a training step asks for the same sizes again and again, so a freed block goes to a
free list under its capacity and the next request of that capacity takes it, pages already mapped.
Fresh pages cost more than the arithmetic of a large elementwise kernel.

Small blocks come from `posix_memalign` in size classes. Blocks from 1 MiB on are mapped at 2 MiB
boundaries with huge pages asked for, and may serve a smaller request within a quarter of their
size. The cache is bounded; on overflow the size classes unused for longest give their blocks back.

Taking a block from a free list and returning one are a few statements without a lock: the list's
`pop` and `append` are atomic, and so is a count changed by one statement that calls nothing, since
the interpreter changes threads between calls and jumps only.  The lock is for asking the system and
for giving back to it.  A buffer's `__del__` can run at any bytecode, also inside the allocator, so
it never waits for that lock.  Once a process is known to run many programs, `FreeList.take` and
`Buffer.__del__` are native functions that do the same (`native_memory.py`); counts are kept where
both find them.
"""

from __future__ import annotations

import ctypes
import mmap
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lazygrad_compiler import forks
from lazygrad_runtime.machine import memory_left, memory_limit

ALIGNMENT = 64
LARGE_BLOCK = 1 << 20
HUGE_PAGE = 1 << 21
CHECKED_BYTES = 1 << 25  # from so many fresh bytes on it is asked whether they are there
LARGEST_REQUEST = 1 << 47
MOST_SIZES = 4096  # whose capacities are remembered
MADV_HUGEPAGE = 14  # <asm-generic/mman-common.h>
MAP_FAILED = ctypes.c_void_p(-1).value


def capacity_of(nbytes: int) -> int:
    """Bytes of the block that serves a request of `nbytes`.

    Small blocks: four classes per power of two, at most a fifth unused. Large blocks: 32 classes
    per power of two, multiples of 64 KiB, so a weight of 2.25 MiB does not occupy 4 MiB.
    """
    if nbytes <= ALIGNMENT:
        return ALIGNMENT
    last = nbytes - 1
    if nbytes < LARGE_BLOCK:
        shift = max(6, last.bit_length() - 3)
    else:
        shift = max(16, last.bit_length() - 6)
    return ((last >> shift) + 1) << shift


class Buffer:
    """A run of bytes in memory: `pointer` (int, 64-byte aligned when allocated here), `nbytes`,
    and `owner`, the object that keeps foreign memory alive (None for the allocator's own).

    The memory goes back when the last reference to the buffer does.
    """

    __slots__ = ("pointer", "nbytes", "owner", "_home", "__weakref__")

    pointer: int
    nbytes: int
    owner: object | None
    device = None
    """The CPU; buffers of a GPU (`cuda.memory.DeviceBuffer`) name theirs."""

    def __init__(
        self,
        pointer: int,
        nbytes: int,
        owner: object | None = None,
        _home: FreeList | None = None,
    ):
        self.pointer = pointer
        self.nbytes = nbytes
        self.owner = owner
        self._home = _home

    def __del__(self) -> None:
        home = self._home
        if home is not None:
            counts = home.counts
            counts[IN_USE] -= home.capacity
            home.pointers.append(self.pointer)
            if counts[MAPPED] - counts[IN_USE] > counts[CACHE_LIMIT]:
                home.allocator.trim()

    def __repr__(self) -> str:
        kind = "allocated" if self._home is not None else "foreign"
        return f"Buffer({self.nbytes} bytes at {self.pointer:#x}, {kind})"

    @staticmethod
    def zeros(nbytes: int) -> Buffer:
        """Bytes that are zero and stay so: nobody may write them, many buffers have them in common.

        A small GPT's optimiser starts from 85 MB of zeros in 154 pieces.  Each of its own, they
        are 21,000 page faults as its first step reads them.
        """
        global _zeros
        run = _zeros
        if run.nbytes < nbytes:
            whole = np.zeros(nbytes + ALIGNMENT, np.uint8)
            run = whole[-whole.ctypes.data % ALIGNMENT:][:nbytes]
            run.flags.writeable = False
            _zeros = run
        return Buffer(run.ctypes.data, nbytes, run)

    @staticmethod
    def from_numpy(array: np.ndarray) -> Buffer:
        """The bytes of a C-contiguous array, without a copy; the buffer keeps the array alive."""
        if not array.flags.c_contiguous:
            raise ValueError(
                f"[from_numpy] the array of shape {array.shape} and strides {array.strides} is not "
                "C-contiguous. Pass numpy.ascontiguousarray(array)."
            )
        return Buffer(array.ctypes.data, array.nbytes, array)

    def as_numpy(self, dtype: DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """An array of `dtype` and `shape` over these bytes, without a copy.

        The array, and every view of it, keeps the buffer alive. Raises ValueError when the
        buffer holds fewer bytes than the array needs.
        """
        dtype = np.dtype(dtype)
        shape = tuple(shape)
        needed = dtype.itemsize
        for size in shape:
            needed *= size
        if needed > self.nbytes:
            raise ValueError(
                f"[as_numpy] shape {shape} of {dtype} needs {needed} bytes, "
                f"the buffer has {self.nbytes}."
            )
        return np.ndarray(shape, dtype, buffer=np.asarray(_Exported(self)))


_zeros = np.zeros(0, np.uint8)
"""The longest run of zeros so far; shorter ones are its beginning."""


class _Exported:
    """What NumPy holds on to as the base of an array over a buffer."""

    __slots__ = ("buffer", "__array_interface__")

    def __init__(self, buffer: Buffer):
        self.buffer = buffer
        owner: Any = buffer.owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (buffer.nbytes,),
            "data": (buffer.pointer, owner.__class__ is np.ndarray and not owner.flags.writeable),
        }


class _SystemMemory:
    """Blocks straight from the system. `map` returns None when the system refuses."""

    def __init__(self) -> None:
        self._libc = None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)
        self._mappings: dict[int, mmap.mmap] = {}
        if self._libc is None:
            return
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._libc.mmap.restype = pointer
        self._libc.mmap.argtypes = [
            pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
        ]  # fmt: skip
        self._libc.munmap.argtypes = [pointer, size]
        self._libc.madvise.argtypes = [pointer, size, ctypes.c_int]
        self._libc.mincore.argtypes = [pointer, size, ctypes.c_char_p]
        self._libc.posix_memalign.argtypes = [ctypes.POINTER(pointer), size, size]
        self._libc.free.argtypes = [pointer]
        self._libc.free.restype = None

    def map(self, capacity: int) -> int | None:
        if self._libc is None:
            return self._map_portable(capacity)
        if capacity < LARGE_BLOCK:
            pointer = ctypes.c_void_p()
            if self._libc.posix_memalign(ctypes.byref(pointer), ALIGNMENT, capacity):
                return None
            return pointer.value
        return self._map_large(capacity)

    def _map_large(self, capacity: int) -> int | None:
        """Maps 2 MiB too much, then cuts both ends off to land on a 2 MiB boundary."""
        assert self._libc is not None
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = self._libc.mmap(None, capacity + HUGE_PAGE, protection, flags, -1, 0)
        if start is None or start == MAP_FAILED:
            return None
        aligned = (start + HUGE_PAGE - 1) & -HUGE_PAGE
        if aligned > start:
            self._libc.munmap(start, aligned - start)
        tail = start + HUGE_PAGE - aligned
        if tail:
            self._libc.munmap(aligned + capacity, tail)
        if sys.platform.startswith("linux"):
            self._libc.madvise(aligned, capacity, MADV_HUGEPAGE)  # a hint; refusal is fine
        return aligned

    def _map_portable(self, capacity: int) -> int | None:
        try:
            mapping = mmap.mmap(-1, capacity)
        except (OSError, ValueError):
            return None
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self._mappings[pointer] = mapping
        return pointer

    def untouched(self, capacity: int, pointer: int) -> int:
        """How many bytes of a large block nobody has written to yet: the system counts them as
        left.
        """
        if self._libc is None or not sys.platform.startswith("linux"):
            return 0
        pages = ctypes.create_string_buffer(-(-capacity // mmap.PAGESIZE))
        if self._libc.mincore(pointer, capacity, pages):
            return 0  # unmapped meanwhile
        there = int((np.frombuffer(pages.raw, np.uint8) & 1).sum())
        return max(0, capacity - there * mmap.PAGESIZE)

    def unmap(self, capacity: int, pointer: int) -> None:
        if self._libc is None:
            del self._mappings[pointer]
        elif capacity < LARGE_BLOCK:
            self._libc.free(pointer)
        else:
            self._libc.munmap(pointer, capacity)


CLOCK, IN_USE, PEAK, MAPPED, CACHE_LIMIT, COUNTS = range(6)
"""Places of an allocator's counts: blocks taken so far; bytes in use, their peak, bytes had from
the system; and how many may be free.
"""

LIST_CAPACITY, LIST_LAST_USE, LIST_COUNTS, LIST_WORDS = range(4)
"""Places of what native code knows of a free list; LIST_COUNTS: the address of the counts."""


class FreeList:
    """Free blocks of one capacity, and when a block of it was last taken."""

    __slots__ = ("address", "allocator", "capacity", "counts", "pointers", "words")

    def __init__(self, allocator: Allocator, capacity: int) -> None:
        self.allocator = allocator
        self.capacity = capacity
        self.pointers: list[int] = []
        self.counts = allocator.counts
        self.words = (ctypes.c_int64 * LIST_WORDS)(capacity, 0, ctypes.addressof(self.counts))
        self.address = ctypes.addressof(self.words)

    def take(self, nbytes: int) -> Buffer:
        """A buffer of `nbytes` bytes, which blocks of this capacity serve."""
        try:
            pointer = self.pointers.pop()
        except IndexError:
            return self.allocator.take_slowly(nbytes, self.capacity)
        self.taken()
        return Buffer(pointer, nbytes, None, self)

    def taken(self) -> None:
        """Counts a block that is in use from now on."""
        counts = self.counts
        counts[CLOCK] += 1
        self.words[LIST_LAST_USE] = counts[CLOCK]
        counts[IN_USE] += self.capacity
        if counts[IN_USE] > counts[PEAK]:
            counts[PEAK] = counts[IN_USE]


class Allocator:
    """The caching allocator. The module's functions use one instance per process.

    `limit` bounds the bytes in use; `cache_limit` the bytes kept free for reuse.  Without a limit,
    what other processes hold counts, too.
    """

    def __init__(self, limit: int | None = None, cache_limit: int | None = None):
        self._shares = limit is None
        self.limit = (memory_limit() or LARGEST_REQUEST) if limit is None else limit
        self.counts = (ctypes.c_int64 * COUNTS)()
        self.counts[CACHE_LIMIT] = \
            max(self.limit // 4, 1 << 28) if cache_limit is None else cache_limit
        self._system = _SystemMemory()
        self._lock = forks.lock()
        self._free: dict[int, FreeList] = {}
        self._by_size: dict[int, FreeList] = {}
        self._unchecked = 0
        self._fresh: list[tuple[int, int]] = []  # (capacity, pointer) that may be untouched

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer of `nbytes` bytes, contents undefined. See `allocate` of the module."""
        if nbytes.__class__ is not int:
            nbytes = operator.index(nbytes)
        found = self._by_size.get(nbytes)
        return (self.list_for(nbytes) if found is None else found).take(nbytes)

    def list_for(self, nbytes: int) -> FreeList:
        """Where blocks for requests of that size are."""
        if nbytes < 0:
            raise ValueError(f"[allocate] {nbytes} bytes asked for; a size cannot be negative.")
        if len(self._by_size) >= MOST_SIZES:
            self._by_size.clear()
        found = self._by_size[nbytes] = self._list_of(capacity_of(nbytes))
        return found

    def _list_of(self, capacity: int) -> FreeList:
        found = self._free.get(capacity)
        return self._free.setdefault(capacity, FreeList(self, capacity)) if found is None else found

    def trim(self) -> None:
        """Gives blocks back to the system where too many are free. Never waits."""
        if self._lock.acquire(False):
            try:
                self._evict(self.counts[CACHE_LIMIT] * 3 // 4)
            finally:
                self._lock.release()

    def _evict(self, target: int) -> int:
        """Unmaps free blocks, longest unused capacity first, until `target` bytes remain. Lock
        held.
        """
        counts = self.counts
        before = counts[MAPPED]
        for free in sorted(self._free.values(), key=lambda free: free.words[LIST_LAST_USE]):
            while counts[MAPPED] - counts[IN_USE] > target:
                try:
                    pointer = free.pointers.pop()
                except IndexError:
                    break
                self._system.unmap(free.capacity, pointer)
                counts[MAPPED] -= free.capacity
        return before - counts[MAPPED]

    def take_slowly(self, nbytes: int, capacity: int) -> Buffer:
        """No free block of that capacity: best fit, or the system."""
        if nbytes > LARGEST_REQUEST:
            raise MemoryError(
                f"[allocate] {nbytes} bytes asked for; no machine has more than {LARGEST_REQUEST}."
            )
        if capacity >= LARGE_BLOCK:
            fitting = [
                size
                for size, free in list(self._free.items())
                if free.pointers and capacity < size <= capacity + capacity // 4
            ]
            if fitting:
                return self._free[min(fitting)].take(nbytes)
        counts = self.counts
        with self._lock:
            if counts[IN_USE] + capacity > self.limit:
                raise MemoryError(
                    f"[allocate] {nbytes} bytes asked for with {counts[IN_USE]} in use; "
                    f"this process can have {self.limit}."
                )
            if counts[MAPPED] + capacity > self.limit:
                self._evict(max(0, self.limit - counts[IN_USE] - capacity))
            self._unchecked += capacity
            if self._shares and self._unchecked >= CHECKED_BYTES:
                self._leave_room(capacity)
            pointer = self._system.map(capacity)
            if pointer is None:
                self._evict(0)
                pointer = self._system.map(capacity)
            if pointer is None:
                raise MemoryError(
                    f"[allocate] the system refused {nbytes} bytes ({counts[IN_USE]} bytes in use)."
                )
            if capacity >= LARGE_BLOCK:
                self._fresh.append((capacity, pointer))
            counts[MAPPED] += capacity
            home = self._list_of(capacity)
            home.taken()
        return Buffer(pointer, nbytes, None, home)

    def reserve(self, nbytes: int) -> None:
        """MemoryError where somebody else in this process is about to take so many bytes and they
        are not there; cached blocks make room.
        """
        if self._shares and nbytes >= CHECKED_BYTES:
            with self._lock:
                self._leave_room(nbytes)

    def _leave_room(self, nbytes: int) -> None:
        """MemoryError where the machine, or the group that this process is in, has less left: the
        system would give the addresses, and end the process at the first use.  Lock held.
        """
        for last in (False, True):
            left = memory_left()
            if left is None:
                return
            waiting = [(self._system.untouched(*block), block) for block in self._fresh]
            self._fresh = [block for rest, block in waiting if rest > block[0] // 8]
            # others may be about to use what they have asked for, and Python grows, too
            margin = min(2 * CHECKED_BYTES, self.limit // 16)
            left -= sum(rest for rest, _ in waiting) + margin
            if nbytes <= left:
                self._unchecked = 0
                return
            if last or not self._evict(0):
                raise MemoryError(
                    f"[allocate] {nbytes} bytes asked for with {self.counts[IN_USE]} in use; "
                    f"{max(left, 0)} are left beside what this and other processes hold."
                )

    def empty_cache(self) -> int:
        """Gives all free blocks back to the system; returns how many bytes that were."""
        with self._lock:
            return self._evict(0)

    def stats(self) -> dict[str, int]:
        """See `memory_stats`."""
        in_use = self.counts[IN_USE]
        return {"allocated": in_use, "peak": self.counts[PEAK],
                "cached": self.counts[MAPPED] - in_use}

    def reset_peak(self) -> None:
        """Starts measuring the peak afresh from what is in use now."""
        self.counts[PEAK] = self.counts[IN_USE]


_allocator = Allocator()


def allocate(nbytes: int) -> Buffer:
    """A buffer of `nbytes` bytes, 64-byte aligned, contents undefined; zero bytes are fine.

    Raises ValueError for a negative size and MemoryError, naming the bytes, when they are not to
    be had; everything stays usable afterwards. Thread-safe.
    """
    return _allocator.allocate(nbytes)


def list_for(nbytes: int) -> FreeList:
    """For who allocates the same size again and again: `list_for(nbytes).take(nbytes)`."""
    return _allocator.list_for(nbytes)


def memory_stats() -> dict[str, int]:
    """Bytes `allocated` now, their `peak`, and bytes `cached` for reuse (block capacities)."""
    return _allocator.stats()


def reset_peak_memory() -> None:
    """Starts measuring `memory_stats()["peak"]` afresh."""
    _allocator.reset_peak()


def reserve(nbytes: int) -> None:
    """MemoryError where a library that is about to take so many bytes would not get them."""
    _allocator.reserve(nbytes)


def empty_cache() -> int:
    """Gives cached blocks back to the system; returns the bytes given back."""
    return _allocator.empty_cache()


__all__ = [
    "ALIGNMENT", "Allocator", "Buffer", "allocate", "empty_cache", "memory_stats",
    "reset_peak_memory",
]  # fmt: skip
