"""Commands whose reader goes away (`| head`), whose output is full, or that are interrupted, end
quietly: no traceback, the exit code that shells use, and the script that is being run ends, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lazygrad import __main__
from lazygrad.cli import FINDING, INTERRUPTED, READER_GONE
from lazygrad_runtime import store
from lazygrad_runtime.cache import CompileCache
from tests.lazygrad.processes import STUCK

SCRIPT = """\
import sys
import lazygrad as lg

print(lg.exp(lg.tensor([1.0, 2.0])).sum().item(), file=sys.stderr)
print((lg.tensor([1.0, 2.0, 3.0]) * 2).sum().item(), file=sys.stderr)
open(sys.argv[1], "w").write("to the end")
"""

GRAPH = """\
graph()
%0 = input(0) : float32[4]
%1 = exp(%0) : float32[4]
return %1
"""

# Every command that prints something; SCRIPT, END and GRAPH stand for files.
COMMANDS = (
    "dump-ir SCRIPT END", "dump-ir SCRIPT END --format json", "dump-ir SCRIPT END --format html",
    "explain fusion SCRIPT END", "explain recompile SCRIPT END --json",
    "explain memory SCRIPT END", "roofline SCRIPT END --json", "profile SCRIPT END -o -",
    "tune SCRIPT END",
    "opt GRAPH", "opt --list", "run GRAPH", "verify GRAPH", "cache path", "cache ls",
    "cache ls --json", "cache stats", "cache verify", "cache explain SCRIPT END",
    "cache prune --dry-run", "cache clear --dry-run", "doctor", "--version", "--help",
    "cache --help",
)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LAZYGRAD_CACHE", raising=False)
    monkeypatch.delenv("LAZYGRAD_DUMP", raising=False)
    monkeypatch.setattr("lazygrad_runtime.peak.measure_peak", lambda repeats: _peak())
    store.disk.cache_clear()
    yield
    store.disk.cache_clear()


def _peak() -> object:
    from lazygrad_runtime.peak import Peak
    return Peak(1e11, 1e10, 1e10, 1)


@pytest.fixture
def words(tmp_path: Path) -> Callable[[str], list[str]]:
    """The words of a command line, with its files written and an entry in the cache."""
    assert CompileCache().store({"n": 1}, {"object": b"code"})
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "graph.txt").write_text(GRAPH)
    names = {"SCRIPT": "script.py", "GRAPH": "graph.txt", "END": "end"}
    return lambda line: [str(tmp_path / names[word]) if word in names else word
                         for word in line.split()]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_reader_that_has_gone_away(line: str, words: Callable[[str], list[str]],
                                     monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        code = __main__.main(words(line))
    told = capsys.readouterr().err
    assert code == READER_GONE
    assert "Traceback" not in told and "BrokenPipe" not in told


def test_every_command_is_here() -> None:
    """`bisect`, `reduce` and `repro` print nothing where nothing is wrong."""
    first = {line.split()[0] for line in COMMANDS}
    actions = __main__.make_parser()._subparsers
    assert actions is not None
    (choices,) = [action.choices for action in actions._group_actions if action.choices]
    assert set(choices) <= first | {"bisect", "reduce", "repro"}


def test_the_script_ends_with_the_reader_and_the_process_is_quiet(
        words: Callable[[str], list[str]], tmp_path: Path) -> None:
    """As a process, down to what Python says at its end; the script does not run on unseen."""
    for line, ends in (("dump-ir SCRIPT END", True), ("cache ls --json", False)):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, "-m", "lazygrad", *words(line)], stdout=writing,
                              stderr=subprocess.PIPE, text=True, timeout=STUCK)
        os.close(writing)
        assert done.returncode == READER_GONE
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        if ends:
            assert len(done.stderr.split()) <= 1, "the script stopped at its first program"
            assert not (tmp_path / "end").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_under_the_output(words: Callable[[str], list[str]],
                                      monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert __main__.main(words("cache stats")) == FINDING
    assert capsys.readouterr().err == "lazygrad: output: No space left on device\n"


def test_an_interrupted_command(monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lazygrad_runtime.cache_verify.verify", interrupted)
    assert __main__.main(["cache", "verify"]) == INTERRUPTED
    assert capsys.readouterr().err == "lazygrad: interrupted\n"
