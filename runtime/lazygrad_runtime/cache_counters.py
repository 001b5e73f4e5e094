"""Counters that many processes add to without a lock, and without losing an event.

In: events by name.  Out: totals over all processes that ever used the folder. Every event is one
fixed-size record appended to `events` in one write, which the system keeps whole. When the log is
large it is renamed to a segment and a new log begins. A segment is added to the totals only when it
has rested for a minute: a process that opened it as the log just before the renaming may still
append. The totals name the segments that they contain, so a death between writing them and deleting
the segments counts nothing twice.
"""

from __future__ import annotations

import json
import secrets
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field

from lazygrad_runtime.cache_entry import REASONS
from lazygrad_runtime.cache_folder import TrustedFolder
from lazygrad_runtime.cache_locks import writing

EVENTS = ("hits", "misses", "stores", "rejects", "evictions")
LOG_BYTES = 1 << 16
REST_SECONDS = 60.0
KEY_DIGITS = 16
"""Of a key, as many hexadecimal digits as a record has place for."""

_SUBFOLDER = "counters"
_LOG = "events"
_TOTALS = "totals.json"
_LOCK = "lock"
_SEGMENT = "segment-"
_BODY = struct.Struct("<BBHI8s")  # event, reason, mark of a record, microseconds saved, key
_SUM = struct.Struct("<I")
_RECORD_BYTES = _BODY.size + _SUM.size
_MARK = 0x6C67
_LARGEST = 2**32 - 1


@dataclass(slots=True)
class Totals:
    """events: how many by name of `EVENTS`.  reasons: rejects by reason.  hits_by_key: by the first
    `KEY_DIGITS` digits of entries that are still there.
    """

    events: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    hits_by_key: Counter[str] = field(default_factory=Counter)
    microseconds_saved: int = 0

    def copy(self) -> Totals:
        return Totals(
            self.events.copy(),
            self.reasons.copy(),
            self.hits_by_key.copy(),
            self.microseconds_saved,
        )

    def count(self, log: bytes) -> None:
        """Adds a log's events. After bytes that are no record (a write cut short by a full disk),
        the next record is looked for at every offset.
        """
        offset = 0
        while offset + _RECORD_BYTES <= len(log):
            event, reason, mark, amount, key = _BODY.unpack_from(log, offset)
            body = log[offset : offset + _BODY.size]
            (found_sum,) = _SUM.unpack_from(log, offset + _BODY.size)
            if (
                mark != _MARK
                or event >= len(EVENTS)
                or reason >= len(REASONS)
                or zlib.crc32(body) != found_sum
            ):
                offset += 1
                continue
            offset += _RECORD_BYTES
            name = EVENTS[event]
            self.events[name] += 1
            if name == "hits":
                self.microseconds_saved += amount
                self.hits_by_key[key.hex()] += 1
            elif name == "rejects":
                self.reasons[REASONS[reason]] += 1


def _encode(event: str, key: str, seconds: float, reason: str) -> bytes:
    body = _BODY.pack(
        EVENTS.index(event),
        REASONS.index(reason) if reason else 0,
        _MARK,
        min(max(int(seconds * 1e6), 0), _LARGEST),
        bytes.fromhex(key[:KEY_DIGITS]),
    )
    return body + _SUM.pack(zlib.crc32(body))


class CacheCounters:
    """Event counts kept in a folder. The methods raise OSError."""

    def __init__(self, folder: TrustedFolder):
        self._folder = folder

    def add(
        self, event: str, key: str = "", seconds: float = 0.0, reason: str = "", count: int = 1
    ) -> None:
        """Counts one event of `EVENTS`, or several.  seconds: what a hit saved.  reason: of a
        reject.  Not to be called while `writing`.
        """
        record = _encode(event, key or "0" * KEY_DIGITS, seconds, reason)
        size = self._folder.append(_SUBFOLDER, _LOG, record * count)
        if size >= LOG_BYTES:
            self.compact()

    def _read(self, name: str) -> bytes:
        try:
            return self._folder.read(_SUBFOLDER, name)
        except FileNotFoundError:
            return b""

    def _read_totals(self) -> tuple[Totals, list[str]]:
        """Totals of merged segments, and the names of those segments."""
        try:
            content = json.loads(self._read(_TOTALS))
            events, reasons, hits = (
                Counter({str(name): int(count) for name, count in content[part].items()})
                for part in ("events", "reasons", "hits_by_key")
            )
            totals = Totals(events, reasons, hits, int(content["microseconds_saved"]))
            return totals, [str(name) for name in content["merged"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return Totals(), []

    def _segments(self) -> list[str]:
        return [n for n in self._folder.names(_SUBFOLDER) if n.startswith(_SEGMENT)]

    def totals(self) -> Totals:
        """What happened in all processes. Reads again when a compaction came between."""
        for _ in range(5):
            segments = self._segments()
            base, merged = self._read_totals()
            totals = base.copy()
            for name in [name for name in segments if name not in merged] + [_LOG]:
                totals.count(self._read(name))
            if (segments, (base, merged)) == (self._segments(), self._read_totals()):
                break
        return totals

    def compact(self, rest_seconds: float = REST_SECONDS) -> None:
        """Begins a new log when this one is large, and merges the segments that have rested."""
        with (
            writing(self._folder) as undisturbed,
            self._folder.lock(_LOCK, exclusive=True, seconds=0.0) as locked,
        ):
            if not (undisturbed and locked):  # another process is at it
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
                totals.count(self._read(name))
            if rested:
                self._write_totals(totals, merged + rested)
            for name in merged + rested:
                self._folder.remove(_SUBFOLDER, name)

    def _write_totals(self, totals: Totals, merged: list[str]) -> None:
        present = {name[:KEY_DIGITS] for name in self._folder.names("entries")}
        content = {
            "events": totals.events,
            "reasons": totals.reasons,
            "hits_by_key": {
                key: count for key, count in totals.hits_by_key.items() if key in present
            },
            "microseconds_saved": totals.microseconds_saved,
            "merged": merged,
        }
        self._folder.write(_SUBFOLDER, _TOTALS, json.dumps(content).encode())
