"""`scan`: a loop over the steps of tensors as one operation, compiled once for any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core import graph, looped
from lazygrad._core.context import fail, now, operation
from lazygrad._core.nests import parts_of, replace, tensors_in
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad_compiler.ir.node import Node

__all__ = ["scan"]


@operation
def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    *,
    length: int | None = None,
    dim: int = 0,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Calls `carry, y = fn(carry, x)` for one step after the other, as one operation.

    init: the first carry; xs: the steps, along `dim`.  Both are tensors, or tuples, lists and dicts
    of tensors.  Returns the last carry and all `y` stacked along `dim`, nests as fn makes them (y
    may be None, too).  xs None: `length` steps, and x is None.  reverse: from the last step to the
    first; ys stay at the places of their xs.

    fn is called once, on tensors without values, and becomes the body of a loop in the compiled
    program: neither compile time nor the size of the graph depend on the number of steps.  It may
    read tensors from outside, and gradients flow to them; random numbers that it draws differ from
    step to step.  It may not look at values nor change tensors from outside.  Raises TensorError
    where the carry changes its dtype or shape, or steps differ in number.
    """
    if parts_of(init) is None and not isinstance(init, Tensor):
        raise fail("scan", f"the first carry is a {type(init).__name__}",
                   "Give a tensor, or a tuple, list or dict of tensors.", TypeError)
    states = [node_of(tensor) for tensor in tensors_in(init)]
    series = [_steps_first(tensor, dim) for tensor in tensors_in(xs)]
    sizes = {value.shape[0] for value in series} | ({length} if length is not None else set())
    if len(sizes) != 1:
        counts = ", ".join(map(str, sorted(sizes))) or "none is given"
        raise fail("scan", f"the number of steps is not one number: {counts}",
                   "All xs have the same size along dim; without xs, give length.")
    count = sizes.pop()
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise fail("scan", f"length is a number of steps, not {count!r}")
    nests: list[Any] = []

    def step(inside: list[Node], steps: list[Node]) -> tuple[list[Node], list[Node]]:
        carry, step_of = iter(inside), iter(steps)
        line, now.location = now.location, ()  # what the function records has lines of its own
        try:
            returned = fn(replace(init, lambda _: wrap(next(carry))),
                          replace(xs, lambda _: wrap(next(step_of))))
        finally:
            now.location = line
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise fail("scan", f"the function returns a {type(returned).__name__}",
                       "Return the next carry and what the step gives: (carry, y).", TypeError)
        following, given = returned
        if _outline(following) != _outline(init):
            raise fail("scan", f"the carry begins as {_outline(init)} and becomes "
                       f"{_outline(following)}", "A carry keeps its structure.", TypeError)
        nests.append(given)
        return ([node_of(each) for each in tensors_in(following)],
                [node_of(each) for each in tensors_in(given)])

    last, given = looped.loop("scan", step, states, series, count, reverse)
    carried, stacked = iter(last), iter(given)
    return (replace(init, lambda _: wrap(next(carried))),
            replace(nests[0], lambda _: wrap(_steps_at(next(stacked), dim))))


def _steps_first(tensor: Tensor, dim: int) -> Node:
    if not -tensor.ndim <= dim < tensor.ndim:
        raise fail("scan", f"dim {dim} does not exist in {tuple(tensor.shape)}", kind=IndexError)
    node, axis = node_of(tensor), dim % tensor.ndim
    return graph.permute(node, [axis, *(k for k in range(node.ndim) if k != axis)])


def _steps_at(stacked: Node, dim: int) -> Node:
    """The steps moved from the front to the axis `dim` of the result."""
    if not -stacked.ndim <= dim < stacked.ndim:
        raise fail("scan", f"dim {dim} does not exist in results with {stacked.ndim} axes",
                   kind=IndexError)
    order = list(range(1, stacked.ndim))
    order.insert(dim % stacked.ndim, 0)
    return graph.permute(stacked, order)


def _outline(nest: Any) -> str:
    """The structure of a nest, for messages and to compare."""
    items = parts_of(nest)
    if isinstance(nest, Tensor):
        return "a tensor"
    if items is None:
        return type(nest).__name__
    names = list(nest) if isinstance(nest, dict) else None
    inner = [_outline(item) for item in items]
    shown = [f"{name}: {each}" for name, each in zip(names, inner, strict=True)] if names else inner
    return f"{type(nest).__name__}({', '.join(shown)})"
