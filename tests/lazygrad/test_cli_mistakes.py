"""What commands say of arguments, scripts and files that cannot work, and in their help."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path

import pytest

from lazygrad_runtime import peak
from tests.lazygrad.cli_tools import Call, fake_peak

pytestmark = pytest.mark.usefixtures("fresh_cache")


def write(folder: Path, text: str) -> Path:
    path = folder / "train.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("arguments", [
    ("explain",), ("explain", "nonsense", "x.py"), ("explain", "fusion"),
    ("explain", "fusion", "nowhere.py"), ("roofline", "nowhere.py"), ("profile", "nowhere.py"),
    ("explain", "--wrong", "fusion", "nowhere.py")])
def test_wrong_command_lines(arguments: tuple[str, ...], call: Call) -> None:
    code, _, told = call(*arguments)
    assert code == 2
    assert told


@pytest.mark.parametrize("arguments", [
    ("explain",), ("explain", "fusion"), ("explain", "recompile"), ("explain", "memory"),
    ("roofline",), ("profile",), ("opt",), ("run",), ("verify",), ("bisect",), ("reduce",),
    ("repro",)])
def test_help(arguments: tuple[str, ...], call: Call) -> None:
    code, shown, _ = call(*arguments, "--help")
    assert code == 0
    assert shown.startswith(f"usage: lazygrad {arguments[0]}")


@pytest.mark.parametrize("command", [("explain", "fusion"), ("explain", "memory"), ("roofline",)])
def test_a_script_that_fails_is_a_finding(command: tuple[str, ...], tmp_path: Path, call: Call,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "measure_peak", fake_peak)
    code, _, told = call(*command, write(tmp_path, "raise RuntimeError('no')\n"))
    assert code == 1
    assert "RuntimeError: no" in told
    assert "no program was compiled" in told


@pytest.mark.parametrize("arguments, message", [
    (("roofline", "{script}", "--top", "-1"), "'-1' is not a whole number from 0 on"),
    (("roofline", "{script}", "--svg", "{folder}/none/x.svg"), "there is no folder"),
    (("profile", "{script}", "-o", "{folder}"), "is a folder; name a file"),
    (("explain", "memory", "{script}", "--svg", "{folder}/none/x.svg"), "there is no folder"),
    (("repro", "{script}", "-o", "{folder}/none/x.py"), "there is no folder"),
    (("explain", "fusion", "{folder}"), "is a folder; name a Python file in it"),
    (("dump-ir", "{folder}"), "is a folder; name a Python file in it"),
    (("run", "{script}"), "is a Python file, and this takes a graph as text"),
    (("cache", "ls", "more"), "cache ls does not take more"),
    (("cache", "ls", "--limit", "-1"), "'-1' is not a whole number from 0 on"),
    (("cache", "import", "{folder}/none.zip"), "none.zip: No such file or directory"),
    (("cache", "export", "{folder}/none/x.zip"), "there is no folder"),
    (("cache", "export", "-"), "name a file"),
    (("reduce", "{script}", "-o", "{folder}/taken"), "taken.npz is a folder; name a file"),
    (("reduce", "{script}", "-o", "{folder}/none/x"), "there is no folder"),
    (("run", "{folder}/no.txt", "-o", "{folder}/taken"), "taken.npz is a folder; name a file"),
    (("run", "{folder}/no.txt", "-o", "{folder}/none/x.npz"), "there is no folder"),
    (("repro", "{script}", "-o", "{folder}/" + 300 * "x"), "cannot be written: File name too long"),
    (("repro", "{script}", "-o", "{folder}/lost"), "lost cannot be written: No such file"),
    (("dump-ir", "{script}", "-o", "{script}/dump"), "cannot be written: Not a directory"),
])
def test_what_cannot_work_is_said_before_the_script_runs(
    arguments: tuple[str, ...], message: str, tmp_path: Path, call: Call
) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise AssertionError('ran')\n")
    (tmp_path / "taken.npz").mkdir()
    (tmp_path / "lost").symlink_to(tmp_path / "none" / "there")
    before = {*tmp_path.iterdir(), tmp_path / "cache"}
    code, shown, told = call(*(word.format(script=script, folder=tmp_path) for word in arguments))
    assert (code, shown) == (2, "")
    assert message in told and "Traceback" not in told and "Errno" not in told
    assert before >= set(tmp_path.iterdir()), "nothing is left behind"


WRITING = [
    ("reduce {script} -o {file}", ("", ".npz")), ("repro {script} -o {file}", ("",)),
    ("profile {script} -o {file}", ("",)), ("roofline {script} --svg {file}", ("",)),
    ("explain memory {script} --svg {file}", ("",)), ("run {folder}/no.txt -o {file}", (".npz",)),
    ("cache export {file}", ("",)),
]


@pytest.mark.parametrize("command, endings", WRITING, ids=lambda value: str(value).split(" {")[0])
def test_a_file_that_may_not_be_written_is_said_before_the_work(
    command: str, endings: tuple[str, ...], tmp_path: Path, call: Call,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it there or not: another user's, or on a disk that is read-only."""
    script = write(tmp_path, "raise AssertionError('ran')\n")
    opened = builtins.open

    def denied(name: object, mode: str = "r", *more: object, **options: object) -> object:
        if str(name) == str(refused) and set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return opened(name, mode, *more, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", denied)
    words = command.format(script=script, folder=tmp_path, file=tmp_path / "out").split()
    for ending in endings:
        refused = tmp_path / f"out{ending}"
        for there in (False, True):
            if there:
                refused.write_bytes(b"kept")
            code, shown, told = call(*words)
            assert (code, shown, told.count("\n")) == (2, "", 1), told
            assert told.endswith(f"{refused} cannot be written: Permission denied\n")
            assert not there or refused.read_bytes() == b"kept"
        refused.unlink()


RUNNING = [("dump-ir",), ("explain", "fusion"), ("explain", "memory"), ("explain", "recompile"),
           ("roofline",), ("profile",), ("bisect",), ("reduce",), ("repro",)]


@pytest.mark.parametrize("command", RUNNING, ids=" ".join)
def test_a_script_that_cannot_be_run_is_one_line(
    command: tuple[str, ...], tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a command writes by default
    monkeypatch.setattr(peak, "measure_peak", fake_peak)
    script, folder = tmp_path / "train.py", tmp_path / "folder.py"
    folder.mkdir()

    def told_of(path: Path) -> str:
        code, shown, told = call(*command, path)
        assert (code, shown, told.count("\n")) == (2, "", 1), told
        return told

    script.write_text("x = 1\nx = (\n")
    assert "train.py:2: SyntaxError: '(' was never closed" in told_of(script)
    script.write_bytes(b"\x7fELF\x02\x00\x00\xff")
    assert "train.py" in told_of(script)
    assert "is a folder" in told_of(folder)
    assert "there is no such file" in told_of(tmp_path / "none.py")

    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "train.py cannot be read: Permission denied" in told_of(script)


def test_a_folder_that_cannot_be_written_is_said_before_the_script_runs(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = write(tmp_path, "raise AssertionError('ran')\n")

    def denied(dir: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.setattr("lazygrad.cli.scripts.tempfile.TemporaryFile", denied)
    code, shown, told = call("dump-ir", script, "-o", tmp_path / "dump")
    assert (code, shown, told.count("\n")) == (2, "", 1)
    assert "dump cannot be written: Permission denied" in told
    code, shown, told = call("dump-ir", script, "-o", script)
    assert (code, shown, told.count("\n")) == (2, "", 1)


def test_a_script_that_fails_at_once_is_not_called_one_that_looked_at_nothing(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, "measure_peak", fake_peak)
    script = tmp_path / "train.py"
    script.write_text("import no_such_module\n")
    for command in (("dump-ir",), ("explain", "fusion"), ("roofline",), ("bisect",)):
        code, _, told = call(*command, script)
        assert code == 1 and told.endswith("no program was compiled before the script failed\n")


def test_a_selection_that_finds_nothing_says_what_there_is(tmp_path: Path, call: Call) -> None:
    script = tmp_path / "train.py"
    script.write_text("import lazygrad as lg\nx = lg.tensor([1.0])\n\nprint(lg.exp(x).sum())\n")
    code, shown, told = call("dump-ir", script, "--at", "train.py:3")
    assert (code, shown) == (0, "")
    assert told.endswith("nothing is like that; there are operations from train.py:2,4\n")


@pytest.mark.parametrize("command", ["dump-ir", "explain", "roofline", "profile", "opt", "run",
                                     "bisect", "reduce", "repro"])
def test_help_has_examples(command: str, call: Call) -> None:
    code, shown, _ = call(command, "--help")
    assert code == 0
    assert f"  lazygrad {command} " in shown.partition("Examples:\n")[2]
