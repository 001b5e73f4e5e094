"""`lazygrad tune`: times candidate schedules of a script's kernels and keeps the fastest."""

from __future__ import annotations

import argparse
import math

from lazygrad.cli import FINDING, INTERRUPTED, OK, SCHEMA_VERSION
from lazygrad.cli.cache import print_json
from lazygrad.cli.scripts import add_script, check_script, no_program, run_watched

DESCRIPTION = """\
Runs SCRIPT and, before the first run of each of its programs, times other schedules of the kernels
in it: tiles, blocks, packing, lanes, tasks.  The fastest are kept in the compile cache, for this
machine and this number of threads, and every later compilation uses them.  All schedules give the
same results, bit by bit.  Ctrl-C keeps what was found.

Kernels that were tuned before are left out, unless --again is given.  LAZYGRAD_TUNED=0 has programs
compiled as if nothing had been tuned; `lazygrad explain schedule SCRIPT` says which are used.
"""

EPILOG = """\
Examples:
  lazygrad tune train.py --epochs 1
  lazygrad tune train.py --seconds 60
  lazygrad cache ls --filter schedule
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tune", help="time other schedules of a script's kernels and keep the fastest",
        usage="lazygrad tune SCRIPT [ARGS ...] [--seconds S] [--again] [--json]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_script(parser)
    parser.add_argument("--seconds", metavar="S", type=_seconds, default=math.inf,
                        help="spend about so many on tuning; what is left is for the next time")
    parser.add_argument("--again", action="store_true",
                        help="also kernels that have been tuned before")
    parser.add_argument("--json", action="store_true",
                        help=f"as JSON (schema_version {SCHEMA_VERSION})")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    """argparse shows the message."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain import tuning
    from lazygrad.explain.watch import Watch
    check_script(options.script)
    progress = tuning.Progress()
    tuner = tuning.Tuner(progress, options.again, options.seconds)
    try:
        succeeded = run_watched(options, Watch(on_run=tuner), passed=KeyboardInterrupt)
    except KeyboardInterrupt:  # between two programs
        succeeded, tuner.interrupted = False, True
    finally:
        progress.clear()
    if not (tuner.reports or tuner.left or tuner.interrupted):
        no_program("tune", succeeded)
        return OK if succeeded else FINDING
    if options.json:
        print_json({"kernels": [tuning.described(*each) for each in tuner.outcomes],
                    "complete": tuner.complete})
    else:
        print(tuning.summary(tuner))
    if tuner.interrupted:
        return INTERRUPTED
    return OK if succeeded else FINDING
