"""The promises of the cache, kept by whole processes: scripts, damage, limits, other machines."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lazygrad as lg
from lazygrad.__main__ import main
from lazygrad_runtime import cache as runtime_cache
from lazygrad_runtime import cache_target, store
from lazygrad_runtime.program import forget_programs
from tests.lazygrad.cache_commands import RESULT, SCRIPT, run, values


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache of this process, too; programs that it has in memory are forgotten."""
    for name in [name for name in os.environ if name.startswith("LAZYGRAD")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_cache, "_warned", False)
    store.disk.cache_clear()
    forget_programs()
    yield tmp_path / "cache"
    store.disk.cache_clear()
    forget_programs()


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "train.py").write_text(SCRIPT)
    return str(tmp_path / "train.py")


@pytest.fixture
def command(capsys: pytest.CaptureFixture) -> Any:
    """command("ls", code=0) -> standard output of `lazygrad cache ls`."""

    def start(*arguments: str, code: int = 0) -> str:
        found = main(["cache", *arguments])
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out

    return start


def compiles(output: str) -> int:
    assert output.startswith(RESULT), output
    found = re.search(r"compiles (\d+)", output)
    assert found
    return int(found[1])


def entries(command: Any) -> list[dict[str, Any]]:
    return values(command("ls", "--json"))["entries"]


def test_a_second_process_compiles_nothing(folder: Path, script: str, command: Any) -> None:
    """Whatever is being looked at, however many threads there are, however strings are hashed."""
    assert compiles(run(folder, script)[0]) > 0
    for settings in ({}, {"LAZYGRAD_NUM_THREADS": "1"}, {
            "LAZYGRAD_DUMP": "graph,asm", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "1"}):
        assert compiles(run(folder, script, **settings)[0]) == 0, settings
    stats = values(command("stats", "--json"))
    assert stats["hits"] == 3 * stats["stores"] == 3 * stats["misses"] > 0
    listed = entries(command)
    assert {each["hits"] for each in listed} == {3}
    assert stats["seconds_saved"] == pytest.approx(
        sum(each["saved_seconds"] for each in listed), abs=1e-3)
    assert stats["seconds_saved"] > 0


def test_damage_is_found_and_the_next_run_repairs(
        folder: Path, script: str, command: Any) -> None:
    run(folder, script)
    for subfolder in ("entries", "blobs"):
        path = sorted((folder / subfolder).iterdir())[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        report = values(command("verify", "--json", code=1))
        assert len(report["findings"]) >= 1
        assert "damaged" in command("verify", code=1)
        assert compiles(run(folder, script)[0]) >= 1
        assert command("verify", "--recompile").endswith(" to the same bytes\n")
    stats = values(command("stats", "--json"))
    assert sum(stats["rejects_by_reason"].values()) == stats["rejects"] >= 2
    assert {"manifest", "blob-contents"} <= set(stats["rejects_by_reason"])
    assert "blob-contents" in command("stats")


def test_the_limit_of_the_environment_holds(folder: Path, script: str, command: Any) -> None:
    for size in ("4", "5", "6", "7"):
        run(folder, script, size, LAZYGRAD_CACHE_MAX_ENTRIES="2")
    assert len(entries(command)) <= 2
    assert values(command("stats", "--json"))["evictions"] >= 2
    assert compiles(run(folder, script, LAZYGRAD_CACHE_MAX_BYTES="2")[0]) >= 1


# ---- folders that cannot be used: the program runs all the same


def check_runs_uncached(match: str) -> None:
    """One warning for several programs, and right results."""
    with pytest.warns(RuntimeWarning, match=match) as caught:
        for size in (3, 4, 5):
            x = lg.arange(size).to(lg.float32)
            assert ((x + 1) * x).sum().item() == sum((i + 1) * i for i in range(size))
    assert len([each for each in caught if "compile cache" in str(each.message)]) == 1


def test_a_folder_that_all_can_write(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    check_runs_uncached(f"run: chmod go-w {folder}")
    assert list(folder.iterdir()) == []


def test_the_warning_is_its_message_alone(folder: Path, script: str) -> None:
    """No line of lazygrad's source below it, and one warning for all programs of the process."""
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    out, err = run(folder, script)
    assert out.startswith(RESULT)
    (line,) = err.splitlines()
    assert line.startswith("<lazygrad>:0: RuntimeWarning: [compile cache] refused: ")
    assert f"run: chmod go-w {folder}" in line
    assert run(folder, "-W", "ignore::RuntimeWarning", script)[1] == ""


def test_a_folder_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    check_runs_uncached("is a symbolic link; name its target in LAZYGRAD_CACHE_DIR")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_somebody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    check_runs_uncached("belongs to user .*; name a folder of your own in LAZYGRAD_CACHE_DIR")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only(folder: Path, code: int,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    os_open = os.open

    def open_to_read(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            fail()
        return os_open(path, flags, *arguments, **options)

    run_first = lg.arange(2).to(lg.float32)
    assert run_first.sum().item() == 1  # the folder is there
    for name in ("rename", "unlink", "utime", "mkdir"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(os, "open", open_to_read)
    check_runs_uncached("free some space or name another folder in LAZYGRAD_CACHE_DIR")


# ---- other machines


def test_export_and_import_between_machines(folder: Path, script: str, tmp_path: Path,
                                            command: Any) -> None:
    """The other one has an older processor: LAZYGRAD_CPU_FEATURES takes features away."""
    older = {"LAZYGRAD_CPU_FEATURES": "sse2,sse4.1,sse4.2"}
    run(folder, script)
    archive = str(tmp_path / "programs.zip")
    exported = values(command("export", archive, "--json"))
    assert exported["entries"] == len(entries(command)) and exported["left_out"] == {}

    there = tmp_path / "there"
    out, _ = run(there, "-m", "lazygrad", "cache", "import", archive, "--trust-native-code",
                 "--json", **older)
    taken = values(out)["entries"]
    assert {each["outcome"] for each in taken} == {"recompiled"}
    if cache_target.machine_features() & {"avx2"}:
        assert all(re.search(r"this processor lacks .*avx2", each["why"]) for each in taken)
    assert compiles(run(there, script, **older)[0]) == 0

    same = tmp_path / "same"
    out, _ = run(same, "-m", "lazygrad", "cache", "import", archive, "--trust-native-code")
    assert out.endswith("as is\n") and "recompiled" not in out
    assert compiles(run(same, script)[0]) == 0

    careful = tmp_path / "careful"
    out, _ = run(careful, "-m", "lazygrad", "cache", "import", archive)
    assert "its native code is not trusted (see --trust-native-code)" in out
    assert compiles(run(careful, script)[0]) == 0


def test_export_leaves_out_what_is_damaged(folder: Path, script: str, tmp_path: Path,
                                           command: Any) -> None:
    run(folder, script)
    for path in (folder / "blobs").iterdir():
        path.write_bytes(b"damage")
    exported = values(command("export", str(tmp_path / "a.zip"), "--json", code=1))
    assert exported["entries"] == 0 and len(exported["left_out"]) == len(entries(command))


def test_import_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x.zip").write_text("no archive")
    assert main(["cache", "import", str(tmp_path / "x.zip")]) == 2
    assert "is no archive" in capsys.readouterr().err
    assert main(["cache", "import", str(tmp_path / "absent.zip")]) == 2
    assert "absent.zip" in capsys.readouterr().err
