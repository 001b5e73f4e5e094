"""Reverse-mode differentiation: from cotangents of the outputs to gradients of chosen nodes.

The graph is the tape. One walk finds the nodes that lie between the outputs and a wanted node,
a second goes through them backwards and lets each rule of `vjp.py` pass the cotangent on. What
comes out are nodes like any others: differentiate them again for higher orders. No recursion:
depth costs no stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lazygrad_compiler.autodiff.vjp import BLOCKING, pull_back
from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.autodiff.vjp_loop import pull_back_loop
from lazygrad_compiler.ir.loop import Key, Loop, siblings
from lazygrad_compiler.ir.node import IRError, Node, merge_locations, topological
from lazygrad_compiler.ir.ops import listed

listeners: list[Callable[[Sequence[Node], Sequence[Node | None]], None]] = []
"""Told of each pass, as listener(outputs, gradients): the stage `grad` of a dump is read
off here.
"""


def backward(outputs: Sequence[Node], cotangents: Sequence[Node],
             wanted: Sequence[Node]) -> list[Node | None]:
    """The gradient of each wanted node: the sum over outputs of cotangent times derivative.

    Each cotangent has the dtype and shape of its output (else IRError), each gradient those of its
    node.  None where no output depends on the node through floating-point operations; zeros where
    one does but only through ops that are flat (sign, floor, …).  Contributions are added in a
    fixed order: that of the last user first.
    """
    gradients = derive(outputs, cotangents, wanted)
    for listener in listeners:
        listener(outputs, gradients)
    return gradients


def derive(outputs: Sequence[Node], cotangents: Sequence[Node],
           wanted: Sequence[Node]) -> list[Node | None]:
    """`backward` without an audience: what it is for the body of a loop.

    The results of one loop pull back together, when the first of them in order is reached: by then
    all users of all of them have been.
    """
    received = collect(outputs, cotangents)
    order = between(outputs, wanted)
    on_path = set(order)
    asked = set(wanted)
    totals: dict[Node, Node] = {}
    first_results: dict[Key, Node] = {}
    for current in order:
        if current.op == "loop":
            first_results.setdefault(siblings(current), current)
    of_loops: dict[Key, dict[int, Node]] = {key: {} for key in first_results}
    for current in reversed(order):
        contributions = received.pop(current, None)
        if contributions is not None:
            total = add_up(contributions, current)
            if current in asked:
                totals[current] = total
        needed = tuple(value in on_path for value in current.inputs)
        if current.op in BLOCKING or not any(needed):
            continue
        if current.op == "loop":
            of_loop = of_loops[siblings(current)]
            if contributions is not None:
                of_loop[current.attr("part")] = total
            if not of_loop or first_results[siblings(current)] is not current:
                continue
            pulled = pull_back_loop(Loop.of(current), of_loop, needed, derive)
        elif contributions is not None:
            pulled = pull_back(current, total, needed)
        else:
            continue
        for value, needs, gradient in zip(current.inputs, needed, pulled, strict=True):
            if needs and gradient is not None:
                received.setdefault(value, []).append(gradient)
    return [totals[node] if node in totals
            else Builder(node.location).zeros(node) if node in on_path else None
            for node in wanted]


def collect(outputs: Sequence[Node], cotangents: Sequence[Node]) -> dict[Node, list[Node]]:
    """The cotangents by output, checked."""
    if len(outputs) != len(cotangents):
        raise IRError(f"[backward] {len(outputs)} outputs, but {len(cotangents)} cotangents")
    received: dict[Node, list[Node]] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent.dtype is not output.dtype or cotangent.shape != output.shape:
            raise IRError(
                f"[backward] {output.op} is {output.dtype.name} {listed(output.shape)}, "
                f"its cotangent {cotangent.dtype.name} {listed(cotangent.shape)}")
        received.setdefault(output, []).append(cotangent)
    return received


def between(outputs: Sequence[Node], wanted: Sequence[Node]) -> list[Node]:
    """The nodes on differentiable paths from a wanted node to an output, inputs before users."""
    asked = {node for node in wanted if node.dtype.is_differentiable}
    if not asked:
        return []
    # Inputs are older than their users: nothing older than all of the wanted depends on them.
    oldest = min(node.serial for node in asked)

    def is_end(node: Node) -> bool:
        return node.serial <= oldest or not node.dtype.is_differentiable or node.op in BLOCKING

    reaching: set[Node] = set()
    order: list[Node] = []
    for current in topological(outputs, stop=is_end):
        if current in asked or (not is_end(current)
                                and not reaching.isdisjoint(current.inputs)):
            reaching.add(current)
            order.append(current)
    return order


def add_up(contributions: Sequence[Node], forward: Node) -> Node:
    """Their sum, first to last; where they are zero but for parts of an axis which do not overlap
    and leave nothing out, as the gradients of a tensor cut into pieces are, the parts joined.
    """
    lines = forward.location  # what goes into the steps of a loop has none
    at = Builder(lines or merge_locations(*(each.location for each in contributions)))
    joined = _parts_of_an_axis(contributions)
    if joined is not None:
        axis, parts = joined
        return at.concat(parts, axis)
    total = contributions[0]
    for contribution in contributions[1:]:
        total = at.add(total, contribution)
    return total


def _parts_of_an_axis(contributions: Sequence[Node]) -> tuple[int, list[Node]] | None:
    """(axis, the parts in order) of contributions that are its parts padded with zeros."""
    if len(contributions) < 2 or any(
        each.op != "pad" or any(each.attrs[2]) or each.attrs[3] != 0 for each in contributions
    ):
        return None
    first = contributions[0]
    padded = {k for each in contributions for k in range(first.ndim)
              if each.attrs[0][k] or each.attrs[1][k]}
    if len(padded) != 1:
        return None
    axis = padded.pop()
    ordered = sorted(contributions, key=lambda each: each.attrs[0][axis])
    end = 0
    for each in ordered:
        if each.attrs[0][axis] != end:
            return None
        end += each.inputs[0].shape[axis]
    if end != first.shape[axis]:
        return None
    return axis, [each.inputs[0] for each in ordered]
