"""Public operations recorded as one node for each result: `folded`.

An operation is Python: it checks its arguments, promotes, finds axes, and records ten or twenty
nodes.  All of that depends on its *signature* only: dtypes, shapes, which tensors are
differentiable, plain arguments, modes.  The first time that a signature is seen, the function runs
on stand-ins and leaves a template; every call records the template on its arguments.

What a function does besides recording has to show in its results, or in writes to arguments (the
running statistics of a batch norm).  A function that looks at values, gives a view or an argument
back, draws random numbers, warns, or has results of other kinds is found out while it runs on the
stand-ins, and then always runs as it is; so does one that is given a constant, which it may fold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lazygrad._core import placement
from lazygrad._core.cell import Cell
from lazygrad._core.composite import plain_key
from lazygrad._core.context import now
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad._core.types import default
from lazygrad_compiler.ir import node as nodes_of_graph
from lazygrad_compiler.ir.composite import Template, apply, placeholder, template
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, named, topological
from lazygrad_compiler.ir.ops import OPS

Function = TypeVar("Function", bound=Callable[..., Any])

MOST_SIGNATURES = 512
"""Of one function; past that all are forgotten."""

_PLAIN = frozenset((int, bool, str, type(None), DType))
_UNFIT = "runs as it is"

_known: list[dict[tuple, Any]] = []


def forget_recipes() -> None:
    """Every signature is new again."""
    for recipes in _known:
        recipes.clear()


class _Unfit(Exception):
    """The function does something that a template cannot repeat."""


class _StandIns:
    """The room of `now.traced` in which a function runs on stand-ins."""

    outer = None
    stand_ins: frozenset[Node] = frozenset()

    def register(self, cell: Cell) -> None:
        pass

    def observed(self, required: Sequence[Node]) -> None:
        raise _Unfit

    def warned(self) -> None:
        raise _Unfit

    def draws(self) -> None:
        raise _Unfit


class _Recipe:
    """template: on the nodes of the tensors among the arguments, in order.  rebuild: the result of
    the tensors for its first outputs; None where that is one tensor.  writes: which tensors get
    which further outputs.  indexed: whether an index may be out of range, which the operation is
    named for.
    """

    __slots__ = ("indexed", "rebuild", "template", "writes")

    def __init__(self, applied: Template, rebuild: Callable[[list[Tensor]], Any] | None,
                 writes: list[tuple[int, int]]) -> None:
        self.template = applied
        self.indexed = any(OPS[node.op].kind == "indexed" for node in topological(applied.outputs))
        self.rebuild = rebuild
        self.writes = writes


def folded(function: Function) -> Function:
    """Goes below `operation` or `method`; see the module."""
    recipes: dict[tuple, Any] = {}
    _known.append(recipes)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        key: list[Any] = [now.grad, now.autocast, default.dtype]
        values: Any = arguments
        if keywords:
            key += keywords
            values = (*arguments, *keywords.values())
        tensors: list[Tensor] = []
        nodes: list[Node] = []
        for value in values:
            kind = value.__class__
            if kind in _PLAIN:
                key.append(kind)
                key.append(value)
            elif not _describe(value, key, tensors, nodes):
                return function(*arguments, **keywords)
        wanted = tuple(key)
        found = recipes.get(wanted)
        if found.__class__ is not _Recipe:
            if found is _UNFIT or now.traced.__class__ is _StandIns:
                return function(*arguments, **keywords)
            if len(recipes) >= MOST_SIGNATURES:
                recipes.clear()
            found = recipes[wanted] = _recipe(function, arguments, keywords, nodes)
            if found is _UNFIT:
                return function(*arguments, **keywords)
        writes = found.writes
        if writes and not _writable(tensors, writes):
            return function(*arguments, **keywords)
        location = named(now.location, now.operation) if found.indexed else now.location
        outputs = apply(found.template, tuple(nodes), location)
        for position, number in writes:
            node = outputs[number]
            if nodes_of_graph.placing:
                node = placement.onto(node, tensors[position])
            tensors[position]._cell.set(node, False)
        if found.rebuild is None:
            return wrap(outputs[0])
        return found.rebuild([wrap(output) for output in outputs[:len(outputs) - len(writes)]])

    return call  # type: ignore[return-value]


def _describe(value: Any, key: list[Any], tensors: list[Tensor], nodes: list[Node]) -> bool:
    """Puts into the key what a template depends on in an argument; False where it may not."""
    if isinstance(value, Tensor):
        node = node_of(value)
        if node.op == "const":
            return False
        tensors.append(value)
        nodes.append(node)
        key.append(node.dtype)
        key.append(node.shape)
        key.append(node.differentiable)
        return True
    kind = value.__class__
    if kind in _PLAIN or kind is float:
        key += plain_key(value)
    elif isinstance(value, (tuple, list)):
        key += (kind, len(value))
        return all([_describe(part, key, tensors, nodes) for part in value])
    else:
        return False
    return True


def _stands_for(value: Any, stand_ins: list[Tensor]) -> Any:
    """An argument with the next stand-ins in place of its tensors."""
    if isinstance(value, Tensor):
        return stand_ins.pop(0)
    if isinstance(value, (tuple, list)) and any(isinstance(part, (Tensor, tuple, list))
                                                for part in value):
        parts = [_stands_for(part, stand_ins) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def _recipe(function: Callable[..., Any], arguments: tuple, keywords: dict[str, Any],
            nodes: Sequence[Node]) -> Any:
    """Runs the function on stand-ins for tensors of these nodes; _UNFIT where that tells nothing
    about other tensors.
    """
    placeholders = [placeholder(number, node.dtype, node.shape, node.differentiable)
                    for number, node in enumerate(nodes)]
    room, device = now.traced, now.device
    now.traced, now.device = _StandIns(), None  # a template is of no device
    try:
        stand_ins = [wrap(each) for each in placeholders]
        for each in stand_ins:
            each._cell.tracked = each._cell.node.differentiable
        waiting = list(stand_ins)
        result = function(
            *[_stands_for(value, waiting) for value in arguments],
            **{name: _stands_for(value, waiting) for name, value in keywords.items()})
        parts, rebuild = _parts(result)
        outputs = [_output(part, stand_ins) for part in parts]
        writes = []
        for position, each in enumerate(stand_ins):
            cell = each._cell
            if cell.version:
                if cell.tracked or cell.node.differentiable:
                    return _UNFIT
                writes.append((position, len(outputs)))
                outputs.append(cell.node)
        own = {*placeholders, *[each.inputs[0] for each in placeholders if each.inputs]}
        if not nodes or any(
                node.op in ("input", "variable") and node not in own
                for node in topological(outputs)):
            return _UNFIT
        return _Recipe(template(function.__name__, outputs, placeholders), rebuild, writes)
    except Exception:  # that of the real arguments is the one to raise
        return _UNFIT
    finally:
        now.traced, now.device = room, device


def _parts(result: Any) -> tuple[list[Tensor], Callable[[list[Tensor]], Any] | None]:
    """The tensors of a result, and how it is made of them."""
    if result.__class__ is Tensor:
        return [result], None
    if not isinstance(result, (tuple, list)) or len({id(part) for part in result}) < len(result):
        raise _Unfit
    kind: Any = result.__class__
    return list(result), kind._make if hasattr(kind, "_make") else kind


def _output(part: Any, stand_ins: Sequence[Tensor]) -> Node:
    """The node of a result that is a tensor of its own."""
    if part.__class__ is not Tensor or part._view is not None or part._detached \
            or any(part._cell is each._cell for each in stand_ins):
        raise _Unfit
    cell = part._cell
    if cell.tracked is not (now.grad and cell.node.differentiable):
        raise _Unfit
    return cell.node


def _writable(tensors: Sequence[Tensor], writes: Sequence[tuple[int, int]]) -> bool:
    """Whether the tensors that are written have no history and share memory with no other."""
    if len({id(tensor._cell) for tensor in tensors}) < len(tensors):
        return False
    return not any(tensors[position]._view is not None or tensors[position]._cell.tracked
                   for position, _ in writes)
