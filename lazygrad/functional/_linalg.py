"""What the functions of linear algebra share: operands as nodes, batches, library calls."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, now
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad_compiler.autodiff.matrices import Matrices
from lazygrad_compiler.autodiff.vjp_build import REAL_OF, Builder
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.library_linalg import LAPACK_DTYPES
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed


def matrices() -> Matrices:
    """Formulas of matrices at the user's line."""
    return Matrices(Builder(now.location))


def call(name: str, *inputs: Node, options: tuple = (), part: int = 0) -> Node:
    """One result of a library call."""
    return graph.make("library", *inputs, attrs=(name, options, part))


def result(name: str, *inputs: Node, options: tuple = (), part: int = 0) -> Tensor:
    return wrap(call(name, *inputs, options=options, part=part))


def check_dtype(name: str, node: Node) -> None:
    """Refuses what LAPACK does not take: integers and 16-bit floats."""
    if node.dtype.name not in LAPACK_DTYPES:
        raise fail(name, f"is not defined for {node.dtype.name}", "Convert with .float() first.")


def matrix(name: str, value: Any, square: bool = False) -> Node:
    """A batch of matrices in a dtype of LAPACK."""
    node = as_node(name, value)
    check_dtype(name, node)
    if node.ndim < 2:
        raise fail(name, f"takes matrices, that is, at least 2 axes, not {listed(node.shape)}",
                   "Add an axis with unsqueeze.")
    if square and node.shape[-1] != node.shape[-2]:
        raise fail(name, f"takes square matrices, not {listed(node.shape)}")
    return node


def same_dtype(name: str, *nodes: Node) -> None:
    if any(node.dtype is not nodes[0].dtype for node in nodes):
        raise fail(name, "dtypes differ: " + " and ".join(node.dtype.name for node in nodes),
                   "Convert one with .to(...).")


def same_batch(name: str, *nodes: Node) -> tuple[Node, ...]:
    """Matrices with their leading axes broadcast."""
    batch = graph.broadcast_shape(name, *(node.shape[:-2] for node in nodes))
    return tuple(graph.broadcast(node, (*batch, *node.shape[-2:])) for node in nodes)


def right_hand_side(name: str, a: Node, b: Node, rows: int) -> tuple[Node, bool]:
    """(b as matrices, whether it was vectors), as PyTorch tells them apart."""
    vectors = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if vectors:
        b = graph.unsqueeze(b, b.ndim)
    if b.ndim < 2 or b.shape[-2] != rows:
        shape = b.shape[:-1] if vectors else b.shape
        raise fail(name, f"{listed(a.shape)} and {listed(shape)} do not fit: the right-hand side "
                   f"needs {rows} rows")
    return b, vectors


def without_column(node: Node) -> Node:
    """The only column of each matrix, as a vector."""
    return graph.reshape(node, node.shape[:-1])


def real_dtype(dtype: DType) -> DType:
    return REAL_OF.get(dtype, dtype)


def conj(node: Node) -> Node:
    return matrices().at.conj(node)


def magnitude(node: Node) -> Node:
    """|x|, real for complex numbers, too."""
    if node.dtype.is_complex:
        return node_of(METHODS["abs"](wrap(node)))
    return graph.unary("abs", node)


def epsilon(dtype: DType) -> float:
    """The distance from 1 to the next number of a LAPACK dtype's parts."""
    return 2.0**-52 if dtype in (dtypes.float64, dtypes.complex128) else 2.0**-23


def limit(name: str, value: Any, a: Node) -> Node:
    """A tolerance, a number or a tensor, as one number of each item of the batch."""
    dtype, batch = real_dtype(a.dtype), a.shape[:-2]
    if isinstance(value, (int, float)):
        return graph.const(float(value), dtype, batch)
    node = as_node(name, value)
    if node.dtype.is_complex:
        raise fail(name, f"tolerances are real, not {node.dtype.name}")
    return graph.broadcast(graph.cast(node, dtype), batch)


def limits(name: str, a: Node, atol: Any, rtol: Any) -> tuple[Node, Node]:
    """The absolute and relative tolerance: unless given, only the relative one counts, and is the
    precision times the larger size.
    """
    if rtol is None:
        default = epsilon(a.dtype) * max(a.shape[-2:])
        if atol is None:
            rtol = default
        elif isinstance(atol, (int, float)):
            rtol = 0.0 if atol > 0 else default
        else:
            absolute = limit(name, atol, a)
            positive = graph.binary("lt", graph.like(0, absolute), absolute)
            return absolute, graph.where(positive, 0.0, graph.like(default, absolute))
    return limit(name, 0.0 if atol is None else atol, a), limit(name, rtol, a)
