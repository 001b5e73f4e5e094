"""Gradients of the ops between complex numbers and their parts.

The gradient of a real loss with respect to z = x + iy is dL/dx + i dL/dy, PyTorch's convention.  So
taking numbers apart and putting them together are each other's gradient, and |z| has z / |z|.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir.node import Node


def scaled(at: Builder, value: Node, factor: Node) -> Node:
    """A complex value times a real one, part by part."""
    return at.op("complex", at.mul(factor, at.op("real", value)),
                 at.mul(factor, at.op("imag", value)))


def real(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.op("complex", g, at.zeros(g)),)


def imag(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.op("complex", at.zeros(g), g),)


def complex_(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.op("real", g) if needed[0] else None, at.op("imag", g) if needed[1] else None)


def conj(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.conj(g),)


def view_as_real(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.op("view_as_complex", g),)


def view_as_complex(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.op("view_as_real", g),)


def abs_(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    x, = forward.inputs
    direction = at.op("sign", x)
    return (scaled(at, direction, g) if x.dtype.is_complex else at.mul(g, direction),)


def sign(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Of real numbers flat; of complex ones, what g has across the direction, over |z|."""
    x, = forward.inputs
    if not x.dtype.is_complex:
        return (None,)
    size = at.op("abs", x)
    inverse = at.where(at.compare("eq", size, 0), at.zeros(size),
                       at.div(at.like(size, 1), size))
    along = at.op("real", at.mul(at.conj(forward), g))
    across = at.sub(g, scaled(at, forward, along))
    return (scaled(at, across, inverse),)


RULES: dict[str, Rule] = {
    "real": real, "imag": imag, "complex": complex_, "conj": conj, "view_as_real": view_as_real,
    "view_as_complex": view_as_complex, "abs": abs_, "sign": sign,
}
