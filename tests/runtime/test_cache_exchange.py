"""Programs from another machine: run as they are, compiled anew, or refused; never trusted."""

from __future__ import annotations

import json
import zipfile

import numpy
import pytest

from lazygrad_runtime import cache_target, loader, program, store
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_exchange import ArchiveError, export_entries, import_entries
from lazygrad_runtime.cache_verify import verify
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


@pytest.fixture
def there(tmp_path, cache):
    """The cache of the other machine, with two programs; `cache` is the one here."""
    other = CompileCache(tmp_path / "there")
    compiled_into(other, EXP)
    compiled_into(other, SUM)
    return other


@pytest.fixture
def archive(there, tmp_path):
    path = tmp_path / "programs.zip"
    assert export_entries(there.entries(), path) == path.stat().st_size
    return path


def lacking(monkeypatch, *names):
    """This machine without some of its features."""
    have = cache_target._present_features() - set(names)
    monkeypatch.setattr(cache_target, "_present_features", lambda: have)


def with_other_kernel(there, monkeypatch):
    """Replaces the code of the first program by other bytes, with sound sums; gives its key."""
    entry = there.lookup(fields_of(EXP))
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    (kernel,) = [name for name in blobs if name.startswith("k_")]
    there.store(entry.fields, {**blobs, kernel: b"EVIL" + blobs[kernel][4:]}, entry.meta)
    return kernel


def outcomes(results):
    return [result.outcome for result in results]


def test_the_same_entries_give_the_same_archive(there, archive, tmp_path):
    again = tmp_path / "again.zip"
    export_entries(there.entries(), again)
    assert again.read_bytes() == archive.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["again.zip", "programs.zip"]


def test_trusted_code_that_fits_runs_as_is(cache, there, archive):
    results = import_entries(cache, archive, trust_native_code=True)
    assert outcomes(results) == ["as is", "as is"]
    entry = cache.lookup(fields_of(EXP))
    original = there.lookup(fields_of(EXP))
    for name in original.meta["objects"]:
        assert entry.read(name) == original.read(name)
    numpy.testing.assert_allclose(values_of(entry), EXPECTED, rtol=1e-5)
    assert verify(cache, recompile=True).recompiled == 2
    assert outcomes(import_entries(cache, archive)) == ["present", "present"]


def test_without_trust_no_byte_of_native_code_is_taken(cache, there, tmp_path, monkeypatch):
    kernel = with_other_kernel(there, monkeypatch)
    path = tmp_path / "evil.zip"
    export_entries(there.entries(), path)
    results = import_entries(cache, path)
    assert outcomes(results) == ["recompiled", "recompiled"]
    assert all("not trusted" in result.why for result in results)
    assert not cache.lookup(fields_of(EXP)).read(kernel).startswith(b"EVIL")
    assert not any(path.read_bytes().startswith(b"EVIL") for path in files_of(cache, "blobs"))
    numpy.testing.assert_allclose(values_of(cache.lookup(fields_of(EXP))), EXPECTED, rtol=1e-5)


def test_importing_executes_nothing(cache, archive, monkeypatch):
    def refuse(*_):
        raise AssertionError("code was loaded")

    for module in (loader, program, store):
        monkeypatch.setattr(module, "load_object", refuse)
    import_entries(cache, archive)
    cache.clear()
    import_entries(cache, archive, trust_native_code=True)


def test_code_for_a_larger_processor_is_compiled_anew(cache, archive, monkeypatch):
    """Whatever feature is absent, be it one that no key spells out."""
    for absent in sorted(cache_target.machine_features()):
        with monkeypatch.context() as patch:
            lacking(patch, absent)
            results = import_entries(cache, archive, trust_native_code=True, dry_run=True)
            assert outcomes(results) == ["recompiled", "recompiled"]
            assert all(result.why == f"this processor lacks {absent}" for result in results)
    assert cache.entries() == [], "a dry run takes nothing"


def test_recompiled_code_uses_only_what_is_here(cache, archive, monkeypatch):
    wanted = "sse2,sse4.1,sse4.2,popcnt"
    monkeypatch.setenv("LAZYGRAD_CPU_FEATURES", wanted)
    import lazygrad_compiler.target as target

    target.host.cache_clear()
    try:
        results = import_entries(cache, archive, trust_native_code=True)
        assert outcomes(results) == ["recompiled", "recompiled"]
        assert all(result.why.startswith("this processor lacks avx") for result in results) or (
            not cache_target._present_features() & {"avx"})
        entry = cache.lookup(fields_of(EXP), cache_target.fits)
        assert set(entry.meta["needs"]) <= cache_target.machine_features()
        _, stages = store.compile_for(
            store_graph(entry), cache_target.target_of(entry.fields))
        assert "zmm" not in stages.render("asm") and "ymm" not in stages.render("asm")
        numpy.testing.assert_allclose(values_of(entry), EXPECTED, rtol=1e-5)
    finally:
        monkeypatch.undo()
        target.host.cache_clear()


def store_graph(entry):
    from lazygrad_runtime.cache_verify import stored_graph

    return stored_graph(entry)


def test_code_that_came_to_a_smaller_processor_is_never_loaded(cache, monkeypatch):
    """As in a home folder that two machines share: the entry is there, and is a miss."""
    compiled_into(cache)
    lacking(monkeypatch, "sse4.2" if "sse4.2" in cache_target.machine_features() else "fp-armv8")
    assert cache.lookup(fields_of(EXP), cache_target.fits) is None
    assert cache.stats()["rejects_by_reason"] == {"features": 1}
    assert len(cache.entries()) == 1, "the other machine still wants it"
    compiled_into(cache)
    assert cache.lookup(fields_of(EXP), cache_target.fits) is not None


@pytest.mark.parametrize("field", ["triple", "compiler", "llvm", "llvmlite"])
def test_code_of_another_toolchain_is_compiled_anew(cache, there, tmp_path, field):
    entry = there.lookup(fields_of(EXP))
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    there.clear()
    there.store({**entry.fields, field: "another"}, blobs, entry.meta)
    path = tmp_path / "other.zip"
    export_entries(there.entries(), path)
    (result,) = import_entries(cache, path, trust_native_code=True)
    assert result.outcome == "recompiled" and f"another {field}" in result.why
    assert result.key != result.local_key
    assert cache.lookup(fields_of(EXP)) is not None


def test_another_cpu_of_the_same_features_runs_it_as_is(cache, there, tmp_path):
    entry = there.lookup(fields_of(EXP))
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    there.clear()
    there.store({**entry.fields, "cpu": "x86-64-v3", "l2_bytes": 1}, blobs, entry.meta)
    path = tmp_path / "other.zip"
    export_entries(there.entries(), path)
    (result,) = import_entries(cache, path, trust_native_code=True)
    assert result.outcome == "as is"
    taken = cache.lookup(fields_of(EXP))
    assert taken.meta["built_for"]["cpu"] == "x86-64-v3"
    numpy.testing.assert_allclose(values_of(taken), EXPECTED, rtol=1e-5)


# -- archives that are not what they should be -------------------------------------------------


def test_a_cut_or_changed_archive_is_refused_and_never_crashes(cache, archive, tmp_path):
    content = archive.read_bytes()
    bad = tmp_path / "bad.zip"
    outcomes_seen = set()
    for position in range(0, len(content), 131):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        for damaged in (content[:position], bytes(flipped)):
            bad.write_bytes(damaged)
            try:
                results = import_entries(cache, bad, trust_native_code=True, dry_run=True)
                outcomes_seen |= set(outcomes(results))
            except ArchiveError:
                outcomes_seen.add("error")
    assert {"refused", "error"} <= outcomes_seen
    assert verify(cache).findings == []


def rewritten(archive, path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            changed = change(name, old.read(name))
            if changed is not None:
                new.writestr(*changed)
    return path


def test_compressed_members_are_refused(cache, archive, tmp_path):
    """So a small archive cannot become a large one."""
    path = rewritten(archive, tmp_path / "small.zip", lambda name, content: (name, content),
                     zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveError):
        import_entries(cache, path)


def test_names_cannot_leave_the_folder(cache, archive, tmp_path):
    def outside(name, content):
        return name.replace("entries/", "entries/../../../"), content

    results = import_entries(cache, rewritten(archive, tmp_path / "out.zip", outside))
    assert outcomes(results) == ["refused", "refused"]
    assert cache.entries() == []


def test_code_under_another_graph_is_refused(cache, there, tmp_path):
    """Trusted or not: the key's graph is the one that lies beside the code."""
    entry, other = there.lookup(fields_of(EXP)), there.lookup(fields_of(SUM))
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    there.clear()
    blobs[store.GRAPH_BLOB] = other.read(store.GRAPH_BLOB)
    there.store(entry.fields, blobs, entry.meta)
    path = tmp_path / "other.zip"
    export_entries(there.entries(), path)
    (result,) = import_entries(cache, path, trust_native_code=True)
    assert result.outcome == "refused" and "key names" in result.why


def test_a_trusted_entry_that_describes_no_program_is_refused(cache, there, tmp_path):
    entry = there.lookup(fields_of(EXP))
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    there.clear()
    there.store(entry.fields, blobs, {"needs": [], "objects": ["program"]})
    path = tmp_path / "other.zip"
    export_entries(there.entries(), path)
    assert outcomes(import_entries(cache, path, trust_native_code=True)) == ["refused"]
    assert cache.entries() == []


@pytest.mark.parametrize("described", [
    b"", b"{}", b"[]", json.dumps({"lazygrad_cache_archive": 99}).encode()])
def test_other_zip_files_are_refused(cache, tmp_path, described):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive.json", described)
    with pytest.raises(ArchiveError, match="export"):
        import_entries(cache, path)
