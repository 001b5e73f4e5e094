"""The cache stays within its limits; what was unused longest goes; a write does not look around."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_limits import (
    MAX_BYTES,
    MAX_ENTRIES,
    Limits,
    measure,
    older_than,
    parse_count,
    parse_size,
    write_usage,
)
from lazygrad_runtime.cache_verify import verify
from tests.runtime.cache_common import files_of, marks, silent

pytestmark = marks
MEGABYTE = 1 << 20


def content(number: int, size: int) -> dict[str, bytes]:
    return {"object": number.to_bytes(8, "little") * (size // 8)}


def numbers_in(cache: CompileCache) -> list[int]:
    return sorted(entry.fields["n"] for entry in cache.entries())


def test_fifty_megabytes_are_held_and_recent_entries_survive(tmp_path):
    limit = 50 * MEGABYTE
    cache = CompileCache(tmp_path / "cache", Limits(bytes=limit, entries=None))
    largest = 0
    for number in range(90):
        assert cache.store({"n": number}, content(number, MEGABYTE))
        assert cache.lookup({"n": 0}) is not None, "used after every write, it stays"
        largest = max(largest, cache.total_bytes())
    assert largest <= limit
    left = numbers_in(cache)
    assert 0 in left and left[1:] == list(range(90 - len(left) + 1, 90)), "the newest, no gaps"
    assert len(left) >= 39, "no more goes than is needed"
    stats = cache.stats()
    assert stats["evictions"] == 90 - len(left)
    assert verify(cache).findings == [] and verify(cache).unclaimed == 0


def test_the_number_of_entries_is_held(tmp_path):
    cache = CompileCache(tmp_path / "cache", Limits(bytes=None, entries=10))
    for number in range(35):
        assert cache.store({"n": number}, content(number, 80))
        assert len(files_of(cache, "entries")) <= 10
    left = numbers_in(cache)
    assert left == list(range(35 - len(left), 35)) and len(left) >= 8


def test_a_blob_stays_as_long_as_somebody_claims_it(cache):
    cache.store({"n": 1}, {"object": b"shared" * 100, "own": b"1" * 50})
    cache.store({"n": 2}, {"object": b"shared" * 100, "own": b"2" * 50})
    before = cache.total_bytes()
    pruned = cache.prune(Limits(None, 1))
    assert numbers_in(cache) == [2] and len(pruned.evicted) == 1
    assert cache.lookup({"n": 2}).read("object") == b"shared" * 100
    assert before - cache.total_bytes() == pruned.bytes
    assert (pruned.entries_left, pruned.bytes_left) == (1, cache.total_bytes())


def test_an_entry_larger_than_the_limit_is_not_stored(tmp_path):
    cache = CompileCache(tmp_path / "cache", Limits(bytes=10_000, entries=None))
    assert cache.store({"n": 1}, content(1, 4000))
    assert silent(lambda: cache.store({"n": 2}, content(2, 20_000))) is False
    assert numbers_in(cache) == [1]


def _count_calls(monkeypatch, action):
    """Calls of the system, by name, that an action makes."""
    calls: Counter[str] = Counter()

    def counting(name, original):
        def call(*arguments, **options):
            calls[name] += 1
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "fstat", "listdir", "write", "rename", "unlink", "fsync"):
            patch.setattr(os, name, counting(name, getattr(os, name)))
        action()
    return calls


def test_a_write_costs_the_same_among_twenty_thousand_entries(cache, monkeypatch):
    """Counted in calls of the system, none of which lists the folder."""
    cache.store({"n": 0}, content(0, 800))

    def write(number):
        return _count_calls(monkeypatch, lambda: cache.store({"n": number}, content(number, 800)))

    def fill(first, last):
        for number in range(first, last):
            (cache.path / "entries" / f"{number:064x}.json").write_bytes(b"x")
            (cache.path / "blobs" / f"{number:064x}").write_bytes(b"x")
        write_usage(cache.opened(), *measure(cache.opened()))

    fill(0, 100)
    among_hundred = write(1)
    fill(100, 20_000)
    among_many = write(2)
    assert among_hundred == among_many
    assert among_many["listdir"] == 0 and among_many["fsync"] == 2


def test_the_noted_size_is_the_real_one(cache):
    def noted():
        return cache.opened().read("counters", "usage")

    cache.store({"n": 1}, content(1, 800))
    cache.store({"n": 2}, {**content(1, 800), "more": b"x" * 31})
    cache.store({"n": 2}, content(3, 80))  # replaces
    before = noted()
    write_usage(cache.opened(), *measure(cache.opened()))
    assert noted() == before
    (cache.path / "counters" / "usage").write_bytes(b"nonsense")
    cache.store({"n": 4}, content(4, 80))
    before = noted()
    write_usage(cache.opened(), *measure(cache.opened()))
    assert noted() == before, "measured anew where nothing sound was noted"


def test_what_a_dead_writer_did_not_note_is_corrected_by_pruning(cache):
    cache.store({"n": 1}, content(1, 800))
    write_usage(cache.opened(), 5, 77)
    cache.prune()
    expected = measure(cache.opened())
    before = (cache.path / "counters" / "usage").read_bytes()
    write_usage(cache.opened(), *expected)
    assert (cache.path / "counters" / "usage").read_bytes() == before


def test_a_dry_run_deletes_nothing_and_says_the_same(cache):
    for number in range(6):
        cache.store({"n": number}, content(number, 800))
    (cache.path / "blobs" / ("0" * 64)).write_bytes(b"nobody's")
    files = files_of(cache, "entries", "blobs")
    dry = cache.prune(Limits(None, 2), dry_run=True)
    assert files_of(cache, "entries", "blobs") == files
    done = cache.prune(Limits(None, 2))
    assert done == dry and done.unclaimed == 1 and len(done.evicted) == 4
    assert numbers_in(cache) == [4, 5]


def test_what_was_unused_for_long_can_go(cache):
    for number in range(4):
        cache.store({"n": number}, content(number, 80))
    for number, path in enumerate(files_of(cache, "entries")):
        os.utime(path, (time.time() - 1000 * number,) * 2)
    cache.prune(Limits(None, None), older_than(1500))
    assert len(cache.entries()) == 2


def test_pruning_takes_damaged_manifests_for_the_oldest_use_they_show(cache):
    cache.store({"n": 1}, content(1, 80))
    files_of(cache, "entries")[0].write_bytes(b"damaged")
    assert cache.prune().entries_left == 1, "it is for the next lookup to set aside"
    assert cache.prune(Limits(None, 0)).entries_left == 0


def test_limits_of_the_environment(monkeypatch, tmp_path):
    assert Limits.from_environment() == Limits(MAX_BYTES, MAX_ENTRIES)
    monkeypatch.setenv("LAZYGRAD_CACHE_MAX_BYTES", "50M")
    monkeypatch.setenv("LAZYGRAD_CACHE_MAX_ENTRIES", "none")
    assert CompileCache(tmp_path).limits == Limits(50 * MEGABYTE, None)
    monkeypatch.setenv("LAZYGRAD_CACHE_MAX_BYTES", "lots")
    with pytest.warns(RuntimeWarning, match="LAZYGRAD_CACHE_MAX_BYTES: 'lots' is not a size") as w:
        caches = [CompileCache(tmp_path) for _ in range(2)]
    assert len(w) == 1 and caches[0].limits == Limits()


def test_sizes():
    assert [parse_size(text) for text in ("0", "500", "1k", "1.5M", "2 GiB", "1TB", "none")] == \
        [0, 500, 1024, 3 << 19, 2 << 30, 1 << 40, None]
    for wrong in ("", "M", "-1", "1X", "1 2"):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(wrong)
    assert parse_count("12") == 12 and parse_count("None") is None
    with pytest.raises(ValueError, match="is not a number"):
        parse_count("1.5")
