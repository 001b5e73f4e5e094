"""`lazygrad cache explain|show|ls|prune`: which field differs, what is in an entry, what goes."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lazygrad.__main__ import main
from lazygrad.cli.cache_explain import graph_changes
from lazygrad_compiler.target import host
from lazygrad_runtime import cache as runtime_cache
from lazygrad_runtime import peak, store
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.program import forget_programs
from tests.lazygrad.cache_commands import RESULT, SCRIPT, run, values

FIELDS = ("graph", "triple", "cpu", "features", "simd_bytes", "registers", "l1_bytes", "l2_bytes",
          "llvm", "llvmlite", "compiler")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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


@pytest.fixture
def filled(script: str, command: Any) -> list[str]:
    """The keys after the script ran."""
    command("explain", script, code=1)
    return CompileCache().keys()


# ---- explain SCRIPT


def test_the_first_run_finds_nothing_and_the_second_finds_all(script: str, command: Any) -> None:
    out = command("explain", script, code=1)
    assert "compiled; there was nothing in the cache" in out
    out = command("explain", script)
    assert " 0 compiled" in out
    assert all(each["found"] for each in values(command("explain", script, "--json"))["programs"])


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "graph"])
def test_each_field_of_the_key_is_named_alone(
        field: str, script: str, filled: list[str], command: Any,
        monkeypatch: pytest.MonkeyPatch) -> None:
    original = store.key_fields

    def changed(graph_text: str, target: Any) -> dict[str, str | int]:
        fields = original(graph_text, target)
        value = fields[field]
        return {**fields, field: value + 1 if isinstance(value, int) else value + ",+other"}

    monkeypatch.setattr(store, "key_fields", changed)
    programs = values(command("explain", script, "--json", code=1))["programs"]
    assert len(programs) == len(filled)
    for each in programs:
        assert not each["found"] and each["fields"] == [field]
        assert each["nearest"] in filled
    monkeypatch.undo()


@pytest.mark.parametrize("settings", [
    {"LAZYGRAD_DUMP": "all --print-changed=diff", "PYTHONHASHSEED": "7", "PYTHONDEVMODE": "1"},
    {"LAZYGRAD_DUMP": "--format html -o {dump}", "PYTHONOPTIMIZE": "1"},
    {"LAZYGRAD_NUM_THREADS": "1"},
])
def test_settings_that_only_show_something_hit(
        settings: dict[str, str], script: str, filled: list[str], folder: Path,
        tmp_path: Path) -> None:
    """None of them is in the key: a program that is looked at is the one that runs otherwise."""
    settings = {name: value.format(dump=tmp_path / "dump") for name, value in settings.items()}
    out, err = run(folder, script, **settings)
    assert out.splitlines() == [RESULT, "compiles 0"]
    assert CompileCache(folder).keys() == filled
    if settings.get("LAZYGRAD_DUMP", "").startswith(("all", "graph")):
        assert "# ---- graph ----" in err, "something was shown"


def test_programs_that_a_tool_looks_at_hit(script: str, filled: list[str], command: Any,
                                           capsys: pytest.CaptureFixture,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, where hooks are in place while the program is looked up."""
    monkeypatch.setattr(peak, "measure_peak", lambda rounds: peak.Peak(1e11, 1e10, 2e10, 2))
    for arguments in (["dump-ir", script, "--stage", "all"], ["explain", "fusion", script],
                      ["explain", "memory", script], ["roofline", script]):
        store.disk.cache_clear()
        forget_programs()
        before = store.counters.compiles
        assert main(arguments) == 0
        assert store.counters.compiles == before, arguments
        assert CompileCache().keys() == filled
    capsys.readouterr()


def test_every_field_of_the_key_is_tested() -> None:
    assert set(store.key_fields("graph()\nreturn\n", host())) == set(FIELDS)
    names = {field.name for field in dataclasses.fields(host())}
    assert names <= set(FIELDS), "all that the compiler may know of a machine is in the key"


def test_another_size_is_named_with_its_line(
        script: str, filled: list[str], command: Any) -> None:
    out = command("explain", script, "5", code=1)
    assert "graph differs:" in out and "train.py:" in out and ": 4 -> 5" in out
    programs = values(command("explain", script, "5", "--json"))["programs"]
    assert all(each["found"] and each["fields"] == ["graph"] for each in programs), \
        "a miss of the past is explained, too"
    assert any("4 -> 5" in line for each in programs
               for line in each["changes"][0]["details"])


def test_what_the_script_prints_goes_to_standard_error(
        script: str, capsys: pytest.CaptureFixture) -> None:
    main(["cache", "explain", script])
    out, err = capsys.readouterr()
    assert RESULT in err and RESULT not in out


def test_a_script_that_fails_is_a_finding(tmp_path: Path, command: Any) -> None:
    (tmp_path / "bad.py").write_text("raise ValueError('no')")
    assert command("explain", str(tmp_path / "bad.py"), code=1).startswith("0 programs")


def test_graph_changes() -> None:
    one = "graph()\n%0 = input(0) : float32[32, 3]    # train.py:40\n" \
          "%1 = const(1.5) : float32[32, 3]    # train.py:41\n" \
          "%2 = mul(%0, %1) : float32[32, 3]\nreturn %2\n"
    assert graph_changes(one, one.replace("32, 3", "33, 3")) == \
        ("dim 0 of input 0: 32 -> 33 (train.py:40)",)
    assert graph_changes(one, one.replace("1.5", "2.5")) == \
        ("const(1.5) -> const(2.5) (train.py:41)",)
    assert graph_changes(one, one.replace("input(0) : float32", "input(0) : float64")) == \
        ("dtype of input 0: float32 -> float64 (train.py:40)",)
    assert graph_changes(one, one.replace("mul", "add")) == \
        ("-%2 = mul(%0, %1) : float32[32, 3]", "+%2 = add(%0, %1) : float32[32, 3]")


# ---- explain A B


def test_two_programs_compared(script: str, filled: list[str], command: Any) -> None:
    command("explain", script, "5", code=1)
    (first, *_), (second, *_) = filled, sorted(set(CompileCache().keys()) - set(filled))
    found = values(command("explain", first[:10], second[:10], "--json", code=1))
    assert found["fields"] == ["graph"] and (found["before"], found["now"]) == (first, second)
    assert "graph differs" in command("explain", first, second, code=1)
    assert "they are the same program" in command("explain", first, first)


@pytest.mark.parametrize("arguments", [["0123abcd", "4567"], ["nothing.py"], ["0123abcd"]])
def test_what_cannot_be_explained(arguments: list[str], filled: list[str],
                                  capsys: pytest.CaptureFixture) -> None:
    assert main(["cache", "explain", *arguments]) == 2
    assert capsys.readouterr().err.startswith("lazygrad: ")


# ---- show


def test_show_has_every_field_and_launch(filled: list[str], command: Any) -> None:
    for key in filled:
        shown = values(command("show", key[:12], "--json"))
        entry = next(each for each in CompileCache().entries() if each.key == key)
        assert shown["fields"] == entry.fields and set(shown["fields"]) == set(FIELDS)
        assert shown["blobs"] == entry.manifest["blobs"] and shown["damage"] == ""
        assert shown["missing_features"] == [] and shown["compiler_differs"] == ""
        assert [each["kernel"] for each in shown["launches"]] == \
            [kernel for kernel, _, _ in entry.meta["launches"]]
        text = command("show", key[:12])
        assert all(str(value) in text for value in entry.fields.values())


def test_show_makes_the_stages_again_and_says_that_the_code_is_the_stored_one(
        filled: list[str], command: Any) -> None:
    shown = values(command("show", filled[0], "--stage", "all", "--json"))
    assert list(shown["stages"]) == ["graph", "opt", "fused", "loops", "llvm", "llvm-opt", "asm"]
    assert all(shown["stages"].values()) and "byte for byte" in shown["code"]
    out = command("show", filled[0], "--stage", "graph,asm")
    assert "# ---- graph ----" in out and "; ---- asm ----" in out and "opt ----" not in out


def test_show_says_when_the_code_is_not_the_stored_one(filled: list[str], command: Any) -> None:
    cache = CompileCache()
    entry = next(each for each in cache.entries() if each.key == filled[0])
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    kernel = next(name for name in blobs if name.startswith("k_"))
    cache.store(entry.fields, {**blobs, kernel: blobs[kernel] + b"x"}, entry.meta)
    out = command("show", filled[0], "--stage", "asm")
    assert "the stored code differs" in out and kernel in out


def test_show_of_a_damaged_entry_is_a_finding(filled: list[str], folder: Path,
                                              command: Any) -> None:
    for path in (folder / "blobs").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert values(command("show", filled[0], "--json", code=1))["damage"]


def test_show_of_what_is_not_there(filled: list[str], capsys: pytest.CaptureFixture) -> None:
    for arguments in (["0" * 12], [filled[0], "--stage", "graf"], [filled[0], "--stage", "grad"]):
        assert main(["cache", "show", *arguments]) == 2
        assert capsys.readouterr().err.startswith("lazygrad: ")


# ---- ls and prune


def test_ls_sorts_and_filters(script: str, filled: list[str], command: Any) -> None:
    command("explain", script, "50", code=1)

    def listed(*options: str) -> list[dict[str, Any]]:
        return values(command("ls", "--json", *options))["entries"]

    everything = listed()
    for key, field in (("size", "bytes"), ("hits", "hits"), ("saved", "saved_seconds"),
                       ("kernels", "kernels"), ("compile", "compile_seconds")):
        found = [each[field] for each in listed("--sort", key)]
        assert found == sorted(found, reverse=True) and len(found) == len(everything)
        assert [each[field] for each in listed("--sort", key, "--reverse")] == sorted(found)
    assert [each["key"] for each in listed("--sort", "key")] == \
        sorted(each["key"] for each in everything)
    assert [each["key"] for each in listed("--filter", filled[0][:9])] == [filled[0]]
    assert len(listed("--filter", r"train\.py:")) == len(everything)
    assert listed("--filter", "no such thing") == [] == listed("--unused-for", "1h")
    assert len(listed("--limit", "1")) == 1
    assert main(["cache", "ls", "--filter", "("]) == main(["cache", "ls", "--unused-for", "x"]) == 2


def test_prune_by_number_age_and_compiler(script: str, filled: list[str], folder: Path,
                                          command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command("explain", script, "50", code=1)
    count = len(CompileCache().keys())
    oldest = folder / "entries" / f"{filled[0]}.json"
    os.utime(oldest, (time.time() - 5000,) * 2)
    dry = values(command("prune", "--unused-for", "1h", "--dry-run", "--json"))
    assert dry["evicted"] == [filled[0]] and dry["dry_run"] and oldest.exists()
    assert command("prune", "--unused-for", "1h").startswith("deleted 1 program, ")
    assert not oldest.exists() and len(CompileCache().keys()) == count - 1
    assert values(command("prune", "--other-compilers", "--json"))["evicted"] == []
    assert values(command("prune", "--max-entries", "1", "--json"))["entries_left"] == 1
    monkeypatch.setattr(store, "source_hash", lambda: "later")
    assert values(command("prune", "--other-compilers", "--json"))["entries_left"] == 0
    assert main(["cache", "prune", "--max-bytes", "lots"]) == 2
    assert "0 programs checked, 0 damaged" in command("verify")
