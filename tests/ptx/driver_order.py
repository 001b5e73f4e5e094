"""Which work on a device is ordered behind which: accesses that no event orders are found.

Work of the fake driver runs at once, in the order of its calls, so a missing event changes no
result.  Here each stream has a clock that knows how far it has to be behind each other one (vector
clocks: Lamport 1978, Mattern 1989): an event carries its stream's clock to those that wait for it,
and the host's goes with every call.  Each 256 bytes of memory know their last write, and the reads
since; whoever comes next must know them.

The default stream waits for all others, and they for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.ptx.memory import GLOBAL_BASE, DeviceMemory

SHIFT = 8
Clock = dict[int, int]


def joined(clock: Clock, other: Clock) -> None:
    for stream, time in other.items():
        clock[stream] = max(clock.get(stream, 0), time)


class Order:
    """Clocks and accesses.  races: what was found, in words."""

    def __init__(self, memory: DeviceMemory) -> None:
        self.clocks: dict[int, Clock] = {0: {}}
        self.host: Clock = {}
        self.events: dict[int, Clock] = {}
        self.races: list[str] = []
        self._seen: tuple[list[np.ndarray], list[np.ndarray]] | None = None
        self._written: dict[int, tuple[int, int]] = {}
        self._read: dict[int, Clock] = {}
        self._watch(memory)

    # ---- clocks

    def clock(self, stream: int | None) -> Clock:
        return self.clocks.setdefault(stream or 0, {})

    def record(self, event: int, stream: int | None) -> None:
        self.events[event] = dict(self._now(stream or 0))

    def wait(self, stream: int | None, event: int) -> None:
        joined(self.clock(stream), self.events.get(event, {}))

    def host_waits(self, clock: Clock) -> None:
        joined(self.host, clock)

    def host_waits_for_all(self) -> None:
        for clock in self.clocks.values():
            joined(self.host, clock)

    def _now(self, stream: int) -> Clock:
        """The clock of what a stream is given now."""
        clock = self.clock(stream)
        joined(clock, self.host)
        for other, their in list(self.clocks.items()):
            if stream == 0 or other == 0:
                joined(clock, their)
        return clock

    # ---- accesses

    @contextlib.contextmanager
    def work(self, stream: int | None) -> Iterator[None]:
        """Accesses within are of one piece of work on a stream."""
        number = stream or 0
        clock = self._now(number)
        time = clock[number] = clock.get(number, 0) + 1
        self._seen = ([], [])
        try:
            yield
        finally:
            (reads, writes), self._seen = self._seen, None
            self._check(number, time, clock, _granules(reads), _granules(writes))

    def _check(self, stream: int, time: int, clock: Clock, reads: list, writes: list) -> None:
        def wrong(what: str, granule: int, other: int, at: int) -> None:
            if clock.get(other, 0) < at:
                self.races.append(
                    f"stream {stream:#x} {what} {GLOBAL_BASE + (granule << SHIFT):#x} that stream "
                    f"{other:#x} has used, with nothing between")

        for granule in {*reads, *writes}:
            writer, written = self._written.get(granule, (stream, 0))
            wrong("uses" if granule in reads else "writes", granule, writer, written)
        for granule in writes:
            for reader, read in self._read.pop(granule, {}).items():
                wrong("writes", granule, reader, read)
            self._written[granule] = stream, time
        for granule in reads:
            self._read.setdefault(granule, {})[stream] = time

    def _watch(self, memory: DeviceMemory) -> None:
        """Notes what is read and written; fresh memory was used by nobody."""
        space, load, store, allocate = (
            memory.space, memory.space.load, memory.space.store, memory.allocate)

        def watched_load(index: np.ndarray, size: int, count: int, used: Any = ()) -> np.ndarray:
            if self._seen is not None:
                self._seen[0].append(np.asarray(index))
            return load(index, size, count, used)

        def watched_store(index: np.ndarray, values: np.ndarray) -> None:
            if self._seen is not None:
                self._seen[1].append(np.asarray(index))
            store(index, values)

        def watched_allocate(size: int) -> int:
            address = allocate(size)
            first = (address - GLOBAL_BASE) >> SHIFT
            for granule in range(first, first + (size >> SHIFT) + 1):
                self._written.pop(granule, None)
                self._read.pop(granule, None)
            return address

        space.load, space.store = watched_load, watched_store  # type: ignore[method-assign]
        memory.allocate = watched_allocate  # type: ignore[method-assign]
        for name, place in (("write", 1), ("fill", 1), ("read", 0)):
            setattr(memory, name, self._ranged(getattr(memory, name), place))
        copy = memory.copy

        def watched_copy(destination: int, source: int, size: int) -> None:
            self._range(1, destination, size)
            self._range(0, source, size)
            copy(destination, source, size)

        memory.copy = watched_copy  # type: ignore[method-assign]

    def _ranged(self, function: Any, place: int) -> Any:
        def watched(address: int, what: Any, *more: int) -> Any:
            size = more[0] if more else what if isinstance(what, int) else memoryview(what).nbytes
            self._range(place, address, size)
            return function(address, what, *more)

        return watched

    def _range(self, place: int, address: int, size: int) -> None:
        if self._seen is not None:
            start = address - GLOBAL_BASE
            self._seen[place].append(np.arange(start, start + size, 1 << SHIFT))


def _granules(indices: list[np.ndarray]) -> list[int]:
    if not indices:
        return []
    found: list[int] = np.unique(np.concatenate(indices).astype(np.int64) >> SHIFT).tolist()
    return found
