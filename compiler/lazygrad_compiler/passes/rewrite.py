"""The rewrite engine: rules are data, one worklist applies them to the fixpoint.

A rule is a pattern and a function.  The pattern says what to look for; what it binds by name goes
to the function, which gives the replacement, or None where the rule does not apply after all:

    rules = RewriteRules("simplify")

    @rules.add(Op("mul", Any("x"), Const(1)))
    def multiply_by_one(x):
        return x

Nodes are visited inputs first, each once; a replacement is visited in turn, so that the result
holds no place where a rule would still fire.  The work is linear in the nodes visited.  New nodes
get the merged locations of all that the pattern matched.

A rule must keep dtype and shape (the engine checks) and every bit of the value (the tests check).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any as Anything

from lazygrad_compiler import decisions
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import (
    Graph,
    Location,
    Node,
    build,
    merge_locations,
    node,
    topological,
)
from lazygrad_compiler.ir.ops import OPS

Bindings = dict[str, Node]
Matcher = Callable[[Node, Bindings], bool]
Replace = Callable[..., Node | None]
Guard = Callable[[Node], bool]


# ---- patterns


@dataclass(frozen=True, slots=True)
class Any:
    """Any node; the same name twice in a pattern means the same node."""

    name: str
    when: Guard | None = None

    def matcher(self) -> Matcher:
        name, when = self.name, self.when

        def match(value: Node, bound: Bindings) -> bool:
            if when is not None and not when(value):
                return False
            return bound.setdefault(name, value) is value

        return match


@dataclass(frozen=True, slots=True)
class Const:
    """A constant: of a given value (the sign of zero counts), or any, bound by name."""

    value: Anything = None
    name: str | None = None
    when: Guard | None = None

    def matcher(self) -> Matcher:
        wanted, name, when = self.value, self.name, self.when

        def match(value: Node, bound: Bindings) -> bool:
            if value.op != "const":
                return False
            if wanted is not None and not same_number(value.attrs[0], wanted):
                return False
            if when is not None and not when(value):
                return False
            return name is None or bound.setdefault(name, value) is value

        return match


class Op:
    """An operation (or any of several) with patterns for its inputs; `...` stands for any."""

    def __init__(self, ops: str | Iterable[str], *inputs: Anything, name: str | None = None,
                 when: Guard | None = None) -> None:
        self.ops = frozenset([ops] if isinstance(ops, str) else ops)
        unknown = self.ops - OPS.keys()
        if unknown:
            raise ValueError(f"there is no operation {', '.join(sorted(unknown))}")
        self.inputs = inputs
        self.name = name
        self.when = when

    def matcher(self) -> Matcher:
        ops, name, when = self.ops, self.name, self.when
        children: tuple[Matcher, ...] = ()
        if self.inputs != (...,):
            children = tuple(pattern.matcher() for pattern in self.inputs)

        def match(value: Node, bound: Bindings) -> bool:
            if value.op not in ops:
                return False
            if children:
                inputs = value.inputs
                if len(inputs) != len(children):
                    return False
                for child, operand in zip(children, inputs, strict=True):
                    if not child(operand, bound):
                        return False
            if when is not None and not when(value):
                return False
            return name is None or bound.setdefault(name, value) is value

        return match

    def operations(self) -> list[Op]:
        """This pattern and every operation pattern within."""
        inner = [p for p in self.inputs if isinstance(p, Op)]
        return [self, *(found for p in inner for found in p.operations())]


def same_number(left: Anything, right: Anything) -> bool:
    """Equal as values: -0.0 differs from 0.0, nan equals nan, 1 equals 1.0."""
    if left != right:
        return left != left and right != right
    if left != 0 or isinstance(left, complex):
        return True
    return math.copysign(1, left) == math.copysign(1, right)


# ---- guards, by dtype


def is_integer(value: Node) -> bool:
    return value.dtype.is_integer


def is_float(value: Node) -> bool:
    return value.dtype.is_floating


def is_real(value: Node) -> bool:
    return not value.dtype.is_complex


def is_bool(value: Node) -> bool:
    return value.dtype.kind == "bool"


def is_discrete(value: Node) -> bool:
    """Integers and bools: arithmetic without rounding, no NaN and no signed zero."""
    return value.dtype.kind in ("bool", "signed", "unsigned")


# ---- making nodes in rules


def make(op: str, *inputs: Node, **attributes: Anything) -> Node:
    """A node without a location: the engine puts in the location of what it replaces."""
    return node(op, *inputs, **attributes)


def apply_op(original: Node, *inputs: Node) -> Node:
    """The operation of a node, attributes and all, on other inputs."""
    return build(OPS[original.op], inputs, original.attrs)


def full(value: Anything, dtype: DType, shape: Sequence[Anything]) -> Node:
    """A constant in every place of a shape."""
    return node("const", value=value, dtype=dtype, shape=tuple(shape))


def full_like(like: Node, value: Anything) -> Node:
    return full(value, like.dtype, like.shape)


def reshape(value: Node, shape: Sequence[Anything]) -> Node:
    """The node itself where it has that shape already."""
    shape = tuple(shape)
    return value if value.shape == shape else node("reshape", value, shape=shape)


def permute(value: Node, order: Sequence[int]) -> Node:
    order = tuple(order)
    return value if order == tuple(range(value.ndim)) else node("permute", value, order=order)


def expand(value: Node, shape: Sequence[Anything]) -> Node:
    shape = tuple(shape)
    return value if value.shape == shape else node("expand", value, shape=shape)


# ---- rules


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern and what replaces it."""

    name: str
    pattern: Op
    replace: Replace
    match: Matcher


@dataclass(slots=True)
class RewriteRules:
    """A named set of rules, tried in the order in which they were added."""

    name: str
    rules: list[Rule] = field(default_factory=list)

    def add(self, *patterns: Op) -> Callable[[Replace], Replace]:
        """Decorator: the function gets what a pattern binds, and gives the replacement or None."""

        def register(function: Replace) -> Replace:
            for pattern in patterns:
                name = function.__name__.strip("_")
                self.rules.append(Rule(name, pattern, function, pattern.matcher()))
            return function

        return register

    def only(self, *names: str) -> RewriteRules:
        """The set reduced to the rules of those names."""
        unknown = set(names) - {rule.name for rule in self.rules}
        if unknown:
            raise KeyError(f"{self.name} has no rule {', '.join(sorted(unknown))}")
        return RewriteRules(self.name, [rule for rule in self.rules if rule.name in names])


class RewriteError(RuntimeError):
    """A rule gave something of another dtype or shape, or rules undo one another without end."""


FIRINGS_PER_NODE = 64
"""Rules that fire more often than this, per node of the graph, are taken to run in circles."""


def apply(graph: Graph, *sets: RewriteRules, strict: bool = False,
          fired: Counter[str] | None = None) -> Graph:
    """The graph rewritten until no rule of the sets fires any more.

    fired: counts, by rule name.  strict: whether rules that run in circles raise RewriteError; else
    the engine stops there, with a graph that is right though not as simple as it could be.
    """
    return Graph(_Worklist(sets, strict, fired).run(graph.outputs))


class _Worklist:
    """One application of rules.  `final` maps each finished node to what it became."""

    def __init__(self, sets: Sequence[RewriteRules], strict: bool,
                 fired: Counter[str] | None) -> None:
        self.by_op: dict[str, list[Rule]] = {}
        for rules in sets:
            for rule in rules.rules:
                for op in rule.pattern.ops:
                    self.by_op.setdefault(op, []).append(rule)
        self.strict = strict
        self.fired = fired
        self.ledger = decisions.ledger()
        self.final: dict[Node, Node] = {}
        self.becomes: dict[Node, Node] = {}  # rewritten, and waiting for the replacement to finish
        self.budget = 0

    def run(self, outputs: Sequence[Node]) -> tuple[Node, ...]:
        order = topological(outputs)
        self.budget = FIRINGS_PER_NODE * (len(order) + 16)
        final = self.final
        for current in order:
            if current in final:
                continue
            target = self.step(current)  # its inputs are final
            if target is current:
                final[current] = current
            else:
                self.becomes[current] = target
                self.finish(current)
        return tuple(final[output] for output in outputs)

    def finish(self, start: Node) -> None:
        """Brings one node to its final form, and all that arises on the way."""
        final, becomes = self.final, self.becomes
        stack = [start]
        while stack:
            current = stack[-1]
            if current in final:
                stack.pop()
                continue
            target = becomes.get(current)
            if target is None:
                waiting = [value for value in current.inputs if value not in final]
                if waiting:
                    for value in waiting:
                        if value in becomes:
                            self.break_circle(current, value)
                    stack.extend(waiting)
                    continue
                target = self.step(current)
                becomes[current] = target
            if target is current or target in final:
                final[current] = final.get(target, target)
                del becomes[current]
                stack.pop()
            elif target in becomes:
                self.break_circle(current, target)
            else:
                stack.append(target)

    def break_circle(self, current: Node, target: Node) -> None:
        """`target` waits for `current`, and `current` has led back to it: it stays as it was."""
        if self.strict:
            raise RewriteError(f"rules run in circles between {current!r} and {target!r}")
        self.final[target] = target
        del self.becomes[target]

    def step(self, current: Node) -> Node:
        """The node on final inputs if that differs, else what the first fitting rule makes."""
        final = self.final
        inputs = current.inputs
        for value in inputs:
            if final[value] is not value:
                rebuilt = tuple([final[operand] for operand in inputs])
                return build(OPS[current.op], rebuilt, current.attrs, current.location)
        for rule in self.by_op.get(current.op, ()):
            bound: Bindings = {}
            if not rule.match(current, bound):
                continue
            replacement = rule.replace(**bound)
            if replacement is None or replacement is current:
                continue
            if replacement.dtype is not current.dtype or replacement.shape != current.shape:
                raise RewriteError(f"rule {rule.name} made {replacement!r} of {current!r}")
            if self.ledger is not None and not self.ledger.take(
                    f"{rule.name} on {current!r}", current.location):
                return current
            self.budget -= 1
            if self.budget < 0:
                if self.strict:
                    raise RewriteError(f"rules fire without end; the last was {rule.name}")
                return current
            if self.fired is not None:
                self.fired[rule.name] += 1
            self.locate(replacement, matched_location(current, rule.pattern))
            return replacement
        return current

    def locate(self, replacement: Node, location: Location) -> None:
        """Gives the location to the nodes that the rule made: those without, down to known ones."""
        if not location:
            return
        stack = [replacement]
        while stack:
            current = stack.pop()
            if current.location or current in self.final or current in self.becomes:
                continue
            current.location = location
            stack.extend(current.inputs)


def matched_location(root: Node, pattern: Op) -> Location:
    """The locations of all nodes that the pattern's operations matched, the root's first."""
    found = [root.location]
    stack = [(root, pattern)]
    while stack:
        current, shape = stack.pop()
        for operand, inner in zip(current.inputs, shape.inputs):
            if isinstance(inner, Op):
                found.append(operand.location)
                stack.append((operand, inner))
    return merge_locations(*found) if len(found) > 1 else found[0]
