"""What bisect, reduce and repro have in common: a failing graph, from a script or from a file."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lazygrad.cli import FINDING, OK
from lazygrad.cli.graphs import add_inputs, add_tolerance, legal_graph, load_inputs
from lazygrad.cli.scripts import add_script, no_program, run_watched, whole_number
from lazygrad.dump.options import counted

if TYPE_CHECKING:
    from lazygrad.explain.failures import Failure
    from lazygrad.explain.reduce import Case


def add_failing(parser: argparse.ArgumentParser) -> None:
    add_script(parser, "a Python file, or a graph in text form (any other ending)")
    add_inputs(parser)
    add_tolerance(parser)
    parser.add_argument("--runs", metavar="N", type=whole_number, default=1,
                        help="check the first N runs of each program of a script (default: 1)")


def failing_case(options: argparse.Namespace,
                 command: str) -> tuple[Case | None, Failure | None, int]:
    """The graph to look at, what is known to be wrong with it, and the exit code if that is all.

    Of a script: the first program that is wrong; None where all agree.  Of a file: its graph.
    """
    from lazygrad.explain.reduce import Case
    if not options.script.endswith(".py"):
        graph = legal_graph(options.script)
        if graph is None:
            return None, None, FINDING
        return Case(graph, tuple(load_inputs(options, graph))), None, OK
    from lazygrad.explain.checking import Checker, CompileFailures
    from lazygrad.explain.watch import Watch
    checker = Checker(options.runs, options.tolerance)
    crashes = CompileFailures().install()
    watch = Watch(on_run=checker)
    try:
        succeeded = run_watched(options, watch)
    finally:
        crashes.remove()
    found = checker.found or crashes.found
    if found is None:
        if not watch.programs:
            no_program(command, succeeded)
        else:
            print(f"lazygrad {command}: {counted(checker.checked, 'run')} of "
                  f"{counted(len(watch.programs), 'program')} checked: compiled and "
                  "interpreted results agree", file=sys.stderr)
        return None, None, OK if succeeded else FINDING
    print(f"lazygrad {command}: program {found.number:03} ({found.about}), run {found.run}: "
          f"{found.failure}", file=sys.stderr)
    return found.case, found.failure, FINDING
