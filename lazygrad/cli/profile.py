"""`lazygrad profile`: what ran when, as a trace for a browser and as a table."""

from __future__ import annotations

import argparse
import json
import sys

from lazygrad.cli import FINDING, OK
from lazygrad.cli.scripts import (
    add_script,
    check_writable,
    no_program,
    run_watched,
    whole_number,
    write_text,
)

DESCRIPTION = """\
Runs SCRIPT with programs that read the clock between kernels, and writes a timeline of programs,
kernels and compiling in Chrome's trace format: open it with https://ui.perfetto.dev or
chrome://tracing.  The kernels that took most time are listed.
"""

EPILOG = """\
Examples:
  lazygrad profile train.py --epochs 1 -o trace.json
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "profile", help="write a timeline of programs and kernels",
        usage="lazygrad profile SCRIPT [ARGS ...] [-o FILE|-] [--top N]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_script(parser)
    parser.add_argument("-o", "--output", metavar="FILE|-", default="lazygrad-trace.json",
                        help="where the trace goes (default: lazygrad-trace.json); "
                             "- is standard output, without the list")
    parser.add_argument("--top", metavar="N", type=whole_number, default=10,
                        help="list the N kernels that took most time (default: 10)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain.profile import Trace
    from lazygrad.explain.roofline import Timing, duration
    from lazygrad.explain.watch import Watch
    check_writable(options.output)
    trace = Trace()
    succeeded = run_watched(options, Watch(trace.program, Timing(trace.times)))
    code = OK if succeeded else FINDING
    totals = trace.totals()
    text = json.dumps(trace.json())
    if options.output == "-":
        print(text)
        return code
    write_text(options.output, text + "\n")
    if not totals:
        no_program("profile", succeeded)
        return code
    whole = sum(spent for *_, spent in totals)
    for name, lines, calls, spent in totals[:options.top]:
        noun = "call " if calls == 1 else "calls"
        print(f"{spent / whole:4.0%}  {duration(spent):>8}  {calls:6} {noun}  {name} ({lines})")
    print(f"{duration(whole)} in kernels; trace written to {options.output}", file=sys.stderr)
    return code
