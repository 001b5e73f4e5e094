"""Pulling: the elements that a kernel computes, found by asking from the outputs back.

Starting at an output element, `Evaluator.pull(node, indices)` asks each input for the element it
needs. Movement ops only rewrite the indices, so a chain of reshapes, slices, pads and broadcasts
costs an index expression.  `PULL` has one rule for each op that is not elementwise; what comes out
is a list of instrs.
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.loops.index import (
    ZERO,
    Affine,
    Dyn,
    divide,
    linearize,
    reindex,
    variable,
)
from lazygrad_compiler.loops.kernel import Instr

Indices = tuple[Affine, ...]


class NotAligned(Exception):
    """The group reads one of its own values at another place than where it is computed: it cannot
    be one kernel.
    """


class Evaluator:
    """Builds the instr list of one kernel by pulling elements of nodes.

    stored: nodes that are in memory when the kernel runs.  Group values given by `seed` are used
    where they are computed.
    """

    def __init__(self, stored: Callable[[Node], bool]) -> None:
        self.stored = stored
        self.values: list[Instr] = []
        self.buffers: list[tuple[Node, bool]] = []
        self.sources: dict[Node, None] = {}
        """The nodes that it computes, in order; not those that are only loaded."""
        self._checked: dict[int, Node] = {}
        self._memo: dict[tuple, int] = {}
        self._instrs: dict[Instr, int] = {}
        self._seeds: dict[Node, tuple[Affine, int]] = {}
        self._pending: dict[Node, Affine] = {}
        self._affines: list[Affine] = []

    # ---- values

    def add(
        self, op: str, dtype: dtypes.DType, args: tuple[int, ...] = (), data: tuple = ()
    ) -> int:
        """Appends an instr, or finds the equal one."""
        instr = Instr(op, dtype, args, data)
        key = instr if op != "const" else Instr(op, dtype, args, (repr(data[0]),))
        found = self._instrs.get(key)
        if found is None:
            found = self._instrs[key] = len(self.values)
            self.values.append(instr)
        return found

    def buffer(self, node: Node, written: bool) -> int:
        if (node, written) not in self.buffers:
            self.buffers.append((node, written))
        return self.buffers.index((node, written))

    def note(self, index: Affine) -> Affine:
        self._affines.append(index)
        return index

    def constant(self, dtype: dtypes.DType, value: object) -> int:
        return self.add("const", dtype, (), (value,))

    def check(self, args: tuple[int, ...], size: int, axis: int, reader: Node) -> int:
        """An index (and where it counts) that has to lie within an axis, as the op that reads by it
        wants it.
        """
        number = self.add("dynamic", dtypes.int64, args, (size, axis))
        self._checked.setdefault(number, reader)
        return number

    @property
    def checked(self) -> tuple[Node, ...]:
        """Of each `dynamic` instr, in order, the op that reads by it."""
        return tuple([self._checked[number] for number in sorted(self._checked)])

    def both(self, mask: int | None, other: int) -> int:
        return other if mask is None else self.add("and", dtypes.bool_, (mask, other))

    def seed(self, node: Node, place: Affine, value: int) -> None:
        """The node's element at the linear position `place` is this value; asking for another place
        raises NotAligned.
        """
        self._seeds[node] = (place, value)

    def forbid(self, node: Node) -> None:
        """The node belongs to the group but is not there yet."""
        self._pending[node] = ZERO

    def expect(self, node: Node, place: Affine) -> None:
        """The node is computed by this kernel, at `place`, and read nowhere else; it is pulled like
        any other.
        """
        self._seeds.pop(node, None)
        self._pending.pop(node, None)
        self._expected[node] = place

    _expected: dict[Node, Affine]

    def start_stage(self, expected: dict[Node, Affine]) -> None:
        """Begins a stage: the places at which group members may be pulled in it."""
        self._expected = expected

    # ---- pulling

    def pull(self, node: Node, indices: Indices, mask: int | None = None) -> int:
        """The number of the value that holds the node's element at the indices (read only where the
        mask holds).
        """
        key = (node, indices, mask)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._pull(node, indices, mask)
        return found

    def _pull(self, node: Node, indices: Indices, mask: int | None) -> int:
        if node in self._seeds:
            place, value = self._seeds[node]
            if linearize(indices, node.shape) != place:
                raise NotAligned
            return value
        if node in self._expected:
            if linearize(indices, node.shape) != self._expected[node]:
                raise NotAligned
        elif node in self._pending:
            raise NotAligned
        elif self.stored(node):
            index = self.note(linearize(indices, node.shape))
            number = self.buffer(node, False)
            return self.add("load", node.dtype, () if mask is None else (mask,), (number, index))
        self.sources[node] = None
        rule = PULL.get(node.op)
        if rule is not None:
            return rule(self, node, indices, mask)
        if OPS[node.op].kind == "elementwise":
            args = tuple(self.pull(value, indices, mask) for value in node.inputs)
            return self.add(node.op, node.dtype, args)
        raise NotAligned

    def affines(self) -> list[Affine]:
        return self._affines


PullRule = Callable[[Evaluator, Node, Indices, "int | None"], int]
PULL: dict[str, PullRule] = {}


def _rule(name: str) -> Callable[[PullRule], PullRule]:
    def register(function: PullRule) -> PullRule:
        PULL[name] = function
        return function

    return register


@_rule("const")
def _const(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    return e.constant(node.dtype, node.attrs[0])


@_rule("iota")
def _iota(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    number = e.add("index", dtypes.int64, (), (e.note(indices[node.attrs[0]]),))
    return number if node.dtype is dtypes.int64 else e.add("cast", node.dtype, (number,))


@_rule("random_bits")
def _random_bits(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    seed = e.pull(node.inputs[0], (ZERO,))
    offset = e.pull(node.inputs[0], (Affine(1),))
    return e.add("philox", node.dtype, (seed, offset), (e.note(linearize(indices, node.shape)),))


@_rule("polynomial")
def _polynomial(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    return e.add("polynomial", node.dtype, (e.pull(node.inputs[0], indices, mask),), node.attrs)


@_rule("variable")
@_rule("stop_gradient")
@_rule("again")
def _marker(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    return e.pull(node.inputs[0], indices, mask)


@_rule("reshape")
def _reshape(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    value = node.inputs[0]
    return e.pull(value, reindex(indices, node.shape, value.shape), mask)


@_rule("permute")
def _permute(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    inside = [ZERO] * len(indices)
    for axis, source in enumerate(node.attrs[0]):
        inside[source] = indices[axis]
    return e.pull(node.inputs[0], tuple(inside), mask)


@_rule("expand")
def _expand(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    value = node.inputs[0]
    return e.pull(
        value, tuple(ZERO if s == 1 else i for i, s in zip(indices, value.shape, strict=True)), mask
    )


@_rule("slice")
def _slice(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    starts, _, steps = node.attrs
    return e.pull(
        node.inputs[0],
        tuple(i * step + start for i, start, step in zip(indices, starts, steps, strict=True)),
        mask,
    )


@_rule("flip")
def _flip(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    axes = node.attrs[0]
    return e.pull(
        node.inputs[0],
        tuple(i * -1 + (node.shape[k] - 1) if k in axes else i for k, i in enumerate(indices)),
        mask,
    )


@_rule("window")
def _window(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    value, (axes, _, strides, dilations) = node.inputs[0], node.attrs
    inside = list(indices[: value.ndim])
    for axis, stride, dilation, offset in zip(
        axes, strides, dilations, indices[value.ndim :], strict=True
    ):
        inside[axis] = inside[axis] * stride + offset * dilation
    return e.pull(value, tuple(inside), mask)


@_rule("pad")
def _pad(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    value, (low, _, interior, fill) = node.inputs[0], node.attrs
    inside, legal = [], None
    outside = e.constant(node.dtype, fill)
    for index, below, gap, size in zip(indices, low, interior, value.shape, strict=True):
        place = index + -below
        reach = (size - 1) * (gap + 1) + 1 if size else 0
        if place.high < 0 or place.low >= reach:  # nothing but padding here
            return outside
        if place.low < 0 or place.high >= reach:
            legal = e.both(legal, e.add("bounds", dtypes.bool_, (), (e.note(place), 0, reach)))
        if gap:
            legal = e.both(legal, e.add("divides", dtypes.bool_, (), (e.note(place), gap + 1)))
            place = divide(place, gap + 1)
        inside.append(place)
    if value.size == 0:
        return outside
    if legal is None:
        return e.pull(value, tuple(inside), mask)
    return e.add(
        "where", node.dtype, (legal, e.pull(value, tuple(inside), e.both(mask, legal)), outside)
    )


@_rule("concat")
def _concat(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    axis = node.attrs[0]
    index, start, result = indices[axis], 0, None
    pieces = []
    for piece in node.inputs:
        size = piece.shape[axis]
        if size and index.low < start + size and index.high >= start:
            pieces.append((piece, start, size))
        start += size
    for piece, start, size in reversed(pieces):
        place = (*indices[:axis], index + -start, *indices[axis + 1 :])
        if len(pieces) == 1:
            return e.pull(piece, place, mask)
        legal = e.add("bounds", dtypes.bool_, (), (e.note(index), start, start + size))
        here = e.pull(piece, place, e.both(mask, legal))
        result = here if result is None else e.add("where", node.dtype, (legal, here, result))
    assert result is not None
    return result


@_rule("gather")
def _gather(e: Evaluator, node: Node, indices: Indices, mask: int | None) -> int:
    value, *index_nodes = node.inputs
    axes, rank = node.attrs[0], index_nodes[0].ndim
    inside: list[Affine | None] = [None] * value.ndim
    checks = []
    for index_node, axis in zip(index_nodes, axes, strict=True):
        raw = e.pull(index_node, indices[:rank], mask)
        size = value.shape[axis]
        args = (raw,) if mask is None else (raw, mask)
        checks.append(e.check(args, size, axis, node))
        inside[axis] = variable(Dyn(checks[-1], size))
    rest = iter(indices[rank:])
    result = e.pull(value, tuple(next(rest) if i is None else i for i in inside), mask)
    # the check must run even where its outcome is not needed: an axis of one element, a constant
    return e.add("checked", node.dtype, (result, *checks))
