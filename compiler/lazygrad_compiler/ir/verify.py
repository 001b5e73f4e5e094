"""The verifier: what a legal graph is.

`verify(graph)` walks the whole graph and checks, node by node, that the op exists and has its
operands and attributes, that dtype and shape are what the op table infers from them, that constants
are numbers of their dtype, that no node reaches itself, that the bodies of loops are legal, too,
and that the inputs are numbered 0..n-1.
It runs after every pass when checks are on, and costs one inference a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.loop import check_body
from lazygrad_compiler.ir.node import Graph, IRError, Node, Shape
from lazygrad_compiler.ir.ops import OPS


class VerifyError(ValueError):
    """A graph that is not legal; `node` is the culprit where there is one."""

    def __init__(self, message: str, node: Node | None = None) -> None:
        super().__init__(message)
        self.node = node


def verify(graph: Graph, dense_inputs: bool = True) -> None:
    """Raises VerifyError, naming node and op, where the graph is not legal.

    dense_inputs: whether every input 0..n-1 must be reached.  Not so after a pass, which may have
    found that an input has no influence; that each number belongs to one input holds always.
    """
    if not isinstance(graph.outputs, tuple):
        raise VerifyError(f"the outputs are a tuple, not a {type(graph.outputs).__name__}")
    for output in graph.outputs:
        if not isinstance(output, Node):
            raise VerifyError(f"an output is {output!r}, which is no node")
    inputs: dict[int, Node] = {}
    for number, current in enumerate(acyclic_order(graph.outputs)):
        try:
            check_node(current)
        except VerifyError as error:
            raise VerifyError(
                f"node %{number} {current!r}{at_line(current)}: {error}", current
            ) from None
        if current.op == "input":
            index = current.attrs[0]
            other = inputs.setdefault(index, current)
            if other is not current:
                raise VerifyError(
                    f"node %{number} {current!r}: input {index} is also {other!r}", current
                )
    if dense_inputs and sorted(inputs) != list(range(len(inputs))):
        raise VerifyError(f"inputs are numbered from 0 without gaps, and here {sorted(inputs)}")


def at_line(node: Node) -> str:
    """The user's line, in brackets, where it is known."""
    return " ({}:{})".format(*node.location[0]) if node.location else ""


def acyclic_order(outputs: Iterable[Node]) -> list[Node]:
    """Like `topological`, with a VerifyError where a node reaches itself."""
    order: list[Node] = []
    done: dict[Node, bool] = {}  # False while the node's inputs are being visited
    for output in outputs:
        stack: list[tuple[Node, int]] = [(output, 0)]
        while stack:
            current, position = stack.pop()
            if position == 0:
                if current in done:
                    if not done[current]:
                        raise VerifyError(f"{current!r}{at_line(current)} reaches itself", current)
                    continue
                done[current] = False
            if position < len(current.inputs):
                stack.append((current, position + 1))
                stack.append((current.inputs[position], 0))
            else:
                done[current] = True
                order.append(current)
    return order


def check_node(node: Node) -> None:
    """What must hold for one node, given that its inputs are right."""
    definition = OPS.get(node.op)
    if definition is None:
        raise VerifyError(f"there is no operation {node.op!r}")
    arity = len(node.inputs)
    if definition.arity not in (-1, arity) or (definition.arity == -1 and arity == 0):
        wanted = "at least 1" if definition.arity == -1 else definition.arity
        raise VerifyError(f"[{node.op}] has {arity} operands and takes {wanted}")
    if len(node.attrs) != len(definition.attributes):
        raise VerifyError(
            f"[{node.op}] has {len(node.attrs)} attributes, not {len(definition.attributes)}: "
            f"{', '.join(definition.attributes)}"
        )
    try:
        dtype, shape = definition.infer(definition, node.inputs, node.attrs)
    except IRError as error:
        raise VerifyError(str(error)) from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise VerifyError(f"[{node.op}] attributes {node.attrs} are malformed: {error}") from None
    if node.dtype is not dtype or not same_shape(node.shape, shape):
        raise VerifyError(
            f"[{node.op}] is marked {node.dtype}{listed(node.shape)}, and the op table infers "
            f"{dtype}{listed(shape)}"
        )
    if node.op == "input":
        index = node.attrs[0]
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            refuse(node, f"is numbered {index!r}")
    elif node.op == "const":
        check_number(node, node.attrs[0], node.dtype)
    elif node.op == "pad":
        check_number(node, node.attrs[3], node.dtype)
    elif node.op == "loop":
        verify_body(node)
    expected = expected_differentiable(node)
    if node.differentiable is not expected:
        refuse(node, f"is marked differentiable={node.differentiable}, not {expected}")


def verify_body(node: Node) -> None:
    """A loop's body is a legal graph over its own inputs."""
    body = node.attrs[0]
    try:
        check_body(body)
        for inner in acyclic_order(body.outputs):
            check_node(inner)
    except (VerifyError, IRError) as error:
        refuse(node, f"has a body that is not legal: {error}")


def refuse(node: Node, message: str) -> NoReturn:
    raise VerifyError(f"[{node.op}] {message}")


def same_shape(left: Shape, right: Shape) -> bool:
    return isinstance(left, tuple) and left == right


def listed(shape: Any) -> str:
    return f"[{', '.join(map(str, shape))}]" if isinstance(shape, tuple) else repr(shape)


def check_number(node: Node, value: Any, dtype: DType) -> None:
    """A constant is a Python number that the dtype holds; floats may still have to be rounded."""
    if isinstance(value, numpy.generic) or not isinstance(value, (bool, int, float, complex)):
        refuse(node, f"holds {value!r}, a {type(value).__name__}, and must hold a Python number")
    if dtype.kind == "bool":
        fits = value in (0, 1) and isinstance(value, (bool, int))
    elif dtype.is_integer:
        low, high = dtype.limits()
        fits = isinstance(value, int) and low <= value <= high
    elif dtype.is_complex:
        fits = True
    else:
        fits = not isinstance(value, complex)
    if not fits:
        refuse(node, f"holds {value!r}, which {dtype.name} cannot represent")


def expected_differentiable(node: Node) -> bool:
    """The rule by which `build` sets the flag."""
    if node.op == "variable":
        return node.dtype.is_differentiable
    if node.op == "stop_gradient" or not node.dtype.is_differentiable:
        return False
    return any(operand.differentiable for operand in node.inputs)
