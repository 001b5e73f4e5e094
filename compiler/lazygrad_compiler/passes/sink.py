"""sink-movement: movement goes below elementwise work, towards the outputs.

f(expand(x)) becomes expand(f(x)): computed before repeating.  f(reshape(a), reshape(b)) becomes
reshape(f(a, b)), and likewise permute and flip: chains of elementwise operations meet, and can be
one kernel.  Constants have any shape, so they never stand in the way.
"""

from __future__ import annotations

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes.fold import ELEMENTWISE
from lazygrad_compiler.passes.rewrite import Op, RewriteRules, apply_op, expand, full, make

rules = RewriteRules("sink-movement")

MOVED = frozenset(["expand", "reshape", "permute", "flip"])


def moving(value: Node) -> list[Node]:
    """The operands that are not constant, if all are results of one kind of movement; else none."""
    operands = [operand for operand in value.inputs if operand.op != "const"]
    if not operands or operands[0].op not in MOVED:
        return []
    kind = operands[0].op
    return operands if all(operand.op == kind for operand in operands) else []


@rules.add(Op(ELEMENTWISE, ..., name="root", when=lambda value: bool(moving(value))))
def movement_below(root: Node) -> Node | None:
    operands = moving(root)
    first = operands[0]
    if first.op == "expand":
        return expand_below(root, operands)
    shape = first.inputs[0].shape
    for operand in operands[1:]:
        if operand.inputs[0].shape != shape or operand.attrs != first.attrs:
            return None
    inputs = [full(operand.attrs[0], operand.dtype, shape) if operand.op == "const"
              else operand.inputs[0] for operand in root.inputs]
    result = apply_op(root, *inputs)
    return make(first.op, result, **dict(zip(OPS[first.op].attributes, first.attrs, strict=True)))


def expand_below(root: Node, operands: list[Node]) -> Node | None:
    """Axes along which every operand is repeated are repeated afterwards."""
    shape = tuple(1 if all(operand.inputs[0].shape[axis] == 1 for operand in operands) else size
                  for axis, size in enumerate(root.shape))
    if shape == root.shape:
        return None
    inputs = [full(operand.attrs[0], operand.dtype, shape) if operand.op == "const"
              else expand(operand.inputs[0], shape) for operand in root.inputs]
    return expand(apply_op(root, *inputs), root.shape)
