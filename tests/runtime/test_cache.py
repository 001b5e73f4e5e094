"""The compile cache: what was stored comes back, whole or not at all, and the disk never raises."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import stat
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazygrad_runtime import cache as cache_module
from lazygrad_runtime import cache_counters
from lazygrad_runtime.cache import CacheDamage, CompileCache, default_folder, key_of
from lazygrad_runtime.cache_counters import CacheCounters
from lazygrad_runtime.cache_folder import TrustedFolder

FIELDS = {"ir": "add f32[3]", "shapes": [[3], [3, 4]], "cpu": "znver5", "version": 7}
BLOBS = {"object": bytes(range(256)) * 5, "llvm": b"define void @kernel()", "empty": b""}
META = {"kernels": ["kernel"], "scratch": 4096, "tuned": {"tile": 8.5, "note": None}}

processes = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh_process_state(monkeypatch):
    monkeypatch.setattr(cache_module, "_warned", False)
    for name in ("LAZYGRAD_CACHE", "LAZYGRAD_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path):
    return CompileCache(tmp_path / "cache")


def files_of(cache: CompileCache, *subfolders: str) -> list[Path]:
    return sorted(path for name in subfolders for path in (cache.path / name).iterdir())


def silent(action):
    """Runs an action in which any warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return action()


# -- what was stored comes back ----------------------------------------------------------------


def test_store_then_lookup(cache):
    assert cache.lookup(FIELDS) is None
    assert silent(lambda: cache.store(FIELDS, BLOBS, META))
    entry = CompileCache(cache.path).lookup(dict(reversed(FIELDS.items())))
    assert entry.key == key_of(FIELDS)
    assert {name: entry.read(name) for name in BLOBS} == BLOBS
    assert entry.manifest["meta"] == META
    assert entry.manifest["fields"] == FIELDS
    assert set(entry.manifest["blobs"]) == set(BLOBS)
    with pytest.raises(KeyError):
        entry.read("ptx")


def test_each_field_is_part_of_the_key(cache):
    cache.store(FIELDS, BLOBS)
    for name, value in FIELDS.items():
        changed = {**FIELDS, name: value + (1 if isinstance(value, int) else value)}
        assert cache.lookup(changed) is None
        assert cache.explain_miss(changed) == [name]
    assert cache.lookup({**FIELDS, "flags": ""}) is None
    assert cache.explain_miss({**FIELDS, "flags": ""}) == ["flags"]
    assert cache.lookup(FIELDS) is not None


def test_explaining_a_miss_in_an_empty_cache_names_all_fields(cache):
    assert cache.explain_miss(FIELDS) == sorted(FIELDS)


field_values = st.recursive(
    st.text(max_size=5) | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
some_fields = st.dictionaries(st.text(max_size=3), field_values, max_size=3)


@given(some_fields, some_fields)
def test_keys_are_equal_exactly_when_fields_are(first, second):
    assert (key_of(first) == key_of(second)) == (first == second)


def test_text_and_number_are_different_fields():
    assert len({key_of({"x": value}) for value in (1, "1", [1], ["1"], [[1]], "", [])}) == 7
    assert key_of({"x": (1, 2)}) == key_of({"x": [1, 2]})


@pytest.mark.parametrize("value", [1.5, None, {"a": 1}, b"x", [1, [2.0]]])
def test_fields_of_other_types_are_refused_by_name(cache, value):
    for action in (key_of, cache.lookup, lambda fields: cache.store(fields, {})):
        with pytest.raises(TypeError, match="'flags'"):
            action({"flags": value})


def test_equal_blobs_are_kept_once(cache):
    cache.store({"n": 1}, {"object": b"same" * 1000, "also": b"same" * 1000})
    cache.store({"n": 2}, {"object": b"same" * 1000})
    assert len(files_of(cache, "blobs")) == 1
    assert len(cache.entries()) == 2
    assert 4000 < cache.total_bytes() < 8000


def test_storing_again_replaces(cache):
    cache.store(FIELDS, {"object": b"old"}, {"round": 1})
    cache.store(FIELDS, {"object": b"new"}, {"round": 2})
    entry = cache.lookup(FIELDS)
    assert (entry.read("object"), entry.manifest["meta"]) == (b"new", {"round": 2})


def test_entries_and_clear(cache):
    for number in range(5):
        cache.store({"n": number}, {"object": bytes([number])})
    assert [entry.key for entry in cache.entries()] == sorted(key_of({"n": n}) for n in range(5))
    assert {entry.read("object") for entry in cache.entries()} == {bytes([n]) for n in range(5)}
    assert cache.clear() == 5
    assert (cache.entries(), cache.total_bytes(), cache.clear()) == ([], 0, 0)
    assert cache.lookup({"n": 1}) is None
    assert cache.store({"n": 1}, {}) and cache.lookup({"n": 1}) is not None


# -- damage is a miss --------------------------------------------------------------------------


def damages(content: bytes):
    yield "emptied", b""
    yield "cut", content[: len(content) // 2]
    yield "cut by one", content[:-1]
    yield "longer", content + b"\n"
    yield "zeroed", bytes(len(content))


def check_is_rejected(cache: CompileCache, what: str) -> None:
    before = cache.stats()
    assert silent(lambda: cache.lookup(FIELDS)) is None, what
    after = cache.stats()
    assert after["rejects"] == before["rejects"] + 1, what
    assert after["misses"] == before["misses"] + 1, what
    assert cache.lookup(FIELDS) is None
    assert cache.stats()["rejects"] == after["rejects"], "rejected entry was not moved away"
    assert cache.store(FIELDS, BLOBS, META)
    entry = cache.lookup(FIELDS)
    assert entry is not None, f"{what}: not usable after storing again"
    assert {name: entry.read(name) for name in BLOBS} == BLOBS


def test_any_damaged_file_is_a_miss_and_can_be_rebuilt(cache):
    cache.store(FIELDS, BLOBS, META)
    for path in files_of(cache, "entries", "blobs"):
        content = path.read_bytes()
        for how, damaged in damages(content):
            if damaged != content:
                path.write_bytes(damaged)
                check_is_rejected(cache, f"{path.name} {how}")
    assert len(files_of(cache, "quarantine")) > 0


def test_flipping_any_byte_is_a_miss(cache):
    """Every byte of every file, one flip each, at all bit positions in turn."""
    blobs = {"object": bytes(range(40)), "llvm": b"define void @kernel()"}
    fields = {"ir": "add", "n": 3}
    cache.store(fields, blobs, {"scratch": 12345})
    cache._count = lambda folder, event: None  # the flips below would only fill the log
    flips = 0
    for path in files_of(cache, "entries", "blobs"):
        content = path.read_bytes()
        for position in range(len(content)):
            flipped = bytearray(content)
            flipped[position] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            assert cache.lookup(fields) is None, f"{path.name} byte {position}"
            flips += 1
            # put everything back as it was, wherever the cache moved it
            assert cache.store(fields, blobs, {"scratch": 12345})
            assert path.read_bytes() == content
    assert flips > 400


def test_missing_blob_is_a_miss(cache):
    cache.store(FIELDS, BLOBS, META)
    for path in files_of(cache, "blobs"):
        path.unlink()
        check_is_rejected(cache, f"{path.name} missing")


def test_manifest_under_another_key_is_a_miss(cache):
    cache.store({"n": 1}, {"object": b"one"})
    (source,) = files_of(cache, "entries")
    source.rename(cache.path / "entries" / (key_of(FIELDS) + ".json"))
    check_is_rejected(cache, "entry of other fields")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"{", b"\xff", b"[" * 100_000])
def test_wellsummed_nonsense_is_a_miss(cache, body):
    cache.store(FIELDS, BLOBS, META)
    (path,) = files_of(cache, "entries")
    path.write_bytes(cache_module._HEADER % hashlib.sha256(body).hexdigest().encode() + body)
    check_is_rejected(cache, repr(body[:10]))


def test_blob_names_cannot_leave_the_folder(cache, tmp_path):
    """Even a manifest with a right sum cannot make the cache read or move another file."""
    (tmp_path / "secret").write_bytes(b"not the blob")
    cache.store(FIELDS, {"object": b"a secret tho"})
    (path,) = files_of(cache, "entries")
    manifest = json.loads(path.read_bytes().split(b"\n", 1)[1])
    manifest["blobs"]["object"]["sha256"] = "../../secret"
    body = json.dumps(manifest).encode()
    path.write_bytes(cache_module._HEADER % hashlib.sha256(body).hexdigest().encode() + body)
    assert cache.entries() == []
    assert cache.lookup(FIELDS) is None
    assert (tmp_path / "secret").exists(), "moved to the quarantine"


@pytest.mark.parametrize("subfolder", ["entries", "blobs"])
def test_links_are_not_followed(cache, tmp_path, subfolder):
    cache.store(FIELDS, {"object": b"contents"})
    (path,) = files_of(cache, subfolder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.lookup(FIELDS) is None
    assert (tmp_path / "elsewhere").exists()
    assert cache.store(FIELDS, {"object": b"contents"})
    assert cache.lookup(FIELDS).read("object") == b"contents"


def test_pipe_in_place_of_a_file_does_not_hang(cache):
    cache.store(FIELDS, {"object": b"contents"})
    (path,) = files_of(cache, "entries")
    path.unlink()
    os.mkfifo(path)
    assert cache.lookup(FIELDS) is None


def test_listed_entry_whose_blob_is_damaged_says_so(cache):
    cache.store(FIELDS, {"object": b"contents"})
    (entry,) = cache.entries()
    files_of(cache, "blobs")[0].write_bytes(b"CONTENTS")
    with pytest.raises(CacheDamage, match="object"):
        entry.read("object")


def test_quarantine_is_bounded(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "KEPT_IN_QUARANTINE", 5)
    for _ in range(12):
        cache.store(FIELDS, {"object": b"x"})
        files_of(cache, "entries")[0].write_bytes(b"damage")
        assert cache.lookup(FIELDS) is None
    assert len(files_of(cache, "quarantine")) == 5


# -- whose folder it is ------------------------------------------------------------------------


def test_folder_is_created_private(cache):
    cache.store(FIELDS, BLOBS)
    for path in [cache.path, *cache.path.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in files_of(cache, "entries", "blobs", "counters"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
@pytest.mark.parametrize("inside", ["", "entries", "blobs"])
def test_folder_that_others_can_write_is_refused(tmp_path, mode, inside):
    path = tmp_path / "cache"
    CompileCache(path).store(FIELDS, BLOBS)
    (path / inside).chmod(mode)
    cache = CompileCache(path)
    with pytest.warns(RuntimeWarning, match=r"chmod go-w") as caught:
        assert cache.lookup(FIELDS) is None
        assert cache.store(FIELDS, BLOBS) is False
        assert (cache.entries(), cache.clear(), cache.total_bytes()) == ([], 0, 0)
        assert cache.stats()["enabled"] is False
    assert len(caught) == 1
    assert len(list((path / "entries").iterdir())) == 1


def test_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    CompileCache(path).store(FIELDS, BLOBS)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.warns(RuntimeWarning, match="folder of your own in LAZYGRAD_CACHE_DIR"):
        assert CompileCache(path).lookup(FIELDS) is None


@pytest.mark.parametrize("inside", ["", "blobs"])
def test_link_in_place_of_the_folder_is_refused(tmp_path, inside):
    path = tmp_path / "cache"
    CompileCache(path).store(FIELDS, BLOBS)
    (path / inside).rename(tmp_path / "moved")
    (path / inside).symlink_to(tmp_path / "moved")
    with pytest.warns(RuntimeWarning, match="symbolic link"):
        assert CompileCache(path).lookup(FIELDS) is None


def test_replacing_the_folder_after_opening_changes_nothing(cache, tmp_path):
    cache.store(FIELDS, {"object": b"mine"})
    cache.path.rename(tmp_path / "moved")
    other = CompileCache(cache.path)
    other.store(FIELDS, {"object": b"other"})
    assert cache.lookup(FIELDS).read("object") == b"mine"


def test_deleted_folder_is_made_again(cache):
    cache.store(FIELDS, BLOBS)
    shutil.rmtree(cache.path)
    assert silent(lambda: cache.lookup(FIELDS)) is None
    assert silent(lambda: cache.store(FIELDS, BLOBS))
    assert cache.lookup(FIELDS) is not None


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "lazygrad"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == tmp_path / ".cache" / "lazygrad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "lazygrad"
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own" == CompileCache().path


def test_environment_disables(monkeypatch, tmp_path):
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    cache = CompileCache(tmp_path / "cache")
    assert silent(lambda: cache.store(FIELDS, BLOBS)) is False
    assert silent(lambda: cache.lookup(FIELDS)) is None
    assert not cache.path.exists()


# -- trouble with the disk ---------------------------------------------------------------------


@pytest.mark.parametrize("function", ["write", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_store_on_a_bad_disk_warns_once_and_leaves_nothing_half_done(
    cache, monkeypatch, function, code
):
    cache.store({"n": 1}, BLOBS)

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    with pytest.warns(RuntimeWarning, match="LAZYGRAD_CACHE_DIR") as caught:
        for _ in range(3):
            assert cache.store(FIELDS, {"object": b"unseen"}) is False
            assert cache.lookup(FIELDS) is None
            assert cache.lookup({"n": 1}) is not None
    assert len(caught) == 1
    monkeypatch.undo()
    assert files_of(cache, "temporary") == []
    assert cache.lookup(FIELDS) is None
    assert cache.store(FIELDS, BLOBS)
    assert cache.lookup(FIELDS) is not None


def test_short_writes_are_completed(cache, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:8])))
    assert cache.store(FIELDS, BLOBS)
    assert cache.lookup(FIELDS).read("object") == BLOBS["object"]


def test_too_many_open_files_is_no_damage(cache, monkeypatch):
    cache.store(FIELDS, BLOBS)
    os_open = os.open

    def fail(path, *arguments, **options):
        if len(str(path)) > 60:
            raise OSError(errno.EMFILE, "too many open files")
        return os_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    with pytest.warns(RuntimeWarning, match="too many open files"):
        assert cache.lookup(FIELDS) is None
    monkeypatch.undo()
    assert cache.lookup(FIELDS) is not None


def test_path_that_cannot_be_a_folder_warns_once(tmp_path):
    (tmp_path / "file").write_text("")
    cache = CompileCache(tmp_path / "file" / "cache")
    with pytest.warns(RuntimeWarning) as caught:
        assert cache.lookup(FIELDS) is None
        assert cache.store(FIELDS, BLOBS) is False
    assert len(caught) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_folder_without_write_permission_still_gives_hits(cache):
    cache.store(FIELDS, BLOBS)
    for path in (cache.path / "entries", cache.path / "temporary", cache.path / "counters"):
        path.chmod(0o500)
    reader = CompileCache(cache.path)
    assert silent(lambda: reader.lookup(FIELDS)) is not None
    with pytest.warns(RuntimeWarning):
        assert reader.store({"n": 1}, BLOBS) is False
    for path in cache.path.iterdir():
        path.chmod(0o700)


def test_temporaries_of_dead_writers_are_removed(cache):
    cache.store(FIELDS, BLOBS)
    young, old = (cache.path / "temporary" / name for name in ("young", "old"))
    young.write_bytes(b"x")
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert CompileCache(cache.path).lookup(FIELDS) is not None
    assert files_of(cache, "temporary") == [young]


# -- several processes and threads -------------------------------------------------------------


def test_processes_storing_the_same_key_at_once(cache):
    """Readers see one writer's entry or another's, never a mixture and never damage."""

    def content(writer):
        return {"object": bytes([writer]) * 20_000, "llvm": b"%d" % writer}

    def write(writer):
        for _ in range(20):
            if not CompileCache(cache.path).store(FIELDS, content(writer), {"writer": writer}):
                os._exit(2)

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
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(seen) > 1
    stats = cache.stats()
    assert (stats["rejects"], stats["misses"], stats["stores"]) == (0, 0, 61)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_writer_killed_at_any_moment(cache):
    def write():
        own = CompileCache(cache.path)
        number = 0
        while True:
            number += 1
            content = bytes([number % 256]) * 200_000
            own.store({"n": number % 3}, {"object": content, "llvm": content[:50]}, {"n": number})

    for kill in range(12):
        writer = processes.Process(target=write)
        writer.start()
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
            thread.join(30)
    assert not failures


# -- counters ----------------------------------------------------------------------------------


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
    expected = {"hits": 1000, "misses": 500, "stores": 0, "rejects": 0}
    counters = CacheCounters(folder)
    assert counters.totals() == expected
    assert len(folder.names("counters")) > 10
    counters.compact(rest_seconds=0.0)
    assert counters.totals() == expected
    assert len(folder.names("counters")) <= 3
    counters.compact(rest_seconds=0.0)
    assert counters.totals() == expected


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
    assert counters.totals()["stores"] == 35
    counters.compact(rest_seconds=0.0)
    assert not any(name.startswith("segment-") for name in folder.names("counters"))
    assert counters.totals()["stores"] == 35


def test_torn_record_spoils_no_other(tmp_path):
    folder = TrustedFolder(tmp_path / "cache")
    counters = CacheCounters(folder)
    counters.add("hits")
    folder.append("counters", "log", b"\x01\x02\x03")
    counters.add("misses")
    counters.add("hits")
    assert counters.totals() == {"hits": 2, "misses": 1, "stores": 0, "rejects": 0}
