"""Streams and events, under PyTorch's names.

Operations are recorded, not run, so a stream is that of the moment when values are computed: within
`with stream(s):` what gets computed runs on `s`.  Values remember their stream, and a program that
reads them on another one waits for it by itself.
"""

from __future__ import annotations

from typing import Any

from lazygrad._core import cell as cells
from lazygrad._core import placement
from lazygrad._core.context import fail
from lazygrad._core.values import Device
from lazygrad.cuda.graphs import is_current_stream_capturing, not_in_captures


def _runtime() -> Any:
    from lazygrad_runtime.cuda import stream
    return stream


def _compute_pending() -> None:
    """What was recorded comes before a change of streams, or a mark; captures have one order."""
    if not is_current_stream_capturing():
        cells.flush()


class Stream:
    """A queue of work on a device: what is computed on one runs in order."""

    def __init__(self, device: Any = None, priority: int = 0, *, _handle: Any = None) -> None:
        if _handle is None:
            _handle = _runtime().Stream(placement.runtime_device(device, "cuda.Stream"))
        self._stream = _handle
        self.priority = priority

    @property
    def device(self) -> Device:
        return placement.as_device(self._stream.device.label)

    @property
    def cuda_stream(self) -> int:
        """The driver's handle."""
        return self._stream.handle

    def synchronize(self) -> None:
        """Waits for everything on the stream."""
        not_in_captures("cuda.Stream.synchronize")
        self._stream.synchronize()

    def query(self) -> bool:
        """Whether everything on the stream is done."""
        return self._stream.query()

    def wait_event(self, event: Event) -> None:
        """What comes onto the stream from now on waits for the event."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """What comes onto the stream from now on waits for what is on the other one now."""
        self._stream.wait_stream(stream._stream)

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (
            self._stream.device is other._stream.device and self.cuda_stream == other.cuda_stream)

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __repr__(self) -> str:
        return f"<lazygrad.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream that another library made, by the driver's handle; it must outlive its use."""

    def __init__(self, stream_ptr: int, device: Any = None) -> None:
        found = placement.runtime_device(device, "cuda.ExternalStream")
        super().__init__(_handle=_runtime().Stream(found, stream_ptr))


class Event:
    """A mark in a stream, to wait for or to measure between.

    enable_timing: needed for `elapsed_time`.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False,
                 interprocess: bool = False, external: bool = False) -> None:
        if interprocess:
            raise fail("cuda.Event", "events are not shared by processes",
                       "Leave interprocess out.")
        self._event = _runtime().Event(timing=enable_timing)

    def record(self, stream: Stream | None = None) -> None:
        """Puts the mark behind everything that was recorded; pending values are computed first."""
        _compute_pending()
        stream = current_stream() if stream is None else stream
        self._event.record(stream._stream)

    def wait(self, stream: Stream | None = None) -> None:
        """What comes onto the stream from now on waits for the mark."""
        (current_stream() if stream is None else stream).wait_event(self)

    def synchronize(self) -> None:
        """Waits until the mark is reached."""
        not_in_captures("cuda.Event.synchronize")
        self._event.synchronize()

    def query(self) -> bool:
        return self._event.query()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to another."""
        for event in (self, end_event):
            if not event._event.timing:
                raise fail("elapsed_time", "an event was made without enable_timing",
                           "Make both with cuda.Event(enable_timing=True).")
            if event._event.handle is None:
                raise fail("elapsed_time", "an event was never recorded",
                           "Call event.record() first.")
        return self._event.elapsed(end_event._event)


def current_stream(device: Any = None) -> Stream:
    """The stream that values are computed on now."""
    found = placement.runtime_device(device, "cuda.current_stream")
    return Stream(_handle=_runtime().current_stream(found))


def default_stream(device: Any = None) -> Stream:
    """The stream that all others wait for."""
    found = placement.runtime_device(device, "cuda.default_stream")
    return Stream(_handle=_runtime().default_stream(found))


def set_stream(stream: Stream) -> None:
    """Values are computed on that stream from now on; what was pending before is not."""
    _compute_pending()
    _runtime().set_stream(stream._stream)


class stream:
    """Within the block, values are computed on a stream.  None changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._before: Stream | None = None

    def __enter__(self) -> Stream | None:
        if self._stream is not None:
            self._before = current_stream(self._stream.device)
            set_stream(self._stream)
        return self._stream

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            set_stream(self._before)
