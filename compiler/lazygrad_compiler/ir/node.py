"""The graph IR: immutable, hash-consed nodes.

A `Node` is one operation applied to nodes, with its inferred dtype and shape.  Building the same
operation on the same inputs twice gives the same object, so common subexpressions never exist
twice.  The user's source lines ride along as `location`; they are no part of identity nor of any
key.

`node(...)` builds through the op table (`ops.py`), which infers dtype and shape and checks the
arguments.  A `Graph` is a tuple of output nodes; everything else is reached from them.  All walks
are iterative: 100,000 nodes in a row are fine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

from lazygrad_compiler.ir.dtypes import DType

Location = tuple[tuple[str, int], ...]
"""Source lines, each (file, line); several where rewrites merged nodes."""


class Named(tuple):  # type: ignore[type-arg]
    """The location of an indexed op that also knows the public operation which recorded it.

    operation: its name, for the message about an index out of range.  It counts for nothing else:
    two locations of the same lines are equal.
    """

    operation: str


def named(location: Location, operation: str) -> Location:
    made = Named(location)
    made.operation = operation
    return made


@dataclass(frozen=True, slots=True)
class Dim:
    """A symbolic size: known by name and bounds, not by value."""

    name: str
    low: int = 0
    high: int = 2**31 - 1

    def __repr__(self) -> str:
        return self.name


Shape = tuple[Any, ...]
"""Sizes, each an int or a `Dim`."""


class IRError(ValueError):
    """An operation was given inputs or attributes that it does not take."""


class IRTypeError(IRError):
    """An operation was given a dtype that it is not defined for."""


class Node:
    """One operation in the graph.  Make it with `node(...)`, never directly.

    op: key of the op table.  inputs: nodes.  attrs: values in the order of the op's `attributes`.
    identity: the attributes as they count for identity (`identity_of`).
    dtype, shape: inferred.  location: the user's lines.  differentiable: True where a `variable` is
    reached through floating-point operations, that is, where a gradient could flow.  device: where
    it is computed, see `device_of`.  payload:
    whatever the layer above attaches (the runtime's buffer once the value is known); no part of
    identity.  call, part: where the node is a result of a composite (`composite.py`), which one;
    else None.
    """

    __slots__ = (
        "__weakref__",
        "attrs",
        "call",
        "device",
        "differentiable",
        "dtype",
        "identity",
        "inputs",
        "location",
        "op",
        "part",
        "payload",
        "serial",
        "shape",
    )

    op: str
    inputs: tuple[Node, ...]
    attrs: tuple[Any, ...]
    identity: tuple[Any, ...]
    device: str  # absent: anywhere
    dtype: DType
    shape: Shape
    location: Location
    differentiable: bool
    payload: Any
    serial: int
    call: Any
    part: int

    def attr(self, name: str) -> Any:
        """One attribute by name."""
        from lazygrad_compiler.ir.ops import OPS

        return self.attrs[OPS[self.op].attributes.index(name)]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<{self.op} {self.dtype.name}{list(self.shape)}>"


def identity_of(op: str, attrs: tuple) -> tuple:
    """The attributes as they count for identity: numbers by their spelling, since 0.0, -0.0, 0 and
    False are equal in Python but not the same constant.
    """
    if op == "const":
        return (repr(attrs[0]), attrs[1], attrs[2])
    if op == "pad":
        return (*attrs[:3], repr(attrs[3]))
    return attrs


class _Entry(ref):  # type: ignore[type-arg]
    """A weak reference to an interned node that knows its key, to be forgotten with the node."""

    __slots__ = ("key",)

    key: tuple


_interned: dict[tuple, _Entry] = {}


def _forget(entry: Any) -> None:
    key = entry.key
    if _interned.get(key) is entry:
        del _interned[key]


serials = itertools.count()


def interned(key: tuple) -> Node | None:
    """The living node of a key."""
    known = _interned.get(key)
    return None if known is None else known()


def remember(key: tuple, made: Node) -> Node:
    """Interns a node just made; the one that another thread interned meanwhile, if any."""
    entry = _Entry(made, _forget)
    entry.key = key
    first = _interned.setdefault(key, entry)
    if first is not entry:
        found = first()
        if found is not None:
            return found
        _interned[key] = entry
    return made


def intern_node(
    op: str,
    inputs: tuple[Node, ...],
    attrs: tuple,
    dtype: DType,
    shape: Shape,
    location: Location,
    differentiable: bool,
    lines: Location = (),
) -> Node:
    """The one node with that operation, inputs and attributes; the first location given stays.

    lines: counts for identity, too; see `recorded_leaf`.
    """
    identity = identity_of(op, attrs) if op == "const" or op == "pad" else attrs
    key = (op, identity, *map(id, inputs), *lines)
    known = _interned.get(key)
    if known is not None:
        found = known()
        if found is not None:
            return found
    made = Node.__new__(Node)
    made.op = op
    made.inputs = inputs
    made.attrs = attrs
    made.identity = identity
    made.dtype = dtype
    made.shape = shape
    made.location = location
    made.differentiable = differentiable
    made.payload = made.call = None
    made.serial = next(serials)
    return remember(key, made)


_input_numbers = itertools.count(1 << 32)  # far from the inputs of canonical graphs, from 0 up


def fresh_input(dtype: DType, shape: Shape, location: Location) -> Node:
    """An `input` that equals no other node: for a value that is about to be attached to it."""
    return separate_input(next(_input_numbers), dtype, shape, location)


def separate_input(index: int, dtype: DType, shape: Shape, location: Location) -> Node:
    """An `input` of a number that is not interned: what is built on it is no node of another graph,
    so it has its own lines.
    """
    made = Node.__new__(Node)
    made.op = "input"
    made.inputs = ()
    made.attrs = made.identity = (index, dtype, shape)
    made.dtype = dtype
    made.shape = shape
    made.location = location
    made.differentiable = False
    made.payload = made.call = None
    made.serial = next(serials)
    return made


def node(op: str, *inputs: Node, location: Location = (), **attributes: Any) -> Node:
    """Builds a node by name, checking and inferring through the op table.

    Attributes are given by keyword.  Raises IRError naming the op and the shapes where they do not
    fit.
    """
    from lazygrad_compiler.ir.ops import OPS

    definition = OPS.get(op)
    if definition is None:
        raise IRError(f"[{op}] there is no such operation in the IR")
    if len(inputs) != definition.arity and (definition.arity >= 0 or not inputs):
        raise IRError(
            f"[{op}] takes {max(definition.arity, 1)} inputs"
            f"{' or more' if definition.arity < 0 else ''}, not {len(inputs)}"
        )
    try:
        attrs = tuple(attributes.pop(name) for name in definition.attributes)
    except KeyError as missing:
        raise IRError(f"[{op}] needs the attribute {missing}") from None
    if attributes:
        raise IRError(f"[{op}] does not take {', '.join(attributes)}")
    return build(definition, inputs, attrs, location)


def build(definition: Any, inputs: tuple[Node, ...], attrs: tuple, location: Location = ()) -> Node:
    """Like `node`, with the table's entry and the attributes already in order: the fast path of
    recording.
    """
    dtype, shape = definition.infer(definition, inputs, attrs)
    name = definition.name
    if name == "variable":
        differentiable = dtype.is_differentiable
    elif name == "stop_gradient" or not dtype.is_differentiable:
        differentiable = False
    else:
        differentiable = False
        for value in inputs:
            if value.differentiable:
                differentiable = True
                break
    made = intern_node(name, inputs, attrs, dtype, shape, location, differentiable)
    return placed(made) if placing else made


def recorded_leaf(definition: Any, attrs: tuple, location: Location) -> Node:
    """A node without inputs (a constant, an iota) that a user's line records: one for each line.

    Equal ones may live all over the process, and what is built on nothing else would be one node
    with the first of them, and bear its line.  When a program is made of them they are one.
    """
    dtype, shape = definition.infer(definition, (), attrs)
    return intern_node(definition.name, (), attrs, dtype, shape, location, False, location)


placing = False
"""Whether nodes note their devices: not before a program uses another device than the CPU."""


def device_of(value: Node) -> str | None:
    """The label of the device that a node is computed on; None: anywhere, its users decide (values
    of the CPU, and what depends on them alone).
    """
    return getattr(value, "device", None)


def placed(made: Node) -> Node:
    """The node with its device: that of its inputs, or where a transfer leads."""
    if made.op == "transfer":
        made.device = made.attrs[0]
        return made
    inputs, device = together(made.op, made.inputs, made.location)
    if inputs is not made.inputs:
        from lazygrad_compiler.ir.ops import OPS

        return build(OPS[made.op], inputs, made.attrs, made.location)
    if device is not None:
        made.device = device
    return made


def together(
    name: str, inputs: tuple[Node, ...], location: Location
) -> tuple[tuple[Node, ...], str | None]:
    """The inputs of an operation on one device, and which.  Single numbers come over from the CPU;
    IRError where anything else is elsewhere.
    """
    found = None
    for value in inputs:
        device = getattr(value, "device", None)
        if device is not None and device != found:
            if found is not None:
                break
            found = device
    else:
        return inputs, found
    from lazygrad_compiler.ir.ops import OPS

    devices = dict.fromkeys(device for value in inputs if (device := device_of(value)))
    others = [device for device in devices if device != "cpu"]
    if len(others) > 1 or any(device_of(value) == "cpu" and value.shape for value in inputs):
        raise IRError(
            f"[{name}] all tensors must be on the same device, and these are on "
            f"{' and '.join(devices)}. Copy one of them, for instance with x.to({others[0]!r})."
        )
    return tuple([
        build(OPS["transfer"], (value,), (others[0], "cpu"), location)
        if device_of(value) == "cpu"
        else value
        for value in inputs
    ]), others[0]


def merge_locations(*locations: Location) -> Location:
    """All lines, each once, in order; at most eight, so that merging stays cheap.  The name of an
    indexed op among them stays, too.
    """
    merged = tuple(dict.fromkeys(itertools.chain(*locations)))[:8]
    for location in locations:
        if location.__class__ is Named:
            return named(merged, location.operation)  # type: ignore[attr-defined]
    return merged


@dataclass(frozen=True, slots=True)
class Graph:
    """A program to be compiled: its outputs, in order.  Its inputs are the `input` nodes, in the
    order of their index.
    """

    outputs: tuple[Node, ...]

    def nodes(self) -> list[Node]:
        """Every node, inputs before users (deterministic: depth first from the first output)."""
        return topological(self.outputs)

    def inputs(self) -> list[Node]:
        return sorted((n for n in self.nodes() if n.op == "input"), key=lambda n: n.attrs[0])


def topological(outputs: Iterable[Node], stop: Any = None) -> list[Node]:
    """All nodes reached from the outputs, each after its inputs.  `stop(node)`: True where its
    inputs are not followed.
    """
    order: list[Node] = []
    done: set[Node] = set()
    for output in outputs:
        stack = [output]
        while stack:
            current = stack[-1]
            if current in done:
                stack.pop()
                continue
            if stop is None or not stop(current):
                waiting = len(stack)
                for value in current.inputs[::-1]:
                    if value not in done:
                        stack.append(value)
                if len(stack) > waiting:
                    continue
            stack.pop()
            done.add(current)
            order.append(current)
    return order


def rebuild(original: Node, inputs: Sequence[Node]) -> Node:
    """The same operation on other inputs, shapes inferred anew."""
    if all(old is new for old, new in zip(original.inputs, inputs, strict=True)):
        return original
    from lazygrad_compiler.ir.ops import OPS

    return build(OPS[original.op], tuple(inputs), original.attrs, original.location)


def substitute(outputs: Sequence[Node], mapping: dict[Node, Node]) -> tuple[Node, ...]:
    """The outputs with every mapped node replaced, all users rebuilt."""
    result: dict[Node, Node] = dict(mapping)
    for current in topological(outputs, stop=lambda n: n in mapping):
        if current not in result:
            result[current] = rebuild(current, [result[value] for value in current.inputs])
    return tuple(result[output] for output in outputs)
