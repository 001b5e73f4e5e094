"""`lazygrad opt`: runs passes on a graph in text form, checking each if asked to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from lazygrad.cli import FINDING, OK, UsageError
from lazygrad.cli.graphs import add_inputs, add_tolerance, legal_graph, load_inputs

if TYPE_CHECKING:
    from lazygrad_compiler.ir.node import Graph

DESCRIPTION = """\
Reads a graph (the stages graph and opt of `lazygrad dump-ir`), runs passes on it in the order
given, and prints what comes out.  With --verify-each every result must be a legal graph; with
--check-each it must compute what the graph before it computed, by the interpreter.  The exit code
is 1 where one does not, and the message names the pass.
"""

EPILOG = """\
Examples:
  lazygrad dump-ir train.py --stage graph > graph.txt
  lazygrad opt graph.txt --check-each
  lazygrad opt graph.txt --passes=canonicalise,simplify
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "opt", help="run passes on a dumped graph, and check them",
        usage="lazygrad opt FILE|- [--passes=NAME,...] [--verify-each] [--check-each] [options]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE|-", nargs="?", help="a graph; - is standard input")
    parser.add_argument("--passes", metavar="NAME,...",
                        help="the passes in order (default: all of stage opt; --list names them)")
    parser.add_argument("--list", action="store_true", help="name the passes and end")
    parser.add_argument("--verify-each", action="store_true",
                        help="check after each pass that the graph is legal")
    parser.add_argument("--check-each", action="store_true",
                        help="compare with the interpreter after each pass")
    parser.add_argument("--no-locations", action="store_true", help="leave out the source lines")
    add_inputs(parser)
    add_tolerance(parser)
    parser.set_defaults(run=run)


def known_passes() -> dict[str, Callable[[Graph], Graph]]:
    """All passes of stage opt by name, in the order in which the pipeline runs them."""
    from lazygrad_compiler.pipeline import opt_passes
    return dict(opt_passes())


def run(options: argparse.Namespace) -> int:
    passes = known_passes()
    if options.list:
        print("\n".join(passes))
        return OK
    if options.file is None:
        raise UsageError("opt: name a file, or - for standard input")
    names = list(passes) if options.passes is None else [
        name.strip() for name in options.passes.split(",") if name.strip()]
    unknown = [name for name in names if name not in passes]
    if unknown:
        raise UsageError(f"--passes: there is no pass {unknown[0]!r}; "
                         f"the passes are {', '.join(passes)}")
    graph = legal_graph(options.file)
    if graph is None:
        return FINDING
    made = _through(graph, names, passes, options)
    if made is None:
        return FINDING
    from lazygrad_compiler.ir.text import print_graph
    print(print_graph(made, locations=not options.no_locations), end="")
    return OK


def _through(graph: Graph, names: list[str], passes: dict[str, Callable[[Graph], Graph]],
             options: argparse.Namespace) -> Graph | None:
    """The graph after the passes; None, and a message, where one of them is wrong."""
    from lazygrad.explain.compare import difference, interpret_rewritten, interpreted
    from lazygrad_compiler.ir.verify import VerifyError, verify
    inputs = load_inputs(options, graph) if options.check_each else []
    original = graph
    expected = interpreted(original, inputs) if options.check_each else []
    dtypes = [output.dtype for output in graph.outputs]
    for name in names:
        before = graph
        try:
            graph = passes[name](graph)
            if options.verify_each:
                verify(graph, dense_inputs=False)
        except VerifyError as error:
            return _say(name, f"made an illegal graph: {error}")
        except Exception as error:
            return _say(name, f"failed: {type(error).__name__}: {error}")
        if options.check_each and graph != before:
            found = difference(interpret_rewritten(graph, original, inputs), expected, dtypes,
                               options.tolerance)
            if found:
                return _say(name, f"changed the result: {found} "
                                    "(`lazygrad bisect` names the rule)")
    return graph


def _say(name: str, what: str) -> Graph | None:
    """Says what is wrong with a pass; None, for the caller to give on."""
    print(f"lazygrad opt: pass {name} {what}", file=sys.stderr)
    return None
