"""Device memory: a caching allocator for each device, and the buffers that it gives out.

In: sizes in bytes and the stream that will use them.  Out: `DeviceBuffer`s.  The one idea is that
of the CPU's allocator: a training step asks for the same sizes again and again, and a freed block
serves the next request of its capacity.  Work on a stream runs in order, so a block may be given
out again *for the same stream* while the GPU still uses it: nothing is waited for.  Where a buffer
was read or written on other streams, its block waits for those (events, on the GPU) before it is
reused, and so does who writes over the buffer.

Blocks below 8 MiB are cut from slabs, larger ones come from the driver.  Where the driver has no
memory, everything that is cached goes back and the request is tried once more.

A buffer's `__del__` can run at any bytecode: it puts its block on a queue, which whoever allocates
next empties.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Sequence
from ctypes import byref, c_size_t, c_uint64
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from lazygrad_compiler import forks
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.errors import OUT_OF_MEMORY, DeviceLost
from lazygrad_runtime.memory import capacity_of

if TYPE_CHECKING:
    from lazygrad_runtime.cuda.stream import Event

ANY_STREAM = -1
"""Among the readers of a buffer: streams of others, which may be gone when they would be waited
for."""

ALIGNMENT = 512
LARGE_BLOCK = 8 << 20
"""Bytes from which on a block is the driver's own."""

SLABS = ((1 << 20, 2 << 20), (LARGE_BLOCK, 32 << 20))
"""Blocks below the first size are cut from slabs of the second."""

GRANULE = 2 << 20
"""The driver maps device memory in pages of this size."""


@functools.cache
def poisoning() -> bool:
    """LAZYGRAD_CUDA_POISON=1: fresh buffers are filled with NaN, so that a kernel which leaves a
    place out shows.
    """
    return os.environ.get("LAZYGRAD_CUDA_POISON", "").strip() not in ("", "0")


class DeviceBuffer:
    """A run of bytes on a device.  address: there (there is no `pointer`: nothing that takes host
    memory can take it by mistake).  owner: keeps foreign memory alive; if it has `streams`, those
    that read are added.  stream: on which it was written.  readers: others, on which it was read
    since; whoever reads or writes says so, by `used_on` and `written_on`.

    Like `memory.Buffer`, it goes back when the last reference to it does.
    """

    __slots__ = ("address", "nbytes", "owner", "device", "stream", "era", "readers", "_capacity",
                 "_home", "__weakref__")  # fmt: skip

    def __init__(self, device: Device, address: int, nbytes: int, stream: int = 0,
                 owner: object | None = None, capacity: int = 0) -> None:
        self.device = device
        self.address = address
        self.nbytes = nbytes
        self.stream = stream
        self.owner = owner
        self.era = device.era
        self.readers: set[int] | None = None
        self._capacity = capacity
        self._home = stream  # whose free blocks it belongs to

    def __del__(self) -> None:
        if getattr(self, "_capacity", 0):
            pool = self.device._pool
            if pool is not None and self.era == self.device.era:
                others = self.readers
                if self.stream != self._home:
                    others = {self.stream, *(others or ())}
                pool.returned.append((self._capacity, self.address, self._home, others))

    def __repr__(self) -> str:
        return f"DeviceBuffer({self.nbytes} bytes at {self.address:#x} on {self.device.label})"

    @property
    def there(self) -> bool:
        """Whether the context that it was made in is."""
        return self.device.holds(self.era)

    def check(self) -> None:
        """DeviceLost where the context that it was made in is gone."""
        if self.era != self.device.era:
            raise DeviceLost(
                f"[cuda] this value went with a lost context of {self.device.label}. Compute it "
                "again, or load it from a file."
            )

    def used_on(self, stream: int) -> None:
        """Makes a stream wait for the one that wrote the buffer, and the buffer's block for it."""
        if stream == self.stream:
            return
        if self.readers is None:
            self.readers = set()
        if stream not in self.readers:
            self.device.pool.order(self.stream, stream)
            self.readers.add(stream)
            streams = getattr(self.owner, "streams", None)
            if streams is not None:
                streams.add(stream)

    def written_on(self, stream: int) -> None:
        """Makes a stream wait for those that wrote and read the buffer: it is written there next.
        """
        self.device.pool.order_all({self.stream, *(self.readers or ())}, stream)
        self.stream, self.readers = stream, None

    def as_numpy(self, dtype: DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """A copy in host memory; waits until the value is there."""
        return self.device.staging.download(self, np.dtype(dtype), tuple(shape))


class _Slab:
    """Memory that blocks are cut from.  free: bytes not yet cut; live: blocks given out."""

    __slots__ = ("blocks", "live", "pointer", "position", "size")

    def __init__(self, pointer: int, size: int) -> None:
        self.pointer = pointer
        self.size = size
        self.position = 0
        self.live = 0
        self.blocks: list[int] = []


class Pool:
    """The allocator of one device.  Safe for use by threads."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.driver = device.driver
        self.returned: deque[tuple[int, int, int, set[int] | None]] = deque()
        self._lock = forks.rlock()
        self._free: dict[tuple[int, int], list[int]] = {}  # (stream, capacity) -> pointers
        self._slab_of: dict[int, _Slab] = {}
        self._cutting: dict[tuple[int, int], _Slab] = {}  # (stream, slab size) -> the slab in use
        self._events: list[Event] = []
        self._retired: set[int] = set()  # streams nobody has any more
        self._gone: set[int] = set()  # and destroyed ones, whose work is done
        self.limit: int | None = None
        self.in_use = self.reserved = 0
        self.peak_in_use = self.peak_reserved = 0
        self.allocations = self.failures = 0

    def allocate(self, nbytes: int, stream: int) -> DeviceBuffer:
        """A buffer of so many bytes, contents undefined, for use on a stream.

        Raises MemoryError naming the bytes, with everything usable afterwards.
        """
        capacity = capacity_of(max(nbytes, ALIGNMENT))
        if capacity % ALIGNMENT:
            capacity += ALIGNMENT - capacity % ALIGNMENT
        with self._lock:
            if self.returned:
                self._drain()
            free = self._free.get((stream, capacity))
            if free:
                pointer = free.pop()
                slab = self._slab_of.get(pointer)
                if slab is not None:
                    slab.live += 1
            else:
                pointer = self._fresh(nbytes, capacity, stream)
            in_use = self.in_use = self.in_use + capacity
            if in_use > self.peak_in_use:
                self.peak_in_use = in_use
            self.allocations += 1
        if poisoning():
            self.device.activate()
            self.driver.cuMemsetD8Async(pointer, 0xFF, capacity, stream)
        return DeviceBuffer(self.device, pointer, nbytes, stream, None, capacity)

    def _drain(self) -> None:
        """Moves returned blocks to the free lists, behind the streams that read them."""
        returned = self.returned
        while returned:
            capacity, pointer, stream, readers = returned.popleft()
            if readers and not self.device.lost:
                self.order_all(readers, stream)
            self._free.setdefault((stream, capacity), []).append(pointer)
            self.in_use -= capacity
            slab = self._slab_of.get(pointer)
            if slab is not None:
                slab.live -= 1

    def order(self, first: int, then: int) -> None:
        """Work on stream `then` from now on waits for what is on stream `first` now."""
        from lazygrad_runtime.cuda.stream import Event, Stream

        if first in self._gone or then in self._gone:
            return
        with self._lock:
            event = self._events.pop() if self._events else Event(self.device)
            event.record(Stream(self.device, first))
            Stream(self.device, then).wait_event(event)
            self._events.append(event)  # waiting has been recorded: it may be recorded anew

    def order_all(self, first: set[int], then: int) -> None:
        """The same for several streams, of whom ANY_STREAM may be one: the host waits for that."""
        if ANY_STREAM in first:
            self.device.activate()
            self.driver.raw("cuCtxSynchronize")()  # what failed shows elsewhere
            return
        for stream in first - {then}:
            self.order(stream, then)

    def _fresh(self, nbytes: int, capacity: int, stream: int) -> int:
        """Cut from a slab, or from the driver.  Lock held."""
        for largest, size in SLABS:
            if capacity < largest:
                slab = self._cutting.get((stream, size))
                if slab is None or slab.size - slab.position < capacity:
                    slab = _Slab(self._from_driver(nbytes, size), size)
                    self._cutting[stream, size] = slab
                pointer = slab.pointer + slab.position
                slab.position += capacity
                slab.live += 1
                slab.blocks.append(pointer)
                self._slab_of[pointer] = slab
                return pointer
        return self._from_driver(nbytes, _whole_pages(capacity))

    def _from_driver(self, nbytes: int, size: int) -> int:
        """New memory; what is cached goes back first where the driver has none left."""
        pointer = c_uint64()
        for attempt in (1, 2):
            if self.limit is not None and self.reserved + size > self.limit:
                code = OUT_OF_MEMORY
            else:
                self.device.activate()
                code = self.driver.raw("cuMemAlloc_v2")(byref(pointer), size)
            if code == 0:
                self.reserved += size
                self.peak_reserved = max(self.peak_reserved, self.reserved)
                return pointer.value
            if code != OUT_OF_MEMORY:
                raise self.driver.error("cuMemAlloc_v2", code)
            if attempt == 1:
                self.empty_cache()
        self.failures += 1
        free, total = self.memory_info()
        raise MemoryError(
            f"[cuda] {nbytes} bytes asked for on {self.device.label}, which has {free} of {total} "
            f"bytes left; {self.in_use} are in use by tensors of this process"
            + (f", which may have {self.limit}" if self.limit is not None else "")
            + ". Use smaller batches or a smaller dtype, free tensors with `del`, or checkpoint."
        )

    def settle(self, stream: int) -> None:
        """Waits for the work on a stream, if it is there still; what fails shows elsewhere."""
        if stream not in self._gone:
            self.device.driver.raw("cuStreamSynchronize")(stream)

    def empty_cache(self) -> int:
        """Gives free memory back to the driver; returns how many bytes that were."""
        before = self.reserved
        with self._lock:
            self._drain()
            self.device.activate()
            gone = {id(slab): slab for slab in self._slab_of.values() if not slab.live}
            for slab in gone.values():
                for pointer in slab.blocks:
                    del self._slab_of[pointer]
            self._cutting = {
                key: slab for key, slab in self._cutting.items() if id(slab) not in gone
            }
            dead = {pointer for slab in gone.values() for pointer in slab.blocks}
            kept: dict[tuple[int, int], list[int]] = {}
            own: list[tuple[int, int]] = []
            for key, pointers in self._free.items():
                for pointer in pointers:
                    if pointer in self._slab_of:
                        kept.setdefault(key, []).append(pointer)
                    elif pointer not in dead:
                        own.append((pointer, _whole_pages(key[1])))
            self._free = kept
            for pointer, size in [*own, *((slab.pointer, slab.size) for slab in gone.values())]:
                self.driver.cuMemFree_v2(pointer)  # waits for what uses it
                self.reserved -= size
            for handle in list(self._retired):
                if not any(stream == handle for stream, _ in kept):
                    self._retired.discard(handle)
                    self._gone.add(handle)
                    self.driver.cuStreamSynchronize(handle)
                    self.driver.cuStreamDestroy_v2(handle)
        return before - self.reserved

    def begin(self, stream: int) -> None:
        """A stream just made: the driver gives the handles of destroyed ones out again."""
        self._gone.discard(stream)

    def retire(self, stream: int) -> None:
        """A stream that nobody has any more: it is destroyed when no memory is cached for it."""
        self._retired.add(stream)

    def memory_info(self) -> tuple[int, int]:
        """Bytes free on the device, and all of them, as the driver sees it."""
        free, total = c_size_t(), c_size_t()
        self.device.activate()
        self.driver.cuMemGetInfo_v2(byref(free), byref(total))
        return free.value, total.value

    def stats(self) -> dict[str, Any]:
        with self._lock:
            self._drain()
            return {
                "allocated_bytes": self.in_use, "allocated_bytes_peak": self.peak_in_use,
                "reserved_bytes": self.reserved, "reserved_bytes_peak": self.peak_reserved,
                "allocations": self.allocations, "out_of_memory": self.failures,
            }  # fmt: skip

    def reset_peak(self) -> None:
        with self._lock:
            self._drain()
            self.peak_in_use, self.peak_reserved = self.in_use, self.reserved


def _whole_pages(size: int) -> int:
    return -(-size // GRANULE) * GRANULE

