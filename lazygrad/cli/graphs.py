"""What commands on graph files have in common: the FILE argument and arrays for its inputs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazygrad.cli import UsageError

if TYPE_CHECKING:
    from lazygrad_compiler.ir.node import Graph


def add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inputs", metavar="FILE.npz",
                        help="arrays for the inputs, called 0, 1, ... or input0, input1, ...")
    parser.add_argument("--seed", metavar="N", type=int, default=0,
                        help="without --inputs: arrays are made up from this number (default: 0)")


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tolerance", metavar="X", type=float,
                        help="how far an element may be off, as a share of the largest one "
                             "(default: 1e-4 for float32, 1e-9 for float64)")


def load_graph(path: str) -> Graph:
    """The graph in a file; UsageError where there is none to read, ParseError where it is wrong."""
    from lazygrad.explain.graphs import read_graph
    if path.endswith(".py"):
        raise UsageError(f"{path} is a Python file, and this takes a graph as text; "
                         f"`lazygrad dump-ir {path} --stage graph > graph.txt` makes one")
    try:
        if path not in ("-", "/dev/stdin") and Path(path).is_char_device():
            raise UsageError(f"{path} is a device; name a file, or - for standard input")
        return read_graph(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text") from None


def legal_graph(path: str) -> Graph | None:
    """The graph, or None (and a message) where it is malformed."""
    from lazygrad_compiler.ir.text import ParseError
    from lazygrad_compiler.ir.verify import VerifyError, verify
    try:
        graph = load_graph(path)
        verify(graph, dense_inputs=False)
    except ParseError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return None
    except VerifyError as error:
        print(f"{path}: not a legal graph: {error}", file=sys.stderr)
        return None
    return graph


def load_inputs(options: argparse.Namespace, graph: Graph) -> list[Any]:
    """The arrays that the command line names, or made-up ones."""
    from lazygrad.explain.graphs import InputError, made_up_inputs, read_inputs
    try:
        if options.inputs is None:
            return made_up_inputs(graph, options.seed)
        return read_inputs(options.inputs, graph)
    except OSError as error:
        raise UsageError(f"--inputs {options.inputs}: {error.strerror or error}") from None
    except InputError as error:
        raise UsageError(f"--inputs: {error}") from None
