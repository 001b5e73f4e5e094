"""Page-locked host memory, which the GPU copies from and to by itself.

`pinned(nbytes)` gives a `memory.Buffer` whose owner is the `PinnedBlock` that it lies in.  Blocks
are kept by size when they come back: page-locking is slow.  A copy that the GPU still makes from a
block holds the block by an event, which is waited for before the block is given out again.
"""

from __future__ import annotations

from collections import deque
from ctypes import byref, c_void_p

from lazygrad_compiler import forks
from lazygrad_runtime.cuda.driver import Driver, driver
from lazygrad_runtime.cuda.stream import Event, Stream
from lazygrad_runtime.memory import Buffer

SMALLEST = 4096


class PinnedBlock:
    """Owner of page-locked bytes; they go back to the cache with it."""

    __slots__ = ("_returned", "capacity", "events", "pointer")

    def __init__(self, pointer: int, capacity: int, returned: deque) -> None:
        self.pointer = pointer
        self.capacity = capacity
        self.events: list[Event] = []
        self._returned = returned

    def read_by(self, stream: Stream) -> None:
        """Notes a copy just recorded on a stream."""
        self.events = [event for event in self.events if not event.query()]
        self.events.append(Event().record(stream))

    def __del__(self) -> None:
        self._returned.append((self.capacity, self.pointer, self.events))


class PinnedPool:
    """Of one driver."""

    def __init__(self, owner: Driver) -> None:
        self._driver = owner
        self._lock = forks.lock()
        self._returned: deque[tuple[int, int, list[Event]]] = deque()
        self._free: dict[int, list[tuple[int, list[Event]]]] = {}

    def allocate(self, nbytes: int) -> Buffer:
        """MemoryError where the system will lock no more pages."""
        capacity = max(SMALLEST, 1 << (nbytes - 1).bit_length()) if nbytes else SMALLEST
        with self._lock:
            self._drain()
            free = self._free.get(capacity)
            if free:
                pointer, events = free.pop(0)
                for event in events:
                    event.synchronize()
            else:
                self._driver.devices[0].activate()  # any context will do: all can use it
                found = c_void_p()
                self._driver.cuMemAllocHost_v2(byref(found), capacity)
                pointer = found.value or 0
        return Buffer(pointer, nbytes, PinnedBlock(pointer, capacity, self._returned))

    def _drain(self) -> None:
        while self._returned:
            size, pointer, events = self._returned.popleft()
            self._free.setdefault(size, []).append((pointer, events))

    def empty(self) -> None:
        """Gives blocks that nobody has back to the system."""
        with self._lock:
            self._drain()
            free, self._free = self._free, {}
            for blocks in free.values():
                for pointer, events in blocks:
                    for event in events:
                        event.synchronize()
                    self._driver.cuMemFreeHost(pointer)


def pinned(nbytes: int) -> Buffer:
    """So many bytes of page-locked host memory."""
    found = driver()
    if found.pinned is None:
        found.pinned = PinnedPool(found)
    return found.pinned.allocate(nbytes)
