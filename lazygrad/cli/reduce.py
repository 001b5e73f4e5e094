"""`lazygrad reduce`: a failing graph made small."""

from __future__ import annotations

import argparse
import sys

from lazygrad.cli import FINDING
from lazygrad.cli.failing import add_failing, failing_case
from lazygrad.cli.scripts import check_writable, whole_number, write_text, written

DESCRIPTION = """\
Shrinks a graph whose compiled result is wrong (or that does not compile) as long as it fails in the
same way, and prints what is left.  With -o NAME the graph goes to NAME and the arrays for its
inputs to NAME.npz, ready for `lazygrad bisect NAME --inputs NAME.npz`.  Exit code 1 where the graph
fails, 0 where there is nothing to reduce.
"""

EPILOG = """\
Examples:
  lazygrad reduce train.py -o small.txt
  lazygrad bisect small.txt --inputs small.txt.npz
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "reduce", help="shrink a graph that fails",
        usage="lazygrad reduce FILE|SCRIPT [ARGS ...] [--inputs X.npz] [-o NAME] [--most N]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_failing(parser)
    parser.add_argument("-o", "--output", metavar="NAME", help="write NAME and NAME.npz")
    parser.add_argument("--most", metavar="N", type=whole_number, default=1000,
                        help="try at most so many candidates (default: 1000)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lazygrad.explain.graphs import write_inputs
    from lazygrad.explain.reduce import reduce_case
    from lazygrad_compiler.ir.text import print_graph
    to_files = options.output not in (None, "-")
    arrays = f"{options.output}.npz" if to_files else None
    check_writable(options.output, arrays)
    case, _, code = failing_case(options, "reduce")
    if case is None:
        return code
    reduced = reduce_case(case, options.tolerance, options.most)
    if reduced is None:
        print("lazygrad reduce: compiled and interpreted results agree: nothing to reduce",
              file=sys.stderr)
        return code
    small, failure, tests = reduced
    text = f"# {failure}\n{print_graph(small.graph)}"
    write_text(options.output or "-", text)
    if arrays is not None:
        with written(arrays):
            write_inputs(arrays, small.inputs)
    print(f"lazygrad reduce: {case.operations} operations -> {small.operations}, "
          f"{tests} candidates tried", file=sys.stderr)
    return FINDING
