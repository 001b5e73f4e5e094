"""The examples run as programs and learn what they claim; what documents show is what happens."""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run("name.py", "--option", …) -> what the example printed; run("-m", "lazygrad", …), too.

    The compile cache is empty at first and shared within a test.
    """
    folders = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
    environment = {**os.environ, "LAZYGRAD_CACHE_DIR": str(tmp_path / "cache"),
                   "PYTHONPATH": os.pathsep.join(folders)}

    def start(name: str, *options: str) -> str:
        program = name if name == "-m" else str(EXAMPLES / name)
        done = subprocess.run([sys.executable, program, *options], cwd=tmp_path,
                              env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        if name != "-m":
            assert done.stderr == "", "no progress bar and no warnings where there is no terminal"
        return done.stdout

    return start


def numbers(pattern: str, output: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, output)]


def test_train_digits_learns(run: Run) -> None:
    output = run("train_digits.py", "--epochs", "3")
    accuracies = numbers(r"held-out accuracy ([\d.]+)%", output)
    losses = numbers(r"loss ([\d.]+)", output)
    assert len(accuracies) == len(losses) == 3
    assert accuracies[-1] >= 95.0, output
    assert losses[-1] < losses[0] / 2, output
    assert "1438 training images, 359 held out" in output


def test_train_digits_repeats_itself(run: Run) -> None:
    """The same seed, the same numbers, whether compiled or taken from the cache."""
    first, second, other = (run("train_digits.py", "--epochs", "1", "--seed", seed).splitlines()[0]
                            for seed in ("3", "3", "4"))
    assert first == second
    assert other != first, "the seed counts"


def test_train_digits_explains_a_batch_that_is_too_large(run: Run) -> None:
    with pytest.raises(AssertionError, match="--batch-size 5000: there are only 1438 images"):
        run("train_digits.py", "--batch-size", "5000")


def test_char_gpt_learns(run: Run) -> None:
    output = run("char_gpt.py", "--steps", "36", "--batch-size", "8", "--sample", "20")
    losses = numbers(r"step +\d+  loss ([\d.]+)", output)
    assert len(losses) == 12
    assert losses[0] > 3.5, "75 characters, nothing learnt: ln 75 is 4.3"
    assert losses[-1] < 3.2 and losses[-1] < losses[0] - 0.8, output
    prompt, continuation = output.split("held-out loss")[1].split("\n", 1)[1].rsplit("|", 1)
    assert len(prompt) == 64
    assert len(continuation.removesuffix("\n")) == 20


@pytest.mark.parametrize("name", ["flow.py", "pinn.py", "recommend.py"])
def test_examples_print_what_they_show(name: str, run: Run) -> None:
    """The output at the end of the docstring, but for the last digits, which depend on the CPU."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring is not None
    shown = textwrap.dedent(docstring.split("\n\n")[-1]).splitlines()
    printed = run(name).splitlines()
    number = r"\d+\.\d+(?:e[+-]\d+)?"
    assert [re.sub(number, "?", line) for line in printed] == [
        re.sub(number, "?", line) for line in shown]
    for mine, theirs in zip(printed, shown, strict=True):
        for actual, expected in zip(numbers(f"({number})", mine), numbers(f"({number})", theirs),
                                    strict=True):
            factor = 10 if "e-" in theirs or "e+" in theirs else 1.5
            assert expected / factor < actual < expected * factor, (mine, theirs)


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/architecture.md"]


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_sessions_in_documents(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All `pycon` blocks of a document, one after the other in one session."""
    path = ROOT / name
    monkeypatch.chdir(tmp_path)
    text, inside, lines = path.read_text(), False, []
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```pycon"
            line = ""
        lines.append(line if inside else "")
    session = doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {}, name, str(path), 0)
    assert len(session.examples) > 3
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_point_at_what_exists(name: str) -> None:
    """Links, and names of Python files in backticks, wherever in the tree they are meant to be."""
    path = ROOT / name
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link
    folders = ("compiler", "runtime", "lazygrad", "tests", "docs")
    files = {f"/{file.relative_to(ROOT)}" for folder in folders
             for file in (ROOT / folder).rglob("*.py")}
    for mentioned in re.findall(r"`([\w/.-]+\.py)`", text):
        assert any(file.endswith("/" + mentioned) for file in files), mentioned


def test_documents_show_real_dumps(run: Run) -> None:
    """What README and architecture show of tour.py is what `dump-ir` prints."""
    dump = run("-m", "lazygrad", "dump-ir", str(EXAMPLES / "tour.py"), "--stage", "fused,loops")
    shown = 0
    for name in ("README.md", "docs/architecture.md"):
        fenced = re.findall(r"^```\w*\n(.*?)\n```$", (ROOT / name).read_text(), re.M | re.S)
        for block in fenced:
            if block.startswith(("==== program", "kernel 0:", "loops kernel")):
                assert block in dump, block
                shown += 1
    assert shown == 3
