"""`lazygrad run`: compiles a graph in text form and runs it on given arrays."""

from __future__ import annotations

import argparse

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION
from lazygrad.cli.cache import print_json
from lazygrad.cli.graphs import add_inputs, legal_graph, load_inputs
from lazygrad.cli.scripts import check_writable, written

DESCRIPTION = """\
Compiles a graph (the stages graph and opt of `lazygrad dump-ir`), runs it, and prints the results.
With --interpret it is run by the interpreter instead, operation by operation in NumPy.
"""

EPILOG = """\
Examples:
  lazygrad dump-ir train.py --stage graph > graph.txt
  lazygrad run graph.txt --inputs x.npz -o results.npz
  lazygrad run graph.txt --interpret
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run", help="run a dumped graph on arrays",
        usage="lazygrad run FILE|- [--inputs X.npz] [-o OUT.npz] [--interpret] [--json]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE|-", help="a graph; - is standard input")
    add_inputs(parser)
    parser.add_argument("-o", "--output", metavar="OUT.npz",
                        help="write the results as output0, output1, ... instead of printing")
    parser.add_argument("--interpret", action="store_true", help="run it in the interpreter")
    parser.add_argument("--json", action="store_true",
                        help=f"types and values as JSON (schema_version {SCHEMA_VERSION})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import numpy

    from lazygrad.explain.compare import compiled
    from lazygrad_compiler.ir.interpret import interpret
    path = options.output
    if path is not None and path != "-" and not path.endswith(".npz"):
        path += ".npz"  # as numpy.savez calls it
    check_writable(path)
    graph = legal_graph(options.file)
    if graph is None:
        return FINDING
    inputs = load_inputs(options, graph)
    results = (interpret if options.interpret else compiled)(graph, inputs)
    if path not in (None, "-"):
        with written(path):
            numpy.savez(path, **{f"output{number}": result for number, result
                                 in enumerate(results)})  # type: ignore[arg-type]
        return OK
    names = [f"{node.dtype.name}{list(node.shape)}" for node in graph.outputs]
    if options.json:
        print_json({"outputs": [{"type": name, "values": _listed(result)}
                                for name, result in zip(names, results, strict=True)]})
        return OK
    for number, (name, result) in enumerate(zip(names, results, strict=True)):
        print(f"output {number}: {name}\n{result}")
    return OK


def _listed(array: object) -> object:
    """Nested lists; complex numbers as pairs."""
    import numpy
    value = numpy.asarray(array)
    if value.dtype.kind == "c":
        return numpy.stack([value.real, value.imag], axis=-1).tolist()
    return value.astype(numpy.float64).tolist() if value.dtype.kind == "V" else value.tolist()
