"""Attention that is products and a softmax in the end: where it is, and why it is no one kernel.

In: an optimised graph.  Out: regions of it, from the product of queries and keys to the product
with the values (or, backward, to the gradients), each with a `Reason`.  Only who explains a
program looks for them.

What is looked for is exp(scores - something of each row), scores that come from a product by
operations on single elements, and a second product that sums over the keys what comes from the
exponentials by multiplying only.  So the gradient of a cross entropy, which subtracts, is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lazygrad_compiler.fusion.attention import origin
from lazygrad_compiler.fusion.partition import Reason, is_free
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_attention import worth_finding
from lazygrad_compiler.ir.node import Graph, Node, topological
from lazygrad_compiler.ir.ops import OPS


@dataclass(frozen=True, slots=True)
class Region:
    """members: all that lies between the products, and they."""

    members: frozenset[Node]
    reason: Reason

    def has(self, producer: Node, consumer: Node) -> bool:
        """Whether one kernel of attention would have done both."""
        both = producer in self.members and consumer in self.members
        return both and (producer.op, consumer.op) != ("dot", "dot")


Attends = Callable[[DType, int, bool], bool]
"""Whether a target has kernels of attention for heads of a dtype and width, with dropout or not."""


def everything(dtype: DType, width: int, dropout: bool) -> bool:
    return True


def regions(graph: Graph, attends: Attends) -> list[Region]:
    """All attention that is none."""
    order = topological(graph.outputs)
    powers = [node for node in order if node.op == "exp" and node.inputs[0].op == "sub"]
    if not powers or not any(node.op == "dot" for node in order):
        return []
    program = _Program(order, frozenset(graph.outputs), attends)
    return [region for power in powers if (region := program.region(power)) is not None]


class _Program:
    """A graph with the readers of its values."""

    def __init__(self, order: list[Node], outputs: frozenset[Node], attends: Attends) -> None:
        self.outputs = outputs
        self.attends = attends
        self.readers: dict[Node, list[Node]] = {node: [] for node in order}
        for node in order:
            for value in dict.fromkeys(node.inputs):
                self.readers[value].append(node)

    def region(self, power: Node) -> Region | None:
        scores, row = power.inputs[0].inputs
        slopes: list[Node] = []
        if row.op not in ("expand", "reshape") or origin(row).size == scores.size:
            return None
        product = _product_behind(scores)
        if product is None:
            return None
        weights = self._weights(power)
        ends = self._products_of(weights)
        forward = [end for value, end in ends if _sums_over_keys(value, end)]
        starts = {product}
        for weight in weights:
            for reader in self.readers[weight]:
                inner = None
                if reader.op == "mul":
                    inner = _inner_product(_other(reader, weight), power)
                if inner is not None:
                    slopes.append(reader)
                    starts.add(inner)
        if not forward and not slopes:
            return None
        backward = [end for slope in slopes for _, end in self._products_of(self._weights(slope))]
        last = {*(end for _, end in ends), *backward}
        members = self._between(starts, last)
        return Region(members, self._reason(power, product, weights, forward, members))

    def _weights(self, power: Node) -> dict[Node, None]:
        """What comes from the exponentials by multiplying, dividing and choosing, with them."""
        found = {power: None}
        waiting = [power]
        while waiting:
            value = waiting.pop()
            for reader in self.readers[value]:
                if reader in found or reader.size != power.size:
                    continue
                keeps = is_free(reader) or reader.op in ("cast", "where")
                keeps = keeps or (reader.op == "div" and reader.inputs[0] is value)
                if reader.op == "mul":
                    factor = _other(reader, value)
                    keeps = power not in _by_element(factor)
                    keeps = keeps and _inner_product(factor, power) is None
                if keeps:
                    found[reader] = None
                    waiting.append(reader)
        return found

    def _products_of(self, values: Iterable[Node]) -> list[tuple[Node, Node]]:
        """(value, product that it is an operand of)."""
        return [(value, reader) for value in values for reader in self.readers[value]
                if reader.op == "dot"]

    def _between(self, starts: set[Node], ends: set[Node]) -> frozenset[Node]:
        """What lies on the ways from starts to ends that lead through no other product."""
        after, waiting = set(starts), list(starts)
        while waiting:
            for reader in self.readers[waiting.pop()]:
                if reader not in after:
                    after.add(reader)
                    if reader.op != "dot":
                        waiting.append(reader)
        before, waiting = set(ends), list(ends)
        while waiting:
            for value in waiting.pop().inputs:
                if value not in before:
                    before.add(value)
                    if value.op != "dot":
                        waiting.append(value)
        return frozenset(after & before)

    def _reason(self, power: Node, product: Node, weights: dict[Node, None],
                forward: list[Node], members: frozenset[Node]) -> Reason:
        if not _are_scaled_and_masked(power.inputs[0].inputs[0], product):
            return Reason.ATTENTION_SCORES
        dropout = any(_is_dropout(value) for value in weights)
        if forward and any(_is_changed(value, weights, dropout) for value in weights):
            return Reason.ATTENTION_WEIGHTS
        left = product.inputs[0]
        width = math.prod(left.shape[axis] for axis in product.attr("left_contract"))
        if not self.attends(left.dtype, width, False):
            return Reason.ATTENTION_TARGET
        if dropout and not self.attends(left.dtype, width, True):
            return Reason.ATTENTION_DROPOUT
        queries, keys = product.shape[-2:]
        if not worth_finding(queries, keys):
            return Reason.ATTENTION_SMALL
        inside = {value for value in members if value.op != "dot"} | {product}
        for value in inside:
            wanted = value in self.outputs or not members.issuperset(self.readers[value])
            if wanted and value.size == power.size:
                return Reason.ATTENTION_READ
        return Reason.ATTENTION_FORM


def _other(reader: Node, value: Node) -> Node:
    left, right = reader.inputs
    return right if left is value else left


def _by_element(value: Node, *ends: Node) -> Iterator[Node]:
    """What a value is made of by operations on single elements, as large as it; products end it,
    and so do the ends.
    """
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop()
        yield current
        if current in ends or not (is_free(current) or OPS[current.op].kind == "elementwise"):
            continue
        for each in current.inputs:
            if each.size == value.size and each not in seen:
                seen.add(each)
                waiting.append(each)


def _product_behind(value: Node, *ends: Node) -> Node | None:
    """The product that a value is made of."""
    return next((each for each in _by_element(value, *ends) if each.op == "dot"), None)


def _inner_product(factor: Node, power: Node) -> Node | None:
    """In a factor of the gradient of a softmax, (product - something of each row): that product."""
    for each in _by_element(factor, power):
        if each.op == "sub":
            return _product_behind(each.inputs[0], power)
    return None


def _sums_over_keys(value: Node, product: Node) -> bool:
    contracted = product.attr(
        "left_contract" if product.inputs[0] is value else "right_contract")
    return contracted == (value.ndim - 1,)


def _is_dropout(value: Node) -> bool:
    """Whether a step of the weights leaves some by chance."""
    if value.op != "where":
        return False
    return any(origin(each).op == "random_bits" for each in _by_element(value.inputs[0]))


def _is_changed(value: Node, weights: dict[Node, None], dropout: bool) -> bool:
    """Whether a step of the weights is more than the division by their sum, and dropout."""
    if value.op == "where":
        return not _is_dropout(value)
    if value.op != "mul":
        return False
    factor = value.inputs[1] if value.inputs[0] in weights else value.inputs[0]
    if dropout and origin(factor).op == "const":
        return False
    return origin(factor).op != "div" and origin(factor).size == value.size


def _are_scaled_and_masked(scores: Node, product: Node) -> bool:
    """Whether scores are where(mask, factor * product + mask, -inf), or less than that."""
    current = origin(scores)
    while current.op == "where":
        _, yes, no = current.inputs
        if _is_nothing(no):
            current = origin(yes)
        elif _is_nothing(yes):
            current = origin(no)
        else:
            return False
    for _ in range(2):  # a mask, or bias and mask
        if current.op == "add":
            left, right = map(origin, current.inputs)
            current = left if _factor_of(left) is product else right
    return _factor_of(current) is product


def _is_nothing(value: Node) -> bool:
    value = origin(value)
    return value.op == "const" and value.attrs[0] == -math.inf


def _factor_of(value: Node) -> Node:
    """The product in factor * product or product / factor; the value itself where it is neither."""
    while value.op == "cast":
        value = origin(value.inputs[0])
    if value.op in ("mul", "div"):
        left, right = map(origin, value.inputs)
        if right.op == "const":
            return left
        if left.op == "const" and value.op == "mul":
            return right
    return value
