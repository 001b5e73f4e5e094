"""Streams, events, and which stream a thread works on.

Work on one stream runs in order; the default stream (handle 0) is the driver's own, which waits for
all others and is waited for.  Buffers remember the stream that they were written on: a program on
another one is made to wait for it (`memory.Pool.used_on`), so that no ordering can be forgotten.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import c_float, c_void_p

from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.errors import NOT_READY

DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING


class _Current(threading.local):
    """The streams of this thread, by device; absent: the default stream."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}


_current = _Current()


class Stream:
    """A queue of work on a device.  handle: the driver's; 0 is the default stream."""

    def __init__(self, device: Device, handle: int | None = None) -> None:
        self.device = device
        self.era = device.era
        self._owned = False
        if handle is None:
            device.activate()
            handle = device.driver.get("cuStreamCreate", c_void_p, 0) or 0
            device.pool.begin(handle)
            self._owned = True
        self.handle = handle

    def __del__(self) -> None:
        # Free blocks of the allocator belong to the stream: it goes back when they do.
        if getattr(self, "_owned", False) and self.device.holds(self.era):
            self.device.pool.retire(self.handle)

    def synchronize(self) -> None:
        """Waits for all work on the stream."""
        self.device.activate()
        self.device.driver.cuStreamSynchronize(self.handle)

    def query(self) -> bool:
        """Whether all work on the stream is done."""
        self.device.activate()
        return _done(self.device, "cuStreamQuery", self.handle)

    def wait_event(self, event: Event) -> None:
        """Work recorded from now on waits for the event."""
        if event.handle is not None:
            self.device.activate()
            self.device.driver.cuStreamWaitEvent(self.handle, event.handle, 0)

    def wait_stream(self, other: Stream) -> None:
        """Work recorded from now on waits for what is on the other stream now."""
        if other.handle != self.handle or other.device is not self.device:
            self.wait_event(Event(other.device).record(other))


class Event:
    """A mark in a stream.  Made by the driver when first recorded."""

    def __init__(self, device: Device | None = None, timing: bool = False) -> None:
        self.device = device
        self.timing = timing
        self.handle: int | None = None
        self.era = 0

    def record(self, stream: Stream) -> Event:
        device = stream.device
        device.activate()
        if self.handle is None or self.device is not device or self.era != device.era:
            self.device, self.era = device, device.era
            flags = 0 if self.timing else DISABLE_TIMING
            self.handle = device.driver.get("cuEventCreate", c_void_p, flags)
        device.driver.cuEventRecord(self.handle, stream.handle)
        return self

    def synchronize(self) -> None:
        """Waits until the mark is reached; at once where it was never recorded."""
        if self.handle is not None and self.device is not None:
            self.device.activate()
            self.device.driver.cuEventSynchronize(self.handle)

    def query(self) -> bool:
        if self.handle is None or self.device is None:
            return True
        self.device.activate()
        return _done(self.device, "cuEventQuery", self.handle)

    def elapsed(self, end: Event) -> float:
        """Milliseconds from this mark to another."""
        assert self.device is not None
        result = c_float()
        self.device.driver.cuEventElapsedTime(ctypes.byref(result), self.handle, end.handle)
        return result.value

    def __del__(self) -> None:
        device, handle = getattr(self, "device", None), getattr(self, "handle", None)
        if handle is not None and device is not None and device.holds(self.era):
            device.driver.raw("cuEventDestroy_v2")(handle)  # its code would help nobody


def _done(device: Device, name: str, handle: int) -> bool:
    code = device.driver.raw(name)(handle)
    if code not in (0, NOT_READY):
        raise device.driver.error(name, code)
    return code == 0


def default_stream(device: Device) -> Stream:
    return Stream(device, 0)


def current_stream(device: Device) -> Stream:
    """The stream that this thread works on."""
    found = _current.streams.get(device.number)
    if found is None or found.device is not device or found.era != device.era:
        return default_stream(device)
    return found


def current_handle(device: Device) -> int:
    return current_stream(device).handle if _current.streams else 0


def set_stream(stream: Stream) -> None:
    """Makes a stream the thread's on its device."""
    if stream.handle:
        _current.streams[stream.device.number] = stream
    else:
        _current.streams.pop(stream.device.number, None)
