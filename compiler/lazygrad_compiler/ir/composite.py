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

from collections.abc import Callable, Iterable, Sequence
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

    __slots__ = ("__weakref__", "direct", "inputs", "name", "outputs", "place", "reached")

    def __init__(self, name: str, outputs: tuple[Node, ...], inputs: tuple[Node, ...]) -> None:
        self.name = name
        self.outputs = outputs
        self.inputs = inputs
        order = topological(outputs)
        self.place = {each: number for number, each in enumerate(order)}
        """Of each node in the topological order of all outputs."""
        places = {each: place for place, each in enumerate(inputs)}
        below: dict[Node, int] = {}
        """The inputs that a node depends on, as bits."""
        for each in order:
            if each in places:
                below[each] = 1 << places[each]
            else:
                found = 0
                for value in each.inputs:
                    found |= below[value]
                below[each] = found
        self.direct: tuple[int | Node | None, ...] = tuple([
            places[output] if output in places else None if below[output] else output
            for output in outputs])
        """For each output the number of the input that it is, or a node that depends on none; None
        for all others.
        """
        gradients = [place for place, each in enumerate(inputs) if each.differentiable]
        self.reached: tuple[tuple[int, ...], ...] = tuple([
            tuple([place for place in gradients if below[output] >> place & 1])
            for output in outputs])
        """For each output the inputs below it that may get a gradient."""

    def __repr__(self) -> str:
        return self.name


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

    folded: how many of its results nobody has unfolded.  built: the nodes that stand for the
    template's, as far as results are unfolded, so that what they share is looked at once; None
    where none is, or all are.
    """

    __slots__ = ("built", "folded", "inputs", "inside", "template")

    def __init__(self, applied: Template, inputs: tuple[Node, ...],
                 inside: tuple[Location, ...]) -> None:
        self.template = applied
        self.inputs = inputs
        self.inside = inside
        self.folded = 0
        self.built: dict[Node, Node] | None = None


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

apply_natively: Callable[..., list[Node] | None] | None = None
"""Native code that does what `apply` does, or gives None; put there by the front end."""


def apply(applied: Template, inputs: tuple[Node, ...], location: Location,
          inside: tuple[Location, ...] = ()) -> list[Node]:
    """The template's results on these inputs, which have the dtypes and shapes of its own."""
    if apply_natively is not None:
        made = apply_natively(applied, inputs, location, inside)
        if made is not None:
            return made
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
            call.folded += 1
            output = applied.outputs[part]
            result = _new(Folded)
            result.op = output.op
            result.attrs = output.attrs
            result.identity = output.identity
            result.dtype = output.dtype
            result.shape = output.shape
            result.location = inside[applied.place[output]] or location if inside else location
            result.differentiable = output.differentiable
            result.payload = None
            result.serial = next(serials)
            result.call = call
            result.part = part
            if device is not None:
                result.device = device
            found = remember(key, result)
        results.append(found)
    return results


def _inputs_of(call: Call, part: int, location: Location) -> tuple[Node, ...]:
    """What a result is made from, as plain nodes."""
    applied, inside, built = call.template, call.inside, call.built
    if built is None:
        built = call.built = dict(zip(applied.inputs, call.inputs, strict=True))
    output = applied.outputs[part]
    for each in topological(output.inputs, stop=built.__contains__):
        if each in built:
            continue
        made = intern_node(
            each.op,
            tuple([built[below] for below in each.inputs]),
            each.attrs,
            each.dtype,
            each.shape,
            inside[applied.place[each]] or location if inside else location,
            each.differentiable,
        )
        built[each] = nodes.placed(made) if nodes.placing else made
    call.folded -= 1
    if not call.folded:
        call.built = None
    return tuple([built[below] for below in output.inputs])


def unfold(outputs: Iterable[Node]) -> None:
    """Makes plain nodes of all results of calls down to values that are known: what is done with
    single nodes inside, such as keeping their values, is seen from then on.
    """
    for each in topological(outputs, stop=lambda each: each.payload is not None):
        if each.payload is None:
            each.call = None
