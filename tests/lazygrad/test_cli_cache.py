"""`lazygrad cache` and `lazygrad doctor`: they say what is there, and notice what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lazygrad.__main__ import main
from lazygrad.cli import cache as cache_command
from lazygrad.cli import doctor, human_age, human_bytes
from lazygrad_runtime import cache as runtime_cache
from lazygrad_runtime import store
from tests.lazygrad.processes import python

SCRIPT = """\
import lazygrad as lg

x = lg.tensor([[1.0, 2.0], [3.0, 4.0]])
print((x @ x).sum().item())
print(lg.exp(x).tolist())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LAZYGRAD_CACHE", raising=False)
    monkeypatch.setattr(runtime_cache, "_warned", False)
    store.disk.cache_clear()
    yield tmp_path / "cache"
    store.disk.cache_clear()


@pytest.fixture(scope="module")
def after_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which another process left two programs."""
    project = tmp_path_factory.mktemp("project")
    (project / "train.py").write_text(SCRIPT)
    done = python("train.py", folder=project,
                  changes={"LAZYGRAD_CACHE_DIR": str(project / "cache")})
    assert done.returncode == 0, done.stderr
    return project / "cache"


@pytest.fixture
def filled(folder: Path, after_a_run: Path) -> Path:
    """The folder after another process ran two programs."""
    shutil.copytree(after_a_run, folder)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture) -> Any:
    """command("cache", "ls") -> (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def as_json(result: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = result
    assert code == 0 and err == ""
    values = json.loads(out)
    assert values.pop("schema_version") == 1
    return values


# ---- ls


def test_ls_lists_programs_with_the_lines_they_came_from(filled: Path, command: Any) -> None:
    code, out, err = command("cache", "ls")
    heading, *lines = out.splitlines()
    assert code == 0 and err == ""
    assert heading.split() == ["key", "size", "hits", "age", "saved", "kernels", "target", "lines"]
    assert len(lines) == 2
    assert "train.py:4" in out and "train.py:5" in out
    assert {line.split()[0] + ".json" for line in lines} == \
        {path.name[:12] + ".json" for path in (filled / "entries").iterdir()}


def test_ls_names_the_kind_of_what_is_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    from lazygrad.cli.cache_list import print_table
    entry = {"key": "0" * 64, "bytes": 10, "hits": 0, "age_seconds": 1, "saved_seconds": 0.0,
             "kernels": 0, "target": "znver5"}
    print_table([{**entry, "kind": "machine code", "lines": []},
                 {**entry, "kind": "tuned program", "lines": ["train.py:3"]},
                 {**entry, "kind": "program", "lines": ["train.py:4"]}])
    ends = [line.split("znver5", 1)[1].strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert ends == ["machine code", "tuned program, train.py:3", "train.py:4"]


def test_ls_as_json(filled: Path, command: Any) -> None:
    values = as_json(command("cache", "ls", "--json"))
    assert values["path"] == str(filled)
    newest, oldest = values["entries"]
    assert 0 <= newest["age_seconds"] <= oldest["age_seconds"] < 86400
    assert [line.rsplit(":", 1)[1] for line in newest["lines"]] == ["5"]
    assert newest["compute"] == ["exp"] and newest["kernels"] == newest["launches"] == 1
    assert oldest["kernels"] == 2 and 0 < oldest["compile_seconds"] < 3600
    manifest = (filled / "entries" / f"{newest['key']}.json").read_text()
    sizes = [record["size"] for record in
             json.loads(manifest.split("\n", 1)[1])["blobs"].values()]
    assert newest["bytes"] == sum(sizes)


def test_ls_of_an_empty_cache(command: Any, folder: Path) -> None:
    assert command("cache", "ls") == (0, "", f"no programs in {folder}\n")
    assert as_json(command("cache", "ls", "--json")) == {"path": str(folder), "entries": []}


def test_ls_leaves_out_damaged_entries(filled: Path, command: Any) -> None:
    victim = next((filled / "entries").iterdir())
    victim.write_bytes(victim.read_bytes().replace(b"launches", b"lunches!"))
    assert len(as_json(command("cache", "ls", "--json"))["entries"]) == 1


def test_short_lines() -> None:
    lines = ["/a/train.py:12", "/a/train.py:14", "/b/net.py:3", "/b/net.py:9"]
    assert cache_command.short_lines(lines) == "train.py:12,14, net.py:3 and 1 more"
    assert cache_command.short_lines([]) == ""


# ---- stats, clear, path


def test_stats_count_what_happened(filled: Path, tmp_path: Path, command: Any) -> None:
    values = as_json(command("cache", "stats", "--json"))
    assert values["path"] == str(filled) and values["enabled"] is True
    assert values["entries"] == values["stores"] == values["misses"] == 2
    assert values["hits"] == values["rejects"] == 0
    on_disk = sum(path.stat().st_size for name in ("entries", "blobs")
                  for path in (filled / name).iterdir())
    assert values["bytes"] == on_disk
    code, out, _ = command("cache", "stats")
    assert code == 0
    shown = {line[:14].strip(): line[15:] for line in out.splitlines()}
    assert shown["hits"] == "0" and shown["enabled"] == "yes"
    assert shown["entries"] == "2 (at most 50000)" and shown["seconds saved"] == "0.000"
    assert shown["bytes"].startswith(f"{on_disk} (")


def test_clear_empties_and_a_dry_run_does_not(filled: Path, command: Any) -> None:
    blobs = filled / "blobs"
    dry = as_json(command("cache", "clear", "--dry-run", "--json"))
    assert dry["dry_run"] is True and dry["entries"] == 2 and list(blobs.iterdir())
    code, out, _ = command("cache", "clear", "--dry-run")
    assert code == 0 and out.startswith("would delete 2 programs, ")
    assert as_json(command("cache", "clear", "--json")) == {**dry, "dry_run": False}
    assert not list(blobs.iterdir()) and not list((filled / "entries").iterdir())
    assert command("cache", "clear")[1].startswith("deleted 0 programs, 0 B, in ")
    assert as_json(command("cache", "stats", "--json"))["entries"] == 0


def test_path_is_only_told(folder: Path, command: Any) -> None:
    assert command("cache", "path") == (0, f"{folder}\n", "")
    assert as_json(command("cache", "path", "--json")) == {"path": str(folder)}
    assert not folder.exists()


@pytest.mark.parametrize("action", ["ls", "stats", "clear", "prune", "verify"])
def test_a_cache_that_is_switched_off_is_no_finding(
        action: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    code, _, err = command("cache", action)
    assert code == 0 and "switched off (LAZYGRAD_CACHE=0)" in err


@pytest.mark.parametrize("action", ["ls", "stats", "clear", "prune", "verify"])
def test_a_folder_that_others_can_write_is_a_finding(
        action: str, command: Any, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="can be written by others"):
        code, _, err = command("cache", action)
    assert code == 1 and "lazygrad doctor" in err


def test_human_units() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 << 30)] == \
        ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert [human_age(n) for n in (0, 59.9, 60, 7200, 9e5)] == \
        ["0 s", "59 s", "1 min", "2 h", "10 d"]


# ---- doctor


def checks(result: tuple[int, str, str]) -> dict[str, tuple[bool, str]]:
    values = json.loads(result[1])
    assert values["ok"] == (result[0] == 0)
    return {check["name"]: (check["ok"], check["found"]) for check in values["checks"]}


def test_doctor_passes_and_says_what_there_is(command: Any, folder: Path) -> None:
    import llvmlite
    import numpy
    code, out, err = command("doctor")
    assert code == 0 and err == "", out
    assert all(line.startswith("ok    ") for line in out.splitlines())
    found = checks(command("doctor", "--json"))
    assert set(found) == {name for name, _ in (*doctor.FACTS, *doctor.SELF_TESTS)}
    assert found["numpy"] == (True, numpy.__version__)
    assert llvmlite.__version__ in found["llvm"][1]
    assert str(folder) in found["compile cache"][1] and "writable" in found["compile cache"][1]


def test_doctor_compiles_anew_and_leaves_the_cache_alone(command: Any, folder: Path) -> None:
    before = store.counters.compiles, store.counters.disk_hits
    assert command("doctor")[0] == 0
    assert (store.counters.compiles, store.counters.disk_hits) == before
    assert as_json(command("cache", "stats", "--json"))["entries"] == 0


def test_doctor_without_a_cache(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    found = checks(command("doctor", "--json"))
    assert found["compile cache"] == (True, "switched off (LAZYGRAD_CACHE=0)")
    assert found["cache round trip"][0]


def test_doctor_finds_a_bad_cache_folder(command: Any, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    code, out, err = command("doctor")
    (line,) = [line for line in out.splitlines() if not line.startswith("ok ")]
    assert code == 1 and line.startswith("FAIL  compile cache")
    assert "can be written by others" in line
    assert "1 of" in err and "compile cache" in err


def test_doctor_finds_wrong_arithmetic(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each self-test compares with NumPy: results that are a little off fail."""
    exact = doctor.compute
    monkeypatch.setattr(doctor, "compute", lambda asked: [each * 1.001 for each in exact(asked)])
    found = checks(command("doctor", "--json"))
    failed = {name for name, (ok, _) in found.items() if not ok}
    assert failed == {"run elementwise", "run matmul", "run reduction", "run gradient"}
    assert "differs from NumPy by" in found["run matmul"][1]


def test_commands_run_as_a_process(folder: Path) -> None:
    """The first in an interpreter of its own, from its first line to its last."""
    for arguments, code, expected in ((["doctor"], 0, "run gradient"), (["--version"], 0, "lazy"),
                                      (["cache", "nonsense"], 2, "")):
        done = python("-m", "lazygrad", *arguments, folder=folder.parent,
                      changes={"LAZYGRAD_CACHE_DIR": str(folder)}, fresh=arguments == ["doctor"])
        assert done.returncode == code, done.stderr
        assert expected in done.stdout
