"""What can be wrong with a graph, in classes: `reduce` keeps the class, `bisect` looks for its
cause.

wrong    the compiled result differs from the interpreter's
opt      the optimised graph, interpreted, differs already: a rewrite is wrong
verify   a pass made an illegal graph
crash    compiling or running raised; the kind of exception belongs to the class
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from lazygrad.explain.compare import (
    Expected,
    compiled,
    difference,
    interpret_rewritten,
    interpreted,
)
from lazygrad_compiler import pipeline
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.ir.verify import VerifyError, verify


@dataclass(frozen=True, slots=True)
class Failure:
    """kind: a class of the module's list, with the exception's name after `crash:`.  detail: the
    difference or the message.
    """

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def _crash(error: Exception) -> Failure:
    message = (str(error).splitlines() or [""])[0]
    return Failure(f"crash:{type(error).__name__}", message)


def rewriting_failure(graph: Graph, inputs: Sequence[numpy.ndarray],
                      expected: Sequence[Expected],
                      tolerance: float | None = None) -> Failure | None:
    """Whether the stage `opt` is at fault; nothing is compiled."""
    try:
        made = pipeline.optimized(graph)
        verify(made, dense_inputs=False)
        values = interpret_rewritten(made, graph, inputs)
    except VerifyError as error:
        return Failure("verify", str(error))
    except Exception as error:
        return _crash(error)
    found = difference(values, expected, [o.dtype for o in graph.outputs], tolerance)
    return Failure("opt", str(found)) if found else None


def compiled_failure(graph: Graph, inputs: Sequence[numpy.ndarray], expected: Sequence[Expected],
                     tolerance: float | None = None) -> Failure | None:
    """Whether the compiled program is at fault."""
    try:
        values = compiled(graph, inputs)
    except Exception as error:
        return _crash(error)
    found = difference(values, expected, [o.dtype for o in graph.outputs], tolerance)
    return Failure("wrong", str(found)) if found else None


def failure(graph: Graph, inputs: Sequence[numpy.ndarray],
            tolerance: float | None = None) -> Failure | None:
    """What is wrong with the graph on these inputs, if anything.

    Raises what the interpreter raises where the inputs are not for this graph.
    """
    expected = interpreted(graph, inputs)
    return (rewriting_failure(graph, inputs, expected, tolerance)
            or compiled_failure(graph, inputs, expected, tolerance))


def failure_of_kind(kind: str, graph: Graph, inputs: Sequence[numpy.ndarray],
                    tolerance: float | None = None) -> Failure | None:
    """The failure if it is of that kind; no more is done than to find out."""
    expected = interpreted(graph, inputs)
    found = None
    if kind == "wrong":  # the likeliest first: most of what `reduce` tries is right
        found = compiled_failure(graph, inputs, expected, tolerance)
        if found is None:
            return None
    rewriting = rewriting_failure(graph, inputs, expected, tolerance)
    if rewriting is None and kind not in ("wrong", "opt", "verify"):
        found = compiled_failure(graph, inputs, expected, tolerance)
    found = rewriting or found
    return found if found is not None and found.kind == kind else None
