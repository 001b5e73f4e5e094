"""Bad input to every operation: the matrix of `operations/defects.py`, run in worker processes.

A worker that dies or says nothing for a while was killed by a cell: that is a finding, and the
next worker goes on behind it.  The default run draws some cells of every operation; `-m slow` runs
them all.  `python -m tests.lazygrad.test_defects [family [operation]]` prints the matrix's result.
"""

from __future__ import annotations

import json
import os
import pathlib
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(__file__).parent / "operations"
TIME_LIMIT = 60.0
"""Seconds for one cell, on a busy machine; a cell takes milliseconds."""

SHARE = 3
"""Cells of each operation in the default run."""


@dataclass
class Outcome:
    """How many cells were judged, and what was wrong: (cell, problem)."""

    judged: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def _environment() -> dict[str, str]:
    folders = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


def _lines(worker: subprocess.Popen, limit: float) -> Any:
    """The worker's messages; None once it is silent for too long (after its start)."""
    assert worker.stdout is not None
    waiting, seconds = b"", TIME_LIMIT
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(seconds):
                yield None
                return
            block = os.read(worker.stdout.fileno(), 1 << 16)
            if not block:
                return
            seconds = limit
            *complete, waiting = (waiting + block).split(b"\n")
            for line in complete:
                if line.startswith(b"{"):
                    yield json.loads(line)


def run_family(family: str, share: int = 0, pattern: str = "", limit: float = TIME_LIMIT
               ) -> Outcome:
    """Judges a family's cells in as many workers as it takes."""
    outcome = Outcome()
    start, skip_torch = 0, -1
    while True:
        began, cell, done, silent = -1, "(start of the worker)", False, False
        with subprocess.Popen(
            [sys.executable, "-m", "tests.lazygrad.operations.defects", family, str(share),
             str(start), str(skip_torch), *([pattern] if pattern else [])],
            cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as worker:
            for message in _lines(worker, limit):
                if message is None:
                    silent = True
                    worker.kill()
                elif "begin" in message:
                    began, cell = message["begin"], message["cell"]
                elif "end" in message:
                    outcome.judged += 1
                    began = -1
                    if message["problem"]:
                        outcome.problems.append((cell, message["problem"]))
                else:
                    done = True
            errors = b"" if silent else worker.stderr.read() if worker.stderr else b""
        if done:
            return outcome
        if began < 0:
            outcome.problems.append((cell, f"the worker failed: {errors[-2000:].decode()}"))
            return outcome
        if skip_torch != began:  # it may have been PyTorch that died: once more, without it
            start = skip_torch = began
            continue
        outcome.judged += 1
        what = f"hangs ({limit:.0f} s)" if silent else f"crashes the process ({worker.returncode})"
        outcome.problems.append((cell, what))
        start, skip_torch = began + 1, -1


def _families() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py")
                  if "\nRECORDS" in path.read_text(encoding="utf-8")
                  and not path.stem.startswith("_"))


def _report(family: str, outcome: Outcome) -> str:
    right = max(outcome.judged - len(outcome.problems), 0)
    lines = [f"{family}: {right} of {outcome.judged} cells right"]
    return "\n".join(lines + [f"  {cell}\n    {problem}" for cell, problem in outcome.problems])


@pytest.mark.parametrize("family", _families())
def test_some_defects(family):
    outcome = run_family(family, SHARE)
    assert outcome.judged and not outcome.problems, _report(family, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("family", _families())
def test_all_defects(family):
    outcome = run_family(family)
    assert outcome.judged and not outcome.problems, _report(family, outcome)


@pytest.mark.parametrize("operation, words", [
    ("mul[dies]", "crashes the process"),
    ("mul[hangs]", "hangs"),
    ("mul[asserts]", "AssertionError"),
    ("mul[looks up]", "KeyError"),
    ("mul[accepts]", "where PyTorch raises"),
    ("mul[other shape]", "PyTorch"),
    ("mul[other values]", "values differ"),
])
def test_findings_are_found(operation, words):
    """Operations that misbehave (`operations/_misbehaving.py`); the cells after one are judged."""
    from tests.lazygrad.operations import _misbehaving, defects
    (record,) = [each for each in _misbehaving.RECORDS if each.identity == operation]
    outcome = run_family("_misbehaving", 0, operation, limit=1.5)
    assert outcome.judged == len(defects.cells(record)) > 20
    assert any(words in problem for _, problem in outcome.problems), outcome.problems


if __name__ == "__main__":
    family_names = sys.argv[1:2] or _families()
    judged = wrong = 0
    for each in family_names:
        began = time.monotonic()
        result = run_family(each, pattern=sys.argv[2] if len(sys.argv) > 2 else "")
        judged, wrong = judged + result.judged, wrong + len(result.problems)
        print(_report(each, result), f"\n  {time.monotonic() - began:.0f} s", flush=True)
    print(f"{judged - wrong} of {judged} cells right: {100 * (1 - wrong / max(judged, 1)):.2f} %")
