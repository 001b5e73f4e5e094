"""Gradients of scans.

add        a scan the other way.
mul        the total of what flows into the products from here on, divided by the element.  Where
           the element is 0, the product without it: the first and the second zero of a line have
           products of their own (a third has derivatives of third order only).
max, min   to the element that the extremum came from, the latest among equals, as PyTorch does.
logaddexp  the cotangent weighted with exp(x - y), by a scan of logarithms the other way, positive
           and negative cotangents apart, so that nothing overflows.
"""

from __future__ import annotations

import math

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node


def scanned(at: Builder, value: Node, axis: int, combine: str, reverse: bool) -> Node:
    return at.op("scan", value, attrs=(axis, combine, reverse))


def scan_add(at: Builder, forward: Node, g: Node) -> Node:
    axis, _, reverse = forward.attrs
    return scanned(at, g, axis, "add", not reverse)


def scan_mul(at: Builder, forward: Node, g: Node) -> Node:
    """d/dx_i = sum over k >= i of g_k * (y_k without x_i).

    For x_i != 0 that is (scan of g * y) / x_i; every y_k behind a zero is 0, and so is what it
    adds.  For the first zero of a line, y is computed again with 1 in its place; for the second
    likewise, whose first derivative is 0 but whose mixed one with the first zero is not.
    """
    axis, _, reverse = forward.attrs
    value = forward.inputs[0]
    zero, one = at.zeros(value), at.like(value, 1)
    is_zero = at.compare("eq", value, 0)
    count = scanned(at, at.cast(is_zero, dtypes.int64), axis, "add", reverse)

    def total_without(place: Node) -> Node:
        products = scanned(at, at.where(place, one, value), axis, "mul", reverse)
        return scanned(at, at.mul(g, products), axis, "add", not reverse)

    flowing = scanned(at, at.mul(g, forward), axis, "add", not reverse)
    result = at.div(flowing, at.where(is_zero, one, value))
    result = at.where(is_zero, zero, result)
    for number in (1, 2):
        place = at.op("and", is_zero, at.compare("eq", count, number))
        result = at.where(place, total_without(place), result)
    return result


def winners(at: Builder, value: Node, result: Node, axis: int, reverse: bool) -> Node:
    """int64: for each element of a running extremum the position that it came from, the latest
    among equals (of NaNs, too).
    """
    won = at.op("or", at.compare("eq", value, result), at.compare("ne", value, value))
    places = at.op("iota", attrs=(axis, dtypes.int64, value.shape))
    if reverse:
        last = value.shape[axis] - 1
        return scanned(at, at.where(won, places, at.like(places, last)), axis, "min", True)
    return scanned(at, at.where(won, places, at.zeros(places)), axis, "max", False)


def scan_extremum(at: Builder, forward: Node, g: Node) -> Node:
    axis, _, reverse = forward.attrs
    value = forward.inputs[0]
    from_where = winners(at, value, forward, axis, reverse)
    indices = [
        from_where if k == axis else at.op("iota", attrs=(k, dtypes.int64, value.shape))
        for k in range(value.ndim)
    ]
    axes = tuple(range(value.ndim))
    return at.op("scatter", at.zeros(value), g, *indices, attrs=(axes, "add"))


def scan_logaddexp(at: Builder, forward: Node, g: Node) -> Node:
    """exp(x_i + log(sum over k >= i of exp(log g_k - y_k))); totals of nothing add nothing.

    The logarithm of a zero cotangent is -inf, which no derivative passes: second derivatives with
    respect to cotangents that are exactly 0 are 0, as in PyTorch.
    """
    axis, _, reverse = forward.attrs
    value = forward.inputs[0]
    nothing, one, zero = at.like(value, -math.inf), at.like(value, 1), at.zeros(value)
    some = at.compare("ne", forward, -math.inf)

    def part(size: Node) -> Node:
        there = at.op("and", at.compare("lt", zero, size), some)
        logs = at.sub(at.op("log", at.where(there, size, one)), at.where(there, forward, zero))
        total = scanned(at, at.where(there, logs, nothing), axis, "logaddexp", not reverse)
        finite = at.compare("ne", total, -math.inf)
        weighted = at.op("exp", at.add(at.where(finite, total, zero), value))
        return at.where(finite, weighted, zero)

    return at.sub(part(g), part(at.neg(g)))


SCANS = {
    "add": scan_add,
    "mul": scan_mul,
    "max": scan_extremum,
    "min": scan_extremum,
    "logaddexp": scan_logaddexp,
}


def scan(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (SCANS[forward.attrs[1]](at, forward, g),)


RULES: dict[str, Rule] = {"scan": scan}
