"""`lazygrad verify`: whether a file holds a legal graph."""

from __future__ import annotations

import argparse

from lazygrad.cli import FINDING, OK
from lazygrad.cli.graphs import legal_graph
from lazygrad.dump.options import counted

DESCRIPTION = """\
Reads a graph in text form and checks every operation: its operands, attributes, dtype and shape.
The exit code is 1 where something is wrong; the message names the line.  Nothing is compiled.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "verify", help="check that a dumped graph is legal", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE|-", help="a graph; - is standard input")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    graph = legal_graph(options.file)
    if graph is None:
        return FINDING
    nodes = graph.nodes()
    print(f"{options.file}: legal; {counted(len(nodes), 'node')}, "
          f"{counted(len(graph.inputs()), 'input')}, {counted(len(graph.outputs), 'output')}")
    return OK
