"""Composites: a whole graph recorded as one node for each of its results.

A `Template` is a graph over placeholders.  `apply` gives its results on other inputs, as nodes that
know their op, attributes, dtype and shape, and whose own inputs are built when somebody reads them:
a `Folded` node then becomes a plain `Node`, with the graph that it stands for below it.  Whoever
builds the same graph again and again (a public operation, the gradients of a step, an optimiser's
update) so records one node for each result instead of tens or hundreds.  All that reads graphs sees
the plain graph.  Only the walks that each step takes (`program.pending_key`, the keys of derived
gradients) look at `node.call` and take the composite as a unit, without unfolding it.

Templates are interned: equal ones are one object.  Their nodes' lines mean nothing; those of the
unfolded nodes are the call's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import (
    Location,
    Node,
    Shape,
    intern_node,
    interned,
    node,
    remember,
    serials,
    topological,
)

FIRST_PLACEHOLDER = 1 << 40
"""Placeholders are `input` nodes with numbers of their own, so that no node inside a template is
one of a program.
"""


def placeholder(number: int, dtype: DType, shape: Shape, differentiable: bool = False) -> Node:
    """Input number `number` of a template.  differentiable: whether gradients may ask for it."""
    made = node("input", index=FIRST_PLACEHOLDER + number, dtype=dtype, shape=shape)
    return node("variable", made, uid=-1) if differentiable else made


class Template:
    """A graph to be applied.  Make it with `template(...)`.

    outputs: its results.  inputs: the placeholders that they are made from.
    """

    __slots__ = ("__weakref__", "_below", "direct", "inputs", "name", "outputs", "place", "reached")

    def __init__(self, name: str, outputs: tuple[Node, ...], inputs: tuple[Node, ...]) -> None:
        self.name = name
        self.outputs = outputs
        self.inputs = inputs
        self.place = {each: number for number, each in enumerate(topological(outputs))}
        """Of each node in the topological order of all outputs."""
        places = {each: place for place, each in enumerate(inputs)}
        below = [topological([output], stop=lambda each: each in places) for output in outputs]
        self.direct: tuple[int | Node | None, ...] = tuple([
            places[output] if output in places
            else output if places.keys().isdisjoint(order) else None
            for output, order in zip(outputs, below, strict=True)])
        """For each output the number of the input that it is, or a node that depends on none; None
        for all others.
        """
        self.reached: tuple[tuple[int, ...], ...] = tuple([
            tuple([places[each] for each in order if each in places and each.differentiable])
            for order in below])
        """For each output the inputs below it that may get a gradient."""
        self._below: list[list[tuple[Node, int]] | None] = [None] * len(outputs)

    def __repr__(self) -> str:
        return self.name

    def below(self, part: int) -> list[tuple[Node, int]]:
        """The nodes between the inputs and an output, inputs before users, each with its place in
        the topological order of all outputs.
        """
        found = self._below[part]
        if found is None:
            given, output = set(self.inputs), self.outputs[part]
            found = self._below[part] = [
                (each, self.place[each])
                for each in topological([output], stop=lambda each: each in given)
                if each not in given and each is not output]
        return found


_templates: WeakValueDictionary[Any, Template] = WeakValueDictionary()


def template(name: str, outputs: Sequence[Node], inputs: Sequence[Node]) -> Template:
    """The one template of that graph."""
    key = (name, tuple(outputs), tuple(inputs))
    found = _templates.get(key)
    if found is None:
        found = _templates.setdefault(key, Template(*key))
    return found


class Call:
    """A template on inputs.  inside: the lines of the template's nodes, in topological order; ()
    for all or for one of them where that is the line that called it.
    """

    __slots__ = ("inputs", "inside", "template")

    def __init__(self, applied: Template, inputs: tuple[Node, ...],
                 inside: tuple[Location, ...]) -> None:
        self.template = applied
        self.inputs = inputs
        self.inside = inside


class Folded(Node):
    """A result of a call whose inputs nobody has read yet."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name != "inputs":
            raise AttributeError(f"'Node' object has no attribute {name!r}", name=name, obj=self)
        inputs = self.inputs = _inputs_of(self.call, self.part, self.location)
        self.__class__ = Node  # type: ignore[assignment]
        return inputs


_new = Node.__new__


def apply(applied: Template, inputs: tuple[Node, ...], location: Location,
          inside: tuple[Location, ...] = ()) -> list[Node]:
    """The template's results on these inputs, which have the dtypes and shapes of its own."""
    call: Call | None = None
    device: str | None = None
    if nodes.placing:
        inputs, device = nodes.together(applied.name, inputs, location)
    numbers = tuple(map(id, inputs))
    results: list[Node] = []
    for part, direct in enumerate(applied.direct):
        if direct is not None:
            results.append(inputs[direct] if direct.__class__ is int else direct)  # type: ignore
            continue
        key = (applied, part, numbers)
        found = interned(key)
        if found is None:
            if call is None:
                call = Call(applied, inputs, inside)
            output = applied.outputs[part]
            made = _new(Folded)
            made.op = output.op
            made.attrs = output.attrs
            made.identity = output.identity
            made.dtype = output.dtype
            made.shape = output.shape
            made.location = inside[applied.place[output]] or location if inside else location
            made.differentiable = output.differentiable
            made.payload = None
            made.serial = next(serials)
            made.call = call
            made.part = part
            if device is not None:
                made.device = device
            found = remember(key, made)
        results.append(found)
    return results


def _inputs_of(call: Call, part: int, location: Location) -> tuple[Node, ...]:
    """What a result is made from, as plain nodes."""
    applied, inside = call.template, call.inside
    value: dict[Node, Node] = dict(zip(applied.inputs, call.inputs, strict=True))
    for each, place in applied.below(part):
        made = intern_node(
            each.op,
            tuple([value[below] for below in each.inputs]),
            each.attrs,
            each.dtype,
            each.shape,
            inside[place] or location if inside else location,
            each.differentiable,
        )
        value[each] = nodes.placed(made) if nodes.placing else made
    return tuple([value[below] for below in applied.outputs[part].inputs])


def unfold(outputs: Iterable[Node]) -> None:
    """Makes plain nodes of all results of calls down to values that are known: what is done with
    single nodes inside, such as keeping their values, is seen from then on.
    """
    for each in topological(outputs, stop=lambda each: each.payload is not None):
        if each.payload is None:
            each.call = None
