"""`repro`: a failing program as a Python file that needs nothing but lazygrad.

The file holds the graph as text and the arrays of its inputs, compiles the one, runs it on the
other, and says how the result differs from the interpreter's: exit code 1 while it does, 0 after a
fix.
"""

from __future__ import annotations

import base64
import io
import textwrap

import numpy

from lazygrad.explain.failures import Failure
from lazygrad.explain.reduce import Case
from lazygrad_compiler.ir.text import print_graph

TEMPLATE = '''\
"""A program that lazygrad gets wrong: {failure}

Run it with python; the exit code is 1 as long as it is wrong.
"""

import base64
import io
import sys

import numpy

from lazygrad.explain.failures import failure
from lazygrad.explain.graphs import fitted_inputs
from lazygrad_compiler.ir.text import parse_graph

GRAPH = r"""
{graph}"""

INPUTS = """
{inputs}
"""

graph = parse_graph(GRAPH)
with numpy.load(io.BytesIO(base64.b64decode(INPUTS))) as stored:
    inputs = fitted_inputs([stored[name] for name in stored.files], graph)
found = failure(graph, inputs, {tolerance!r})
print(found if found else "compiled and interpreted results agree")
sys.exit(1 if found else 0)
'''


def source(case: Case, failure: Failure, tolerance: float | None = None) -> str:
    """The text of the file."""
    held = io.BytesIO()
    numpy.savez_compressed(
        held, **{f"input{number}": array for number, array in enumerate(case.inputs)})  # type: ignore[arg-type]
    encoded = base64.b64encode(held.getvalue()).decode()
    about = str(failure).replace("\\", "/").replace('"""', "'''")
    return TEMPLATE.format(failure=about, graph=print_graph(case.graph),
                           inputs="\n".join(textwrap.wrap(encoded, 96)), tolerance=tolerance)
