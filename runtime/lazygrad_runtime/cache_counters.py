"""Counters that many processes add to without a lock, and without losing an event.

In: events by name.  Out: totals over all processes that ever used the folder. Every event is one
8-byte record appended to `log` in one write, which the system keeps whole. When the log is large it
is renamed to a segment and a new log begins. A segment is added to the totals only when it has
rested for a minute: a process that opened it as the log just before the renaming may still append.
The totals name the segments that they contain, so a death between writing them and deleting the
segments counts nothing twice.
"""

from __future__ import annotations

import json
import secrets
import struct
import zlib

from lazygrad_runtime.cache_folder import TrustedFolder

EVENTS = ("hits", "misses", "stores", "rejects")
LOG_BYTES = 1 << 16
REST_SECONDS = 60.0

_SUBFOLDER = "counters"
_LOG = "log"
_TOTALS = "totals.json"
_LOCK = "lock"
_SEGMENT = "segment-"
_RECORD = struct.Struct("<II")  # event number, check sum


def _encode(event: str) -> bytes:
    number = EVENTS.index(event)
    return _RECORD.pack(number, zlib.crc32(bytes([number])))


_EVENT_OF_RECORD = {_encode(event): event for event in EVENTS}
_RECORD_OF_EVENT = {event: record for record, event in _EVENT_OF_RECORD.items()}


def _count(log: bytes) -> dict[str, int]:
    """Events in a log. After bytes that are no record (a write cut short by a full disk), the
    next record is looked for at every offset."""
    totals = dict.fromkeys(EVENTS, 0)
    offset = 0
    while offset + _RECORD.size <= len(log):
        event = _EVENT_OF_RECORD.get(log[offset : offset + _RECORD.size])
        if event is None:
            offset += 1
        else:
            totals[event] += 1
            offset += _RECORD.size
    return totals


class CacheCounters:
    """Event counts kept in a folder. The methods raise OSError."""

    def __init__(self, folder: TrustedFolder):
        self._folder = folder

    def add(self, event: str) -> None:
        """Counts one event of `EVENTS`."""
        size = self._folder.append(_SUBFOLDER, _LOG, _RECORD_OF_EVENT[event])
        if size >= LOG_BYTES:
            self.compact()

    def _read(self, name: str) -> bytes:
        try:
            return self._folder.read(_SUBFOLDER, name)
        except FileNotFoundError:
            return b""

    def _read_totals(self) -> tuple[dict[str, int], list[str]]:
        """Totals of merged segments, and the names of those segments."""
        try:
            content = json.loads(self._read(_TOTALS) or b"{}")
            totals = {event: int(content["totals"][event]) for event in EVENTS}
            return totals, [str(name) for name in content["merged"]]
        except (ValueError, KeyError, TypeError):
            return dict.fromkeys(EVENTS, 0), []

    def _segments(self) -> list[str]:
        return [n for n in self._folder.names(_SUBFOLDER) if n.startswith(_SEGMENT)]

    def totals(self) -> dict[str, int]:
        """Events by name, from all processes. Reads again when a compaction came between."""
        for _ in range(5):
            segments = self._segments()
            base, merged = self._read_totals()
            totals = dict(base)
            for name in [name for name in segments if name not in merged] + [_LOG]:
                for event, count in _count(self._read(name)).items():
                    totals[event] += count
            if (segments, (base, merged)) == (self._segments(), self._read_totals()):
                break
        return totals

    def compact(self, rest_seconds: float = REST_SECONDS) -> None:
        """Begins a new log when this one is large, and merges the segments that have rested."""
        with self._folder.exclusive(_SUBFOLDER, _LOCK) as locked:
            if not locked:  # another process is at it
                return
            if self._folder.size(_SUBFOLDER, _LOG) >= LOG_BYTES:
                segment = _SEGMENT + secrets.token_hex(8)
                self._folder.move(_SUBFOLDER, _LOG, _SUBFOLDER, segment)
            totals, merged = self._read_totals()
            segments = self._segments()
            merged = [name for name in merged if name in segments]
            rested = [
                name
                for name in segments
                if name not in merged and self._folder.age(_SUBFOLDER, name) >= rest_seconds
            ]
            for name in rested:
                for event, count in _count(self._read(name)).items():
                    totals[event] += count
            if rested:
                content = {"totals": totals, "merged": merged + rested}
                self._folder.write(_SUBFOLDER, _TOTALS, json.dumps(content).encode())
            for name in merged + rested:
                self._folder.remove(_SUBFOLDER, name)
