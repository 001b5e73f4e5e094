"""`lazygrad tune`: times candidate schedules of a script's kernels and keeps the fastest."""

from __future__ import annotations

import argparse

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION
from lazygrad.cli.cache import print_json
from lazygrad.cli.scripts import add_script, check_script, no_program, run_watched

DESCRIPTION = """\
Runs SCRIPT and, before the first run of each of its programs, times other schedules of the kernels
in it: tiles, blocks, packing, lanes, tasks.  The fastest are kept in the compile cache, for this
machine and this number of threads, and every later compilation uses them.  All schedules give the
same results, bit by bit.  Ctrl-C keeps what was found.

Kernels that were tuned before are left out, unless --again is given.  LAZYGRAD_TUNED=0 has programs
compiled as if nothing had been tuned.
"""

EPILOG = """\
Examples:
  lazygrad tune train.py --epochs 1
  lazygrad tune train.py --again
  lazygrad cache ls --filter schedule
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tune", help="time other schedules of a script's kernels and keep the fastest",
        usage="lazygrad tune SCRIPT [ARGS ...] [--again] [--json]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_script(parser)
    parser.add_argument("--again", action="store_true",
                        help="also kernels that have been tuned before")
    parser.add_argument("--json", action="store_true",
                        help=f"as JSON (schema_version {SCHEMA_VERSION})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain import tuning
    from lazygrad.explain.watch import Watch
    check_script(options.script)
    progress = tuning.Progress()
    tuner = tuning.Tuner(progress, options.again)
    try:
        succeeded = run_watched(options, Watch(on_run=tuner))
    finally:
        progress.clear()
    if not tuner.reports:
        no_program("tune", succeeded)
        return OK if succeeded else FINDING
    outcomes = [each for _, each in tuner.outcomes]
    if options.json:
        print_json({"kernels": [tuning.described(*each) for each in tuner.outcomes]})
    else:
        better = [each for each in outcomes if each.winner.is_better]
        before = sum(report.before for _, report in tuner.reports)
        after = sum(report.after for _, report in tuner.reports)
        print(f"{len(outcomes)} kernel{'s' * (len(outcomes) != 1)} tuned, {len(better)} with "
              f"another schedule than the default"
              + (f"; all programs once take {tuning.duration(after)} instead of "
                 f"{tuning.duration(before)}" if better else ""))
    return OK if succeeded else FINDING
