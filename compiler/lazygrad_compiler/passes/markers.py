"""strip-markers: `variable` and `stop_gradient` are for autodiff, which is done by now, and a
`transfer` that the runtime left is within one device.
"""

from __future__ import annotations

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.passes.rewrite import Any, Op, RewriteRules

rules = RewriteRules("strip-markers")


@rules.add(Op(("variable", "stop_gradient", "transfer"), Any("x")))
def strip_marker(x: Node) -> Node:
    return x
