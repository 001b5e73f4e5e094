"""With dumping off, nothing of it runs: no module is imported, and what the compiler does for dumps
is under one per cent of its work, counted in lines of Python that run (seconds vary from run to run
by more than that; `python -m tests.benchmarks.tools` measures them).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import without_dumps
from tests.lazygrad.processes import ROOT, python

STEP = """\
import sys
import lazygrad as lg

x, w = lg.rand(8, 4), lg.rand(4, 3, requires_grad=True)
loss = lg.tanh(x @ w).sum()
loss.backward()
loss.item()
w.grad.tolist()
print(*sorted(name for name in sys.modules
              if name.startswith(("lazygrad.dump", "lazygrad.explain", "lazygrad.cli",
                                  "lazygrad.debug", "lazygrad_compiler.llvm.lines"))
              or name in ("difflib", "argparse")))
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """run(arguments, SETTING=…) -> what an interpreter of its own prints."""

    def start(*arguments: str, **settings: str) -> str:
        done = python(*arguments, folder=tmp_path, fresh=True, changes={
            "LAZYGRAD_CACHE": "0", "PYTHONHASHSEED": "0", **settings})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return start


def test_a_training_step_imports_nothing_of_the_tools(run: Callable[..., str]) -> None:
    assert run("-c", STEP) == ""
    switched_on = run("-c", STEP, LAZYGRAD_DUMP="graph")
    assert "lazygrad.dump.listen" in switched_on, "the names are still these"


def test_what_serves_dumps_is_under_one_per_cent_of_the_compiler(run: Callable[..., str]) -> None:
    """The compiler as it is, and with every statement that serves dumps or `bisect` taken out:
    the same code comes out, and the lines run differ by less than one per cent.
    """
    found = {}
    for which in ("whole", "without"):
        lines, code, taken = run("-m", "tests.benchmarks.without_dumps", "lines", which).split()
        found[which] = int(lines), code, int(taken)
    (whole, code, none), (bare, bare_code, taken) = found["whole"], found["without"]
    assert code == bare_code
    assert none == 0 and taken >= 20, "the statements are not where they were: see without_dumps.py"
    assert bare < whole < 1.01 * bare


def test_nothing_that_listens_escapes_the_count() -> None:
    """The lists that dumps listen to are all known to the comparison.  (What `forks.py` lists is
    called in a child process.)
    """
    lists = set()
    for folder in ("compiler", "runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                name, colon, rest = line.partition(":")
                if colon and rest.startswith(" list[Callable") and name.isidentifier() \
                        and path.name != "forks.py":
                    lists.add(name)
    assert lists == without_dumps.LISTS
