"""The examples run as programs and learn what they claim to learn; what the documents show is what happens."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run("name.py", "--option", …) -> what it printed; its compile cache is empty at first and shared within a test."""
    folders = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
    environment = {**os.environ, "LAZYGRAD_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(folders)}

    def program(name: str, *options: str) -> str:
        done = subprocess.run([sys.executable, str(EXAMPLES / name), *options], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "no progress bar and no warnings where the output is no terminal"
        return done.stdout

    return program


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
    """The same seed, the same bits: printed numbers do not differ, whether compiled or taken from the cache."""
    first, second = (run("train_digits.py", "--epochs", "1", "--seed", "3").splitlines()[0] for _ in range(2))
    assert first == second
    other = run("train_digits.py", "--epochs", "1", "--seed", "4").splitlines()[0]
    assert other != first, "the seed counts"


def test_train_digits_explains_a_batch_that_is_too_large(tmp_path: Path, run: Run) -> None:
    with pytest.raises(AssertionError, match="--batch-size 5000: there are 1438 training images"):
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


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "guide.md", ROOT / "docs" / "architecture.md"]


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "guide.md"], ids=lambda path: path.name)
def test_sessions_in_documents(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All `pycon` blocks of a document, one after the other in one session."""
    monkeypatch.chdir(tmp_path)
    text, inside, lines = path.read_text(), False, []
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```pycon"
            line = ""
        lines.append(line if inside else "")
    session = doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {}, path.name, str(path), 0)
    assert len(session.examples) > 3
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_point_at_what_exists(path: Path) -> None:
    """Links, and names of files and folders in backticks, wherever in the tree they are meant to be."""
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link
    files = {str(file.relative_to(ROOT)) for folder in ("compiler", "runtime", "lazygrad", "tests", "docs")
             for file in (ROOT / folder).rglob("*.py")}
    for name in re.findall(r"`([\w/.-]+\.py)`", text):
        assert any(file == name or file.endswith("/" + name) for file in files), name
