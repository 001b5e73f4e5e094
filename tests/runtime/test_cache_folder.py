"""Whose folder the cache is in, and what happens on a bad disk: one warning, never an error."""

from __future__ import annotations

import errno
import os
import shutil
import stat

import pytest

from lazygrad_runtime.cache import CompileCache, default_folder
from lazygrad_runtime.cache_locks import writing
from tests.runtime.cache_common import BLOBS, FIELDS, files_of, marks, silent

pytestmark = marks


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
    """Once nobody writes: a file that is there then has no owner any more."""
    cache.store(FIELDS, BLOBS)
    (cache.path / "temporary" / "left").write_bytes(b"x")
    with writing(cache.opened()):
        assert CompileCache(cache.path).lookup(FIELDS) is not None
        assert len(files_of(cache, "temporary")) == 1, "it may be this writer's"
    assert CompileCache(cache.path).lookup(FIELDS) is not None
    assert files_of(cache, "temporary") == []
