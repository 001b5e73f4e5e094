"""Several processes and threads at once, and those that are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
import warnings

import pytest

from lazygrad_runtime import cache_locks
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_folder import TrustedFolder
from lazygrad_runtime.cache_limits import Limits, prune
from lazygrad_runtime.cache_locks import writing
from lazygrad_runtime.cache_verify import verify
from tests.runtime.cache_common import FIELDS, files_of, marks, processes

pytestmark = marks

STUCK = 900.0
"""Seconds after which something hangs for certain, on the slowest machine there is."""


def test_processes_storing_the_same_key_at_once(cache):
    """Readers see one writer's entry or another's, never a mixture and never damage."""

    def content(writer):
        return {"object": bytes([writer]) * 20_000, "llvm": b"%d" % writer}

    enough = processes.Event()
    written = processes.Value("i", 0)

    def write(writer):
        number = 0
        while number < 20 or not enough.is_set():
            if not CompileCache(cache.path).store(FIELDS, content(writer), {"writer": writer}):
                os._exit(2)
            number += 1
        with written:
            written.value += number

    assert cache.store(FIELDS, content(0), {"writer": 0})
    writers = [processes.Process(target=write, args=(writer,)) for writer in range(1, 4)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        entry = cache.lookup(FIELDS)
        assert entry is not None
        writer_number = entry.manifest["meta"]["writer"]
        expected = content(writer_number)
        assert {name: entry.read(name) for name in expected} == expected
        seen.add(writer_number)
        if len(seen) > 1:
            enough.set()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(seen) > 1
    stats = cache.stats()
    assert written.value >= 60
    assert (stats["rejects"], stats["misses"], stats["stores"]) == (0, 0, 1 + written.value)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_writer_killed_at_any_moment(cache):
    def write():
        own = CompileCache(cache.path)
        number = 0
        while True:
            number += 1
            content = bytes([number % 256]) * 200_000
            own.store({"n": number % 3}, {"object": content, "llvm": content[:50]}, {"n": number})
            stored.set()

    for kill in range(12):
        stored = processes.Event()
        writer = processes.Process(target=write)
        writer.start()
        if kill % 3 == 2:  # else perhaps before it has stored anything
            assert stored.wait(STUCK)
        time.sleep(0.02 + 0.003 * kill)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for number in range(3):
            entry = cache.lookup({"n": number})
            if entry is not None:
                mark = bytes([entry.manifest["meta"]["n"] % 256])
                assert entry.read("object") == mark * 200_000
                assert entry.read("llvm") == mark * 50
    assert cache.stats()["rejects"] == 0
    assert any(cache.lookup({"n": number}) is not None for number in range(3))


def test_killed_before_the_manifest_leaves_a_miss(cache):
    """Dies at each system call of a store in turn; the entry is there only after the last."""

    def die_at(function, count):
        original = getattr(os, function)
        calls = [0]

        def dying(*arguments, **options):
            calls[0] += 1
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(os, function, dying)
        blob = f"a blob not stored before: {function} {count}".encode()
        CompileCache(cache.path).store(FIELDS, {"object": blob})

    cache.store({"other": 1}, {})
    for function in ("write", "fsync", "rename"):
        for count in (1, 2):  # the blob, then the manifest
            writer = processes.Process(target=die_at, args=(function, count))
            writer.start()
            writer.join()
            assert writer.exitcode == -signal.SIGKILL
            assert cache.lookup(FIELDS) is None
    assert cache.stats()["rejects"] == 0
    assert cache.store(FIELDS, {"object": b"o" * 1000})
    assert cache.lookup(FIELDS).read("object") == b"o" * 1000


def test_clearing_while_others_read_and_write(cache):
    failures = []
    stop = threading.Event()

    def use(number):
        try:
            own = CompileCache(cache.path)
            while not stop.is_set():
                entry = own.lookup({"n": number})
                if entry is None:
                    own.store({"n": number}, {"object": bytes([number]) * 3000})
                else:
                    assert entry.read("object") == bytes([number]) * 3000
        except BaseException as error:
            failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            time.sleep(0.005)
            cache.clear()
        stop.set()
        for thread in threads:
            thread.join(STUCK)
    assert not failures


def test_sixteen_processes_hammering_while_others_prune(cache, monkeypatch):
    """No error, no damage, nothing half there: neither while it happens nor afterwards."""
    monkeypatch.setattr(cache_locks, "WAIT_SECONDS", STUCK)  # nobody gives up on a slow machine
    limits = Limits(bytes=60_000, entries=25)

    def hammer(seed):
        try:
            warnings.simplefilter("error")
            random_numbers = random.Random(seed)
            own = CompileCache(cache.path, limits)
            for _ in range(60):
                number = random_numbers.randrange(40)
                shared = bytes([number % 5]) * 900  # claimed by several entries
                content = {"object": bytes([number]) * 2000, "shared": shared}
                entry = own.lookup({"n": number})
                if entry is None:
                    assert own.store({"n": number}, content, {"seconds": 0.001})
                else:
                    assert {name: entry.read(name) for name in content} == content
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    assert cache.store({"n": -1}, {})
    workers = [processes.Process(target=hammer, args=(seed,)) for seed in range(16)]
    for worker in workers:
        worker.start()
    rounds = 0
    while any(worker.is_alive() for worker in workers):
        pruned = prune(cache.opened(), Limits(bytes=30_000, entries=10), wait_seconds=STUCK)
        assert not pruned.busy
        assert verify(cache).findings == []
        rounds += 1
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 16
    assert rounds >= 1
    stats = cache.stats()
    assert stats["rejects"] == 0
    assert stats["hits"] + stats["misses"] == 16 * 60
    assert stats["misses"] == stats["stores"] - 1
    assert 0 < stats["evictions"] <= stats["stores"]
    cache.prune(Limits(None, None))
    report = verify(cache)
    assert (report.findings, report.unclaimed, report.temporaries) == ([], 0, 0)


# The calls of the system that a store makes; a death is possible at each of them.
_CALLS = ("open", "write", "fsync", "rename", "close", "stat", "fstat", "listdir", "unlink")


def test_killed_at_two_hundred_points_of_a_write(cache):
    """Verify is clean after each death, and what the dead left behind is collected."""
    limits = Limits(bytes=20_000, entries=None)  # so that pruning is under way, too, now and then

    def die_after(count, number):
        calls = [0]

        def dying(original):
            def call(*arguments, **options):
                calls[0] += 1
                if calls[0] == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            return call

        own = CompileCache(cache.path, limits)
        own.opened()
        os.fsync = lambda descriptor: None  # only for speed: a killed process is no power cut
        for name in _CALLS:
            setattr(os, name, dying(getattr(os, name)))
        own.store({"n": number}, {"object": number.to_bytes(2, "big") * 350, "same": b"same" * 50})

    random_numbers = random.Random(7)
    assert cache.store({"n": -1}, {})
    killed, dirty, number = 0, 0, 0
    while killed < 200:
        number += 1
        count = random_numbers.randrange(1, 60)
        child = os.fork()
        if child == 0:
            try:
                die_after(count, number)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            report = verify(cache)
            assert report.findings == []
            dirty += report.temporaries > 0
    assert dirty > 10, "deaths left nothing behind: they did not hit the writing"
    assert cache.stats()["rejects"] == 0
    CompileCache(cache.path).opened()
    assert files_of(cache, "temporary") == []
    cache.prune(limits)
    report = verify(cache)
    assert (report.findings, report.unclaimed, report.temporaries) == ([], 0, 0)


def test_a_process_forked_within_a_write_does_not_keep_others_out(cache):
    folder = TrustedFolder(cache.path)
    with writing(folder):
        child = os.fork()
        if child == 0:
            time.sleep(STUCK)
            os._exit(0)
    try:
        with cache_locks.alone(folder, seconds=0.0) as undisturbed:
            assert undisturbed
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_writer_that_is_stopped_does_not_hang_the_others(cache):
    """Others store beside it; who deletes gives up after a while and says so."""
    ready = processes.Event()

    def stop_inside():
        with writing(TrustedFolder(cache.path)):
            ready.set()
            time.sleep(STUCK)

    cache.store({"n": 1}, {"object": b"1"})
    sleeper = processes.Process(target=stop_inside)
    sleeper.start()
    assert ready.wait(STUCK)
    folder = cache.opened()
    assert prune(folder, Limits(0, 0), wait_seconds=0.05).busy
    assert cache.store({"n": 2}, {"object": b"2"})
    assert len(cache.entries()) == 2
    sleeper.kill()
    sleeper.join()
    assert prune(folder, Limits(0, 0)).entries_left == 0
