"""Events are counted over all processes; none is lost and none is invented."""

from __future__ import annotations

from lazygrad_runtime import cache_counters
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_counters import CacheCounters
from lazygrad_runtime.cache_folder import TrustedFolder
from tests.runtime.cache_common import BLOBS, FIELDS, marks, processes

pytestmark = marks


def test_counters_add_up_over_processes(cache):
    def use():
        own = CompileCache(cache.path)
        for _ in range(50):
            own.lookup(FIELDS)
            own.lookup({"n": 0})

    cache.store(FIELDS, BLOBS)
    users = [processes.Process(target=use) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    stats = CompileCache(cache.path).stats()
    assert (stats["hits"], stats["misses"]) == (150, 150)
    assert (stats["stores"], stats["rejects"], stats["entries"]) == (1, 0, 1)
    assert stats["bytes"] == cache.total_bytes() and stats["enabled"] is True


def test_compaction_loses_and_invents_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_counters, "LOG_BYTES", 400)
    folder = TrustedFolder(tmp_path / "cache")

    def add(event):
        own = CacheCounters(TrustedFolder(tmp_path / "cache"))
        for _ in range(500):
            own.add(event)

    users = [processes.Process(target=add, args=(event,)) for event in ("hits", "hits", "misses")]
    for user in users:
        user.start()
    for user in users:
        user.join()
    expected = {"hits": 1000, "misses": 500}
    counters = CacheCounters(folder)
    assert counters.totals().events == expected
    assert len(folder.names("counters")) > 10
    counters.compact(rest_seconds=0.0)
    assert counters.totals().events == expected
    assert not any(name.startswith("segment-") for name in folder.names("counters"))
    counters.compact(rest_seconds=0.0)
    assert counters.totals().events == expected


def test_death_between_totals_and_deleting_counts_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_counters, "LOG_BYTES", 80)
    folder = TrustedFolder(tmp_path / "cache")
    counters = CacheCounters(folder)
    for _ in range(35):
        counters.add("stores")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "remove", lambda *names: False)
        counters.compact(rest_seconds=0.0)
    assert any(name.startswith("segment-") for name in folder.names("counters"))
    assert counters.totals().events["stores"] == 35
    counters.compact(rest_seconds=0.0)
    assert not any(name.startswith("segment-") for name in folder.names("counters"))
    assert counters.totals().events["stores"] == 35


def test_torn_record_spoils_no_other(tmp_path):
    folder = TrustedFolder(tmp_path / "cache")
    counters = CacheCounters(folder)
    counters.add("hits")
    folder.append("counters", "events", b"\x01\x02\x03")
    counters.add("misses")
    counters.add("hits")
    assert counters.totals().events == {"hits": 2, "misses": 1}


def test_details_survive_compaction(tmp_path, monkeypatch):
    """Hits by key, seconds saved and the reasons of rejects; keys that are gone are forgotten."""
    monkeypatch.setattr(cache_counters, "LOG_BYTES", 60)
    folder = TrustedFolder(tmp_path / "cache")
    counters = CacheCounters(folder)
    here, gone = "ab" * 32, "cd" * 32
    folder.write("entries", here + ".json", b"")
    for _ in range(4):
        counters.add("hits", key=here, seconds=0.25)
    counters.add("hits", key=gone, seconds=1.5)
    counters.add("rejects", key=here, reason="blob-contents")
    counters.add("evictions", count=3)

    def check(hits_of_gone):
        totals = counters.totals()
        assert totals.events == {"hits": 5, "rejects": 1, "evictions": 3}
        assert totals.microseconds_saved == 2_500_000
        assert totals.reasons == {"blob-contents": 1}
        assert totals.hits_by_key[here[:16]] == 4
        assert totals.hits_by_key[gone[:16]] == hits_of_gone

    check(1)
    monkeypatch.setattr(cache_counters, "LOG_BYTES", 1)
    counters.compact(rest_seconds=0.0)
    check(0)


def test_an_amount_that_no_record_can_hold_is_cut(tmp_path):
    counters = CacheCounters(TrustedFolder(tmp_path / "cache"))
    counters.add("hits", key="ab" * 32, seconds=1e9)
    counters.add("hits", key="ab" * 32, seconds=-1.0)
    assert counters.totals().microseconds_saved == 2**32 - 1
