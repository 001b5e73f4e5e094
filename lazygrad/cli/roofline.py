"""`lazygrad roofline`: each kernel's work, time, and share of what the machine can do."""

from __future__ import annotations

import argparse

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION
from lazygrad.cli.cache import print_json
from lazygrad.cli.scripts import (
    add_script,
    check_script,
    check_writable,
    no_program,
    run_watched,
    whole_number,
    write_text,
)

DESCRIPTION = """\
Runs SCRIPT with programs that read the clock between kernels, measures what the machine can do at
best, and shows for each kernel: its time (the best run), floating-point operations, bytes that must
move, operations per byte, and its speed as a share of the peak and of the memory bandwidth.  More
than 100 % of memory means that the data stayed in a cache.
"""

EPILOG = """\
Examples:
  lazygrad roofline train.py --epochs 1
  lazygrad roofline train.py --top 5 --svg roofline.svg
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "roofline", help="compare each kernel's speed with the machine's",
        usage="lazygrad roofline SCRIPT [ARGS ...] [--top N] [--svg FILE] [--json]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_script(parser)
    parser.add_argument("--top", metavar="N", type=whole_number, default=30,
                        help="show the N kernels that took most time (default: 30)")
    parser.add_argument("--svg", metavar="FILE", help="draw the roofline")
    parser.add_argument("--json", action="store_true",
                        help=f"as JSON (schema_version {SCHEMA_VERSION})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain import roofline
    from lazygrad.explain.watch import Watch
    from lazygrad_runtime.peak import measure_peak
    check_script(options.script)
    check_writable(options.svg)
    collector = roofline.Collector()
    peak = measure_peak(10)  # ahead and afterwards: neighbours on the machine take their share
    succeeded = run_watched(options, Watch(on_run=roofline.Timing(collector)))
    if not collector.kernels:
        no_program("roofline", succeeded)
        return OK if succeeded else FINDING
    peak = peak.best(measure_peak(10))
    kernels = sorted(collector.kernels.values(), key=lambda kernel: -sum(kernel.seconds))
    rows = [kernel.described(peak) for kernel in kernels]
    if options.json:
        print_json({"peak": {"flops_per_second": peak.flops,
                             "bytes_per_second": peak.bandwidth, "threads": peak.threads},
                    "kernels": rows})
    else:
        print(roofline.text(rows[:options.top], peak))
        if len(rows) > options.top:
            print(f"and {len(rows) - options.top} kernels more (--top)")
    if options.svg:
        write_text(options.svg, roofline.picture(rows, peak))
    return OK if succeeded else FINDING
