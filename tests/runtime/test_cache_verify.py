"""`verify` notices every damage, changes and executes nothing, and compares recompiled code."""

from __future__ import annotations

import contextlib
import hashlib
import os

import numpy
import pytest

from lazygrad_runtime import cache_entry, cache_verify, loader, program, store
from tests.runtime.cache_common import files_of, marks
from tests.runtime.cache_programs import (
    EXP,
    EXPECTED,
    SUM,
    compiled_into,
    fields_of,
    values_of,
)

pytestmark = marks


@contextlib.contextmanager
def loading_refused():
    """Loading code meanwhile is a failure."""

    def refuse(*_):
        raise AssertionError("code was loaded")

    with pytest.MonkeyPatch.context() as patch:
        for module in (loader, program, store):
            patch.setattr(module, "load_object", refuse)
        yield


def verify(*arguments, **options):
    """`cache_verify.verify`, which loads no code."""
    with loading_refused():
        return cache_verify.verify(*arguments, **options)


def snapshot(cache):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in files_of(cache, "entries", "blobs", "quarantine", "counters")}


def test_a_sound_cache_is_clean_and_left_alone(cache):
    compiled_into(cache, EXP)
    compiled_into(cache, SUM)
    cache.store({"not": "a program"}, {"object": b"x"})
    before = snapshot(cache)
    report = verify(cache, recompile=True)
    assert (report.entries, report.recompiled, report.findings, report.skipped) == (3, 2, [], {})
    assert snapshot(cache) == before


def test_every_byte_of_an_entry_flipped_in_turn_is_found(cache):
    entry = compiled_into(cache)
    flips = 0
    with loading_refused():
        for path in files_of(cache, "entries", "blobs"):
            content = path.read_bytes()
            with open(path, "r+b", buffering=0) as file:
                for position, byte in enumerate(content):
                    os.pwrite(file.fileno(), bytes([byte ^ 1 << position % 8]), position)
                    (finding,) = cache_verify.verify(cache).findings
                    assert finding.key == entry.key and finding.reason in cache_entry.REASONS
                    os.pwrite(file.fileno(), bytes([byte]), position)
                    flips += 1
    assert flips > 3000
    assert verify(cache).findings == []


@pytest.mark.parametrize("kind", ["entries", "blobs"])
def test_after_damage_the_next_program_repairs(cache, kind):
    compiled_into(cache)
    path = files_of(cache, kind)[0]
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 7):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        assert len(verify(cache).findings) == 1
        assert cache.lookup(fields_of(EXP)) is None
        numpy.testing.assert_allclose(values_of(compiled_into(cache)), EXPECTED, rtol=1e-5)
        assert verify(cache, recompile=True).findings == []


@pytest.mark.parametrize("how, reason", [
    ("unlink", "blob-missing"), ("link", "unreadable"), ("longer", "blob-size")])
def test_reasons(cache, how, reason):
    compiled_into(cache)
    path = files_of(cache, "blobs")[0]
    if how == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.rename(path.parent.parent / "elsewhere")
        if how == "link":
            path.symlink_to(path.parent.parent / "elsewhere")
    assert [finding.reason for finding in verify(cache).findings] == [reason]


def test_a_file_that_is_no_entry_is_found(cache):
    cache.store({"n": 1}, {})
    (cache.path / "entries" / "README").write_bytes(b"")
    (finding,) = verify(cache).findings
    assert finding.reason == "manifest" and "README" in finding.message


def test_recompiling_notices_other_code(cache):
    """Sound sums, wrong code: only compiling again can tell."""
    entry = compiled_into(cache)
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    (kernel,) = [name for name in blobs if name.startswith("k_")]
    blobs[kernel] = blobs[kernel][:-1] + bytes([blobs[kernel][-1] ^ 1])
    cache.store(entry.fields, blobs, entry.meta)
    assert verify(cache).findings == []
    (finding,) = verify(cache, recompile=True).findings
    assert finding.reason == "recompiled" and kernel in finding.message


def test_a_graph_of_another_key_is_found(cache):
    entry, other = compiled_into(cache, EXP), compiled_into(cache, SUM)
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    for text, about in ((other.read(store.GRAPH_BLOB), "key names"), (b"nonsense", "graph of")):
        cache.store(entry.fields, {**blobs, store.GRAPH_BLOB: text}, entry.meta)
        (finding,) = verify(cache).findings
        assert finding.reason == "graph" and about in finding.message


def test_what_another_compiler_made_is_not_compiled_again(cache, monkeypatch):
    compiled_into(cache)
    monkeypatch.setattr(store, "source_hash", lambda: hashlib.sha256(b"later").hexdigest())
    report = verify(cache, recompile=True)
    assert report.findings == [] and report.recompiled == 0
    assert list(report.skipped.values()) == ["made by another compiler"]


def test_only_the_named_entries(cache):
    first, second = compiled_into(cache, EXP), compiled_into(cache, SUM)
    for path in files_of(cache, "entries"):
        path.write_bytes(b"x")
    report = verify(cache, {first.key})
    assert [finding.key for finding in report.findings] == [first.key] != [second.key]


def test_nothing_unpickles_or_evaluates():
    """No module of the cache knows how."""
    folder = os.path.dirname(cache_entry.__file__)
    for name in os.listdir(folder):
        if name.startswith("cache") and name.endswith(".py"):
            with open(os.path.join(folder, name)) as file:
                words = file.read()
            for forbidden in ("import pickle", "import marshal", "import shelve", "eval(", "exec("):
                assert forbidden not in words, f"{name}: {forbidden}"
