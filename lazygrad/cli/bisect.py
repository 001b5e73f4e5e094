"""`lazygrad bisect`: which single decision of the compiler makes a program wrong."""

from __future__ import annotations

import argparse
import sys

from lazygrad.cli import FINDING, SCHEMA_VERSION
from lazygrad.cli.cache import print_json
from lazygrad.cli.failing import add_failing, failing_case

DESCRIPTION = """\
Compares compiled results with the interpreter's.  Where they differ, finds the one decision of the
compiler that is to blame: a rewrite rule at one place, a value computed inside its readers, or two
values put into one kernel.  SCRIPT: each program is checked on its first run (or --runs).  FILE: a
graph in text form.  Exit code 1 where a culprit was found.
"""

EPILOG = """\
Examples:
  lazygrad bisect train.py --epochs 1
  lazygrad bisect graph.txt --inputs x.npz
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bisect", help="find the rewrite or fusion that makes a result wrong",
        usage="lazygrad bisect SCRIPT|FILE [ARGS ...] [--inputs X.npz] [--runs N] [--json]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_failing(parser)
    parser.add_argument("--json", action="store_true",
                        help=f"as JSON (schema_version {SCHEMA_VERSION})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain.bisect import find_culprit
    from lazygrad.explain.lines import place
    case, failure, code = failing_case(options, "bisect")
    if case is None:
        return code
    found = find_culprit(case.graph, case.inputs, options.tolerance)
    if found is None:
        if failure is None:
            print("lazygrad bisect: compiled and interpreted results agree", file=sys.stderr)
            return code
        print(f"lazygrad bisect: {failure}, but compiled anew the program is right: the code "
              "that ran came from the cache (`lazygrad cache verify`)", file=sys.stderr)
        return FINDING
    decision = found.decision
    where = place(decision.location) if decision else None
    if options.json:
        print_json({"failure": {"kind": found.failure.kind, "detail": found.failure.detail},
                    "step": found.step, "what": found.what, "lines": where,
                    "decision": decision.number if decision else None,
                    "candidates": found.candidates, "compiles": found.compiles})
        return FINDING
    number = f" {decision.number} of {found.candidates - 1}" if decision else ""
    print(f"culprit: {found.step}: {found.what}" + (f" ({where})" if where else ""))
    print(f"decision{number}; {found.compiles} compiles" if decision
          else f"no decision is to blame; {found.compiles} compiles")
    print(found.failure)
    return FINDING


