"""`lazygrad repro`: a failing program as a file of its own, for a bug report."""

from __future__ import annotations

import argparse
import sys

from lazygrad.cli import FINDING
from lazygrad.cli.failing import add_failing, failing_case
from lazygrad.cli.scripts import check_writable, write_text

DESCRIPTION = """\
Runs SCRIPT, compares each program with the interpreter, and writes the first that differs (or does
not compile) as a Python file that stands alone: graph, input values, comparison.  Exit code 1 where
there was one.  --reduce shrinks it first.
"""

EPILOG = """\
Examples:
  lazygrad repro train.py --reduce -o report.py
  python report.py
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "repro", help="write a stand-alone file of a program that fails",
        usage="lazygrad repro SCRIPT|FILE [ARGS ...] [-o FILE.py] [--reduce] [--runs N]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_failing(parser)
    parser.add_argument("-o", "--output", metavar="FILE.py|-", default="lazygrad-repro.py",
                        help="where it goes (default: lazygrad-repro.py); - is standard output")
    parser.add_argument("--reduce", action="store_true", help="shrink the program first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain.failures import failure
    from lazygrad.explain.reduce import reduce_case
    from lazygrad.explain.repro import source
    check_writable(options.output)
    case, known, code = failing_case(options, "repro")
    if case is None:
        return code
    found = failure(case.graph, case.inputs, options.tolerance) or known
    if found is None:
        print("lazygrad repro: compiled and interpreted results agree", file=sys.stderr)
        return code
    if options.reduce:
        reduced = reduce_case(case, options.tolerance)
        if reduced is not None:
            case, found, _ = reduced
    write_text(options.output, source(case, found, options.tolerance))
    where = "" if options.output == "-" else f"; written to {options.output}"
    print(f"lazygrad repro: {found}{where}", file=sys.stderr)
    return FINDING
