"""Copies: host to device, device to host, device to device.

Ordinary host memory goes through two page-locked halves of a staging buffer: while the GPU copies
one, the CPU fills (or empties) the other.  A half is written again only after the copies from it
are done (an event).  What is page-locked already (`pin_memory`) is copied as it lies, and nobody
waits.  An upload never waits for the GPU unless both halves are under way, so that the caller's
memory may change as soon as it returns.
"""

from __future__ import annotations

import ctypes

import numpy as np

from lazygrad_compiler import forks
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.memory import DeviceBuffer
from lazygrad_runtime.cuda.pinned import PinnedBlock, pinned
from lazygrad_runtime.cuda.stream import Event, Stream, current_stream
from lazygrad_runtime.memory import Buffer, allocate

HALF_BYTES = 4 << 20
ALIGNMENT = 64


class Staging:
    """The staging memory of one device.  Safe for use by threads."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._lock = forks.rlock()
        self._halves = [pinned(HALF_BYTES), pinned(HALF_BYTES)]
        self._events: list[dict[int, Event]] = [{}, {}]  # of each half, by stream
        self._half = self._position = 0

    def _next_half(self) -> None:
        """Goes on with the other half, once the copies from it are done."""
        self._half = 1 - self._half
        self._position = 0
        for event in self._events[self._half].values():
            event.synchronize()

    def upload(self, source: Buffer) -> DeviceBuffer:
        """A copy of host memory on the device, ordered on the current stream."""
        device = self.device
        stream = current_stream(device)
        device.activate()
        target = device.pool.allocate(source.nbytes, stream.handle)
        if not source.nbytes:
            return target
        if isinstance(source.owner, PinnedBlock):
            device.driver.cuMemcpyHtoDAsync_v2(
                target.address, source.pointer, source.nbytes, stream.handle
            )
            source.owner.read_by(stream)
            return target
        with self._lock:
            done = 0
            while done < source.nbytes:
                if self._position >= HALF_BYTES:
                    self._next_half()
                size = min(source.nbytes - done, HALF_BYTES - self._position)
                place = self._halves[self._half].pointer + self._position
                ctypes.memmove(place, source.pointer + done, size)
                device.driver.cuMemcpyHtoDAsync_v2(
                    target.address + done, place, size, stream.handle
                )
                done += size
                self._position += -(-size // ALIGNMENT) * ALIGNMENT
                if self._position >= HALF_BYTES:
                    self._mark(stream)
            self._mark(stream)
        return target

    def _mark(self, stream: Stream) -> None:
        """Notes how far the stream has to come before the present half is free."""
        event = self._events[self._half].get(stream.handle)
        if event is None:
            event = self._events[self._half][stream.handle] = Event()
        event.record(stream)

    def download(
        self, source: DeviceBuffer, dtype: np.dtype, shape: tuple[int, ...]
    ) -> np.ndarray:
        """A copy of a value in host memory; waits for it."""
        source.check()
        device = self.device
        device.activate()
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if nbytes > source.nbytes:
            raise ValueError(
                f"[as_numpy] shape {shape} of {dtype} needs {nbytes} bytes, the buffer has "
                f"{source.nbytes}."
            )
        target = allocate(nbytes)
        stream = current_stream(device)
        source.used_on(stream.handle)
        with self._lock:
            waiting: tuple[int, int, int] | None = None
            for done in range(0, nbytes, HALF_BYTES):
                self._next_half()
                size = min(nbytes - done, HALF_BYTES)
                place = self._halves[self._half].pointer
                device.driver.cuMemcpyDtoHAsync_v2(
                    place, source.address + done, size, stream.handle
                )
                self._mark(stream)
                if waiting is not None:
                    self._collect(target, *waiting)
                waiting = self._half, done, size
            if waiting is not None:
                self._collect(target, *waiting)
            # further uploads go on behind what was read out
            self._position = HALF_BYTES
        device.recent.clear()  # what ran before has come to its end without a fault
        return target.as_numpy(dtype, shape)

    def _collect(self, target: Buffer, half: int, done: int, size: int) -> None:
        for event in self._events[half].values():
            event.synchronize()
        ctypes.memmove(target.pointer + done, self._halves[half].pointer, size)


def filled(device: Device, nbytes: int, byte: int) -> DeviceBuffer:
    """So many bytes of one value."""
    stream = current_stream(device).handle
    device.activate()
    target = device.pool.allocate(nbytes, stream)
    if nbytes:
        device.driver.cuMemsetD8Async(target.address, byte, nbytes, stream)
    return target


def copy_between(source: DeviceBuffer, device: Device) -> DeviceBuffer:
    """A copy of a value on another device (or on the same)."""
    source.check()
    origin = source.device
    device.activate()
    stream = current_stream(device)
    target = device.pool.allocate(source.nbytes, stream.handle)
    if not source.nbytes:
        return target
    if origin is device:
        source.used_on(stream.handle)
        device.driver.cuMemcpyDtoDAsync_v2(
            target.address, source.address, source.nbytes, stream.handle
        )
        return target
    # streams of two devices meet by events, which may be waited for anywhere
    stream.wait_event(Event().record(Stream(origin, source.stream)))
    device.activate()
    device.driver.cuMemcpyPeerAsync(
        target.address, device.context, source.address, origin.context, source.nbytes,
        stream.handle,
    )  # fmt: skip
    # the block must not be used for anything else before the copy is made
    Stream(origin, source.stream).wait_event(Event().record(stream))
    return target


def page_locked(source: Buffer) -> Buffer:
    """The same bytes in page-locked memory; the buffer itself where it lies there."""
    if isinstance(source.owner, PinnedBlock):
        return source
    target = pinned(source.nbytes)
    ctypes.memmove(target.pointer, source.pointer, source.nbytes)
    return target
