"""The table of gradients: how the cotangent of each differentiable op reaches its inputs.

`VJP[op](at, forward, cotangent, needed)` gives one cotangent (or None) for each input: the
vector-Jacobian product, written as nodes of the same IR, so that it can be differentiated
again. `needed` says which inputs matter; rules skip work for the others. `at` makes nodes with
the forward op's location.

Complex numbers follow PyTorch: the gradient is that of a real loss with respect to the
conjugate. For a holomorphic op that is conj(f'(z)) * g = conj(f'(z) * conj(g)), so `pull_back`
conjugates before and after the rules of `HOLOMORPHIC`, and the rules themselves read as for
real numbers.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff import (
    vjp_attention,
    vjp_complex,
    vjp_contraction,
    vjp_elementwise,
    vjp_indexed,
    vjp_library,
    vjp_movement,
    vjp_reduction,
    vjp_scan,
    vjp_sort,
    vjp_special,
)
from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir.node import IRError, Node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY


def variable(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (g,)


def transfer(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The cotangent goes back to where the value came from."""
    device, source = forward.attrs
    return (at.op("transfer", g, attrs=(source, device)) if source else g,)


VJP: dict[str, Rule] = {
    **vjp_elementwise.RULES,
    **vjp_complex.RULES,
    **vjp_movement.RULES,
    **vjp_reduction.RULES,
    **vjp_contraction.RULES,
    **vjp_indexed.RULES,
    **vjp_library.RULES,
    **vjp_attention.RULES,
    **vjp_scan.RULES,
    **vjp_sort.RULES,
    **vjp_special.RULES,
    "variable": variable,
    "transfer": transfer,
}

BLOCKING = frozenset({"stop_gradient", "bitcast"})
"""Ops of floating-point values that no gradient passes."""

HOLOMORPHIC = frozenset({*ELEMENTARY_UNARY, "sqrt", "mul", "div", "pow", "prod", "dot", "conv",
                         "scatter", "scan"})
"""Ops whose derivative depends on values that may be complex."""


def pull_back(forward: Node, cotangent: Node, needed: Needed) -> Gradients:
    """Cotangents of a node's inputs.  Raises IRError where the op has no gradient."""
    rule = VJP.get(forward.op)
    if rule is None:
        raise IRError(f"[{forward.op}] has no gradient")
    at = Builder(forward.location)
    if not forward.dtype.is_complex or forward.op not in HOLOMORPHIC:
        return rule(at, forward, cotangent, needed)
    gradients = rule(at, forward, at.conj(cotangent), needed)
    return tuple(None if gradient is None else at.conj(gradient) for gradient in gradients)
