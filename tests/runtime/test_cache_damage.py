"""A damaged file of the cache is a miss, is set aside, and is rebuilt."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from lazygrad_runtime import cache as cache_module
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import CacheDamage, key_of
from tests.runtime.cache_common import BLOBS, FIELDS, META, files_of, marks, silent

pytestmark = marks


def _with_sum(body: bytes) -> bytes:
    return b'{"manifest_sha256": "%s"}\n' % hashlib.sha256(body).hexdigest().encode() + body


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


def test_flipping_any_byte_is_a_miss(cache, monkeypatch):
    """Every byte of every file, one flip each, at all bit positions in turn."""
    blobs = {"object": bytes(range(40)), "llvm": b"define void @kernel()"}
    fields = {"ir": "add", "n": 3}
    cache.store(fields, blobs, {"scratch": 12345})
    cache._count = lambda folder, event, **details: None  # the flips below would only fill the log
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
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
            path.write_bytes(content)
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
    path.write_bytes(_with_sum(body))
    check_is_rejected(cache, repr(body[:10]))


def test_blob_names_cannot_leave_the_folder(cache, tmp_path):
    """Even a manifest with a right sum cannot make the cache read or move another file."""
    (tmp_path / "secret").write_bytes(b"not the blob")
    cache.store(FIELDS, {"object": b"a secret tho"})
    (path,) = files_of(cache, "entries")
    manifest = json.loads(path.read_bytes().split(b"\n", 1)[1])
    manifest["blobs"]["object"]["sha256"] = "../../secret"
    body = json.dumps(manifest).encode()
    path.write_bytes(_with_sum(body))
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
