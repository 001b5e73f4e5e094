"""Products of matrices and vectors: matmul in all broadcast forms, linear, einsum."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.folding import folded
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap
from lazygrad.functional._attention_node import WEIGHTS, attention_of_product
from lazygrad.functional._operands import as_node, axis_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["matmul", "mm", "bmm", "mv", "inner", "einsum", "tensordot", "linear", "bilinear",
           "chain_matmul"]


def contract(left: Node, right: Node, left_batch: Sequence[int], right_batch: Sequence[int],
             left_contract: Sequence[int], right_contract: Sequence[int]) -> Node:
    """The `dot` node; bools are refused there."""
    return graph.make("dot", left, right, attrs=(
        tuple(left_batch), tuple(right_batch), tuple(left_contract), tuple(right_contract)))


def _check_dtypes(name: str, *nodes: Node) -> None:
    if any(node.dtype is not nodes[0].dtype for node in nodes):
        raise fail(name, "dtypes differ: " + " and ".join(node.dtype.name for node in nodes),
                   "Convert one with .to(...).")
    if nodes[0].dtype is dtypes.bool_:
        raise fail(name, "is not defined for bool", "Convert with .float().")


def matmul_node(left: Node, right: Node, name: str = "matmul") -> Node:
    """left @ right with PyTorch's rules for vectors and batches."""
    _check_dtypes(name, left, right)
    if not left.shape or not right.shape:
        raise fail(
            name,
            f"{listed(left.shape)} @ {listed(right.shape)}: both need at least one axis",
            "Use * for numbers.",
        )
    inner, other = left.shape[-1], right.shape[-2] if right.ndim > 1 else right.shape[0]
    if inner != other:
        hint = "Did you mean x @ w.T?" if right.ndim == 2 and right.shape[-1] == inner else ""
        raise fail(name, f"{listed(left.shape)} @ {listed(right.shape)}: inner sizes {inner} and "
                   f"{other} differ", hint)
    if left.op in WEIGHTS:
        attention = attention_of_product(left, right)
        if attention is not None:
            return attention
    if left.ndim == 1 or right.ndim <= 2:
        if left.ndim == 1 and right.ndim > 2:
            batch = right.ndim - 2
            return contract(right, left, (), (), (batch,), (0,))
        return contract(left, right, (), (), (left.ndim - 1,), (max(right.ndim - 2, 0),))
    if left.ndim == 2:
        left = graph.broadcast(left, (1,) * (right.ndim - 2) + left.shape)
    shape = graph.broadcast_shape(name, left.shape[:-2], right.shape[:-2])
    left = graph.broadcast(left, (*shape, *left.shape[-2:]))
    right = graph.broadcast(right, (*shape, *right.shape[-2:]))
    axes = tuple(range(len(shape)))
    return contract(left, right, axes, axes, (len(shape) + 1,), (len(shape),))


def _matmul(input: Tensor, other: Tensor) -> Tensor:
    return wrap(matmul_node(as_node("matmul", input), as_node("matmul", other)))


_folded_matmul = folded(_matmul)


@method
def matmul(input: Tensor, other: Tensor, *, out: Any = None) -> Tensor:
    """Matrix product; vectors as rows or columns, leading axes broadcast."""
    # A template knows its operands by their shapes only, and would not see attention written out.
    if isinstance(input, Tensor) and input._cell.node.op in WEIGHTS:
        return _matmul(input, other)
    return _folded_matmul(input, other)


def _exact(name: str, input: Tensor, other: Tensor, ranks: tuple[int, int]) -> Tensor:
    if (input.ndim, other.ndim) != ranks:
        raise fail(name, f"takes tensors of {ranks[0]} and {ranks[1]} axes, not "
                   f"{listed(input.shape)} and {listed(other.shape)}", "Use @ for other forms.")
    if name == "bmm" and input.shape[0] != other.shape[0]:
        raise fail(name, f"batch sizes {input.shape[0]} and {other.shape[0]} differ")
    return wrap(matmul_node(node_of(input), node_of(other), name))


@method
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    return _exact("mm", input, mat2, (2, 2))


@method
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices."""
    return _exact("bmm", input, mat2, (3, 3))


@method
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector."""
    return _exact("mv", input, vec, (2, 1))


@method
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last axes."""
    a, b = node_of(input), node_of(other)
    if not a.shape or not b.shape:
        return wrap(graph.mul(a, b))
    _check_dtypes("inner", a, b)
    return wrap(contract(a, b, (), (), (a.ndim - 1,), (b.ndim - 1,)))


@operation
def chain_matmul(*matrices: Tensor) -> Tensor:
    """Product of several matrices, from the left."""
    for each in matrices:
        if node_of(each).ndim != 2:
            raise fail("chain_matmul", f"takes matrices, not {listed(each.shape)}",
                       "linalg.multi_dot also takes vectors at the ends.")
    if not matrices:
        raise fail("chain_matmul", "needs at least one matrix")
    result = node_of(matrices[0])
    for matrix in matrices[1:]:
        result = matmul_node(result, node_of(matrix))
    return wrap(result)


@operation
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over the given axes of both (a number: the last of a, the first of b)."""
    left, right = node_of(a), node_of(b)
    _check_dtypes("tensordot", left, right)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(left.ndim, right.ndim):
            raise fail("tensordot", f"{dims} axes of {listed(left.shape)} and "
                       f"{listed(right.shape)}", "dims is at most the number of axes of either.")
        left_axes = tuple(range(left.ndim - dims, left.ndim))
        right_axes = tuple(range(dims))
    else:
        first, second = ([each] if isinstance(each, int) else each for each in dims)
        left_axes = tuple(axis_of("tensordot", axis, left.ndim) for axis in first)
        right_axes = tuple(axis_of("tensordot", axis, right.ndim) for axis in second)
        if len(left_axes) != len(right_axes):
            raise fail("tensordot", f"{len(left_axes)} axes of one, {len(right_axes)} of the other")
    # A summed axis of size 1 goes with any size.
    for x, y in zip(left_axes, right_axes, strict=True):
        if left.shape[x] != right.shape[y]:
            if 1 not in (left.shape[x], right.shape[y]):
                raise fail("tensordot", f"axis {x} of {listed(left.shape)} and axis {y} of "
                           f"{listed(right.shape)} differ in size")
            size = left.shape[x] * right.shape[y]
            left = graph.broadcast(left, (*left.shape[:x], size, *left.shape[x + 1:]))
            right = graph.broadcast(right, (*right.shape[:y], size, *right.shape[y + 1:]))
    return wrap(contract(left, right, (), (), left_axes, right_axes))


@operation
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias, with weight (out, in)."""
    x, w = node_of(input), node_of(weight)
    _check_dtypes("linear", x, w)
    if not x.shape or x.shape[-1] != w.shape[-1]:
        raise fail(
            "linear",
            f"input {listed(x.shape)} ends in {x.shape[-1] if x.shape else 'nothing'}, "
            f"the weight {listed(w.shape)} takes {w.shape[-1]}",
            "The last axis of the input must be in_features.",
        )
    if w.ndim > 2:
        raise fail("linear", f"the weight is (out, in) or (in,), not {listed(w.shape)}")
    result = contract(x, w, (), (), (x.ndim - 1,), (w.ndim - 1,))
    if bias is not None:
        result = graph.add(result, node_of(bias))
    return wrap(result)


@operation
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1 @ weight[k] @ x2 for each k, plus bias; weight (out, in1, in2)."""
    first, second, w = shape_of(input1), shape_of(input2), shape_of(weight)
    if len(w) != 3 or not first or not second or (*first[:-1], *w[1:]) != (
            *second[:-1], first[-1], second[-1]):
        raise fail("bilinear", f"inputs {listed(first)} and {listed(second)} with a weight "
                   f"{listed(w)} do not fit",
                   "They are (…, in1), (…, in2), the same in …, and (out, in1, in2).")
    if bias is not None and tuple(bias.shape) != w[:1]:
        raise fail("bilinear", f"the bias {listed(bias.shape)} for {w[0]} outputs",
                   "It is a vector with one number for each.")
    result = einsum("...i,kij,...j->...k", input1, weight, input2)
    return result if bias is None else result + bias


def _from_sublists(first: Any, rest: tuple) -> tuple[str, tuple]:
    """einsum(a, [0, 1], b, [1, 2], [0, 2]) as equation and operands."""
    given = (first, *rest)
    pairs, output = given[:len(given) // 2 * 2], given[len(given) // 2 * 2:]

    def letters(numbers: Any) -> str:
        result = ""
        for number in numbers:
            if number is ...:
                result += "..."
            elif isinstance(number, int) and 0 <= number < 52:
                result += _LETTERS[number]
            else:
                raise fail("einsum", f"{number!r} numbers no axis", "Axes are 0 to 51, or ....")
        return result

    equation = ",".join(letters(numbers) for numbers in pairs[1::2])
    if output:
        equation += "->" + letters(output[0])
    return equation, pairs[::2]


_LETTERS = string.ascii_uppercase + string.ascii_lowercase


@operation
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products by letters, as in "bij,bjk->bik"; "..." stands for axes not named.

    Also as operands each followed by a list of axis numbers: einsum(a, [0, 1], b, [1, 2], [0, 2]).
    """
    if not isinstance(equation, str):
        equation, operands = _from_sublists(equation, operands)
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        raise fail("einsum", "needs at least one operand")
    inputs, output = _letters(equation.replace(" ", ""), [node_of(each) for each in operands])
    _check_dtypes("einsum", *(node_of(each) for each in operands))
    nodes = [_diagonals(node_of(each), letters)
             for each, letters in zip(operands, inputs, strict=True)]
    left, names = nodes[0]
    for position, (right, right_names) in enumerate(nodes[1:], start=1):
        needed = set(output).union(*(names_ for _, names_ in nodes[position + 1:]))
        left, names = _contract_pair(left, names, right, right_names, needed)
    gone = [axis for axis, name in enumerate(names) if name not in output]
    left = graph.reduce("sum", left, gone)
    names = [name for name in names if name in output]
    return wrap(graph.permute(left, [names.index(name) for name in output]))


def _letters(equation: str, nodes: list[Node]) -> tuple[list[list[str]], list[str]]:
    """The axis names of each operand and of the result; those of "..." are digits."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise fail("einsum", f"{equation!r} names {len(terms)} operands, {len(nodes)} were given")
    inputs, most = [], 0
    for term, node in zip(terms, nodes, strict=True):
        before, dots, after = term.partition("...")
        for letter in before + after:
            if letter not in _LETTERS:
                raise fail("einsum", f"{letter!r} in {equation!r} names no axis",
                           "Names are letters; '...' stands for the rest, once an operand.")
        extra = node.ndim - len(before) - len(after) if dots else 0
        if extra < 0 or (not dots and len(term) != node.ndim):
            raise fail("einsum", f"{term!r} does not name the axes of {listed(node.shape)}")
        most = max(most, extra)
        inputs.append([*before, *(str(extra - k) for k in range(extra)), *after])
    rest = [str(most - k) for k in range(most)]
    if arrow:
        before, dots, after = right.partition("...")
        output = [*before, *(rest if dots else []), *after]
    else:
        used = [name for names in inputs for name in names if name not in rest]
        output = rest + sorted(name for name in set(used) if used.count(name) == 1)
    if len(set(output)) != len(output):
        raise fail("einsum", f"the result of {equation!r} names an axis twice")
    for name in output:
        if not any(name in names for names in inputs):
            raise fail("einsum", f"{name!r} in the result of {equation!r} is in no operand")
    return inputs, output


def _diagonals(node: Node, names: list[str]) -> tuple[Node, list[str]]:
    """The node with repeated names of one operand reduced to their diagonal."""
    names = list(names)
    for name in list(dict.fromkeys(names)):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if node.shape[first] != node.shape[second]:
                raise fail("einsum", f"axis {name!r} is repeated in {listed(node.shape)} with "
                           f"sizes {node.shape[first]} and {node.shape[second]}")
            same = graph.make("eq", graph.iota(first, node.shape), graph.iota(second, node.shape))
            node = graph.reduce("sum", graph.where(same, node, 0), (second,))
            del names[second]
    return node, names


def _contract_pair(left: Node, left_names: list[str], right: Node, right_names: list[str],
                   needed: set[str]) -> tuple[Node, list[str]]:
    """One product; names that nothing needs any more are summed over."""
    left, left_names = _sum_out(left, left_names, needed | set(right_names))
    right, right_names = _sum_out(right, right_names, needed | set(left_names))
    shared = [name for name in left_names if name in right_names]
    for name in shared:
        a, b = left_names.index(name), right_names.index(name)
        if left.shape[a] != right.shape[b]:
            if 1 not in (left.shape[a], right.shape[b]):
                raise fail(
                    "einsum", f"axis {name!r} has sizes {left.shape[a]} and {right.shape[b]}"
                )
            size = max(left.shape[a], right.shape[b])
            left = graph.broadcast(left, (*left.shape[:a], size, *left.shape[a + 1:]))
            right = graph.broadcast(right, (*right.shape[:b], size, *right.shape[b + 1:]))
    batch = [name for name in shared if name in needed]
    summed = [name for name in shared if name not in needed]
    result = contract(left, right, [left_names.index(name) for name in batch],
                      [right_names.index(name) for name in batch],
                      [left_names.index(name) for name in summed],
                      [right_names.index(name) for name in summed])
    return result, [*batch, *(name for name in left_names if name not in shared),
                    *(name for name in right_names if name not in shared)]


def _sum_out(node: Node, names: list[str], needed: set[str]) -> tuple[Node, list[str]]:
    gone = [axis for axis, name in enumerate(names) if name not in needed]
    return graph.reduce("sum", node, gone), [name for name in names if name in needed]
