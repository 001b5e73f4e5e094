"""Backward: from outputs to the leaves, in segments between boundaries.

The graph is the tape, and the compiler's autodiff pass derives gradients as nodes.  Where Python
code takes part in backward (a hook on a computed tensor, a custom Function), a `variable` marker
cuts the graph: a boundary.  Segments are differentiated from the last boundary to the first, which
is the order of the markers' serials, since a node is always younger than what it is computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from lazygrad._core import anomaly, derived, graph, placement
from lazygrad._core import cell as cells
from lazygrad._core.cell import FREED, mark
from lazygrad._core.context import fail, now, operation
from lazygrad._core.tensor import Tensor, _uids, node_of, shape_of, variables, wrap
from lazygrad_compiler.ir import node as ir_nodes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed


class Boundary:
    """Python code in backward: `outputs` gradients in, gradients of `inputs` out.

    outputs: weak only, through the table below; count says how many.
    """

    __slots__ = ("function", "inputs", "members")

    def __init__(self, function: Callable[[list[Node | None]], Sequence[Node | None]],
                 inputs: Sequence[Node]) -> None:
        self.function = function
        self.inputs = tuple(inputs)
        self.members: list[int] = []


boundaries: WeakKeyDictionary[Node, Boundary] = WeakKeyDictionary()
_retaining: WeakSet[Tensor] = WeakSet()


def cut(values: Sequence[Node], boundary: Boundary) -> list[Node]:
    """Values behind a boundary: their gradients go to its function."""
    results = []
    for value in values:
        uid = next(_uids)
        boundary.members.append(uid)
        node = mark(value, uid)
        boundaries[node] = boundary
        results.append(node)
    return results


def with_history(value: Node, before: Node) -> Node:
    """A value written without grad mode, or to `.data`: its gradients go where those of the value
    before go, which such a write does not change.
    """
    old = boundaries.get(before) if before.op == "variable" else None
    if old is not None and old.function is _unchanged:
        before, = old.inputs
    return cut([value], Boundary(_unchanged, [before]))[0]


def _unchanged(gradients: list[Node | None]) -> list[Node | None]:
    return gradients


def _reached(outputs: Sequence[Node]) -> list[Node]:
    """Nodes that gradients pass from the outputs, boundaries and leaves included."""
    seen = set(outputs)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node.op == "variable":
            if node.attrs[0] == FREED:
                raise fail("backward", "trying to backward through the graph a second time: its "
                           "history was released by the first backward",
                           "Say retain_graph=True in the first call if you need both.")
            continue
        call = node.call
        if call is None or now.anomaly:  # which looks at each value inside
            inputs: Any = node.inputs
        else:
            inputs = [call.inputs[place] for place in call.template.reached[node.part]]
        for value in inputs:
            if value.differentiable and value not in seen:
                seen.add(value)
                stack.append(value)
    return list(seen)


def propagate(outputs: Sequence[Node], cotangents: Sequence[Node],
              wanted: Callable[[Node], bool]) -> tuple[dict[Node, Node], list[Node]]:
    """Gradients of the wanted nodes, and all nodes passed."""
    gradients: dict[Node, Node] = {}
    waiting: dict[int, tuple[int, Boundary]] = {}
    passed: list[Node] = []
    uid_nodes: dict[int, Node] = {}
    while True:
        reached = _reached(outputs)
        passed += reached
        targets = []
        for node in reached:
            boundary = boundaries.get(node) if node.op == "variable" else None
            if boundary is not None:
                uid_nodes[node.attrs[0]] = node
                serial = max(node.serial, waiting.get(id(boundary), (0, boundary))[0])
                waiting[id(boundary)] = serial, boundary
                targets.append(node)
            elif wanted(node):
                targets.append(node)
        targets.sort(key=lambda node: node.serial)
        for node, gradient in zip(
            targets, derived.gradients(outputs, cotangents, targets), strict=True
        ):
            if gradient is not None:
                have = gradients.get(node)
                gradients[node] = gradient if have is None else graph.add(have, gradient)
        if not waiting:
            return gradients, passed
        key = max(waiting, key=lambda each: waiting[each][0])
        boundary = waiting.pop(key)[1]
        given = [gradients.get(uid_nodes[uid]) if uid in uid_nodes else None
                 for uid in boundary.members]
        if ir_nodes.placing:
            given = [each and placement.beside(each, uid_nodes[uid])
                     for each, uid in zip(given, boundary.members, strict=True)]
        results = boundary.function(given) if any(each is not None for each in given) else []
        pairs = [(node, gradient) for node, gradient in zip(boundary.inputs, results)
                 if gradient is not None and node.differentiable]
        outputs = [node for node, _ in pairs]
        cotangents = [gradient for _, gradient in pairs]


def _seeds(tensors: Sequence[Tensor], gradients: Sequence[Any],
           name: str) -> tuple[list[Node], list[Node]]:
    """The outputs' nodes and their cotangents."""
    nodes, cotangents = [], []
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if not tensor.requires_grad:
            raise fail(name, "this tensor does not require gradients: no input of its computation "
                       "does, or it was detached or computed within no_grad",
                       "Set requires_grad=True on what you want gradients of.")
        node = node_of(tensor)
        if gradient is None:
            if node.size != 1:
                raise fail(name, f"grad can be implicitly created only for scalar outputs, not for "
                           f"{listed(node.shape)}",
                           "Reduce it first (.sum(), .mean()) or give the gradient.")
            if node.dtype.is_complex:
                raise fail(name, "grad can be implicitly created only for real scalar outputs, not "
                           f"for {node.dtype.name}", "Take .real or .abs() of it, or give the "
                           "gradient.")
            cotangent = graph.like(1, node)
        else:
            cotangent = node_of(gradient)
            if cotangent.shape != node.shape:
                raise fail(
                    name,
                    f"the gradient {listed(cotangent.shape)} does not have the output's "
                    f"shape {listed(node.shape)}",
                )
            cotangent = graph.cast(cotangent, node.dtype)
        nodes.append(node)
        cotangents.append(cotangent)
    return nodes, cotangents


class _Recording:
    """Gradients are recorded with history only for create_graph."""

    def __init__(self, create_graph: bool) -> None:
        self.create_graph = create_graph

    def __enter__(self) -> None:
        self.before, now.grad = now.grad, self.create_graph

    def __exit__(self, *_: object) -> None:
        now.grad = self.before


def _release(passed: list[Node]) -> None:
    """Marks living tensors of the history just used: a second backward through them is refused."""
    used = {node for node in passed if node.op != "variable"}
    for cell in cells.live_cells():
        if cell.tracked and cell.node in used:
            cell.node = mark(cell.node, FREED)
            cell.cache = None


def _apply_hooks(tensor: Tensor, gradient: Tensor) -> Tensor:
    for hook in list((tensor._hooks or {}).values()):
        changed = hook(gradient)
        if changed is not None:
            gradient = changed
    return gradient


def _accumulate(tensor: Tensor, gradient: Tensor, create_graph: bool) -> None:
    if tensor._grad is None:
        tensor._grad = gradient
    elif create_graph:
        tensor._grad = tensor._grad + gradient
    else:
        from lazygrad._core.tensor import write
        write(tensor._grad, "grad", graph.add(node_of(tensor._grad), node_of(gradient)))
    for hook in list((tensor._post_hooks or {}).values()):
        hook(tensor)


@operation
def backward(tensors: Sequence[Tensor], gradients: Sequence[Any], retain_graph: bool | None,
             create_graph: bool, inputs: Any = None) -> None:
    """Adds gradients to `.grad` of the leaves reached (or of `inputs` only)."""
    if retain_graph is None:
        retain_graph = create_graph
    only = None if inputs is None else {id(each) for each in
                                        ([inputs] if isinstance(inputs, Tensor) else inputs)}
    with _Recording(True):
        outputs, cotangents = _seeds(tensors, gradients, "backward")
        retained = {node_of(tensor): tensor for tensor in list(_retaining)
                    if tensor._cell.tracked and tensor._leaf_uid() is None}
        if only is not None:
            for each in ([inputs] if isinstance(inputs, Tensor) else inputs):
                if not each.is_leaf:
                    retained[node_of(each)] = each
    with _Recording(create_graph):
        def wanted(node: Node) -> bool:
            if now.anomaly:
                return True
            if node.op == "variable" and (owner := variables.get(node.attrs[0])) is not None:
                return only is None or id(owner) in only
            return node in retained

        found, passed = propagate(outputs, cotangents, wanted)
        if now.anomaly:
            anomaly.check(found, passed)
        totals: dict[int, tuple[Tensor, Node]] = {}
        for node, gradient in found.items():
            owner = retained.get(node)
            if owner is None and node.op == "variable":
                owner = variables.get(node.attrs[0])
            if owner is not None and (only is None or id(owner) in only or owner._retains_grad):
                have = totals.get(id(owner))
                totals[id(owner)] = (
                    owner,
                    gradient if have is None else graph.add(have[1], gradient),
                )
        for owner, gradient in totals.values():
            gradient = owner.__dict__.pop("_after_hooks", gradient)
            if ir_nodes.placing:
                gradient = placement.onto(gradient, owner)
            result = wrap(graph.reshape(gradient, shape_of(owner)))
            if owner._leaf_uid() is not None:
                result = _apply_hooks(owner, result)
            _accumulate(owner, result, create_graph)
        if not retain_graph:
            _release(passed)


@operation
def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """Gradients of outputs for inputs, given back instead of added to `.grad`.

    is_grads_batched: grad_outputs have an axis in front, for each place of which there are
    gradients; so have the results.
    """
    if is_grads_batched:
        return _batched_grad(outputs, inputs, grad_outputs, create_graph, allow_unused,
                             materialize_grads)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not inputs:
        raise fail("grad", "there are no inputs",
                   "A generator such as model.parameters() gives its tensors only once.")
    if grad_outputs is None or isinstance(grad_outputs, Tensor):
        grad_outputs = [grad_outputs] * len(outputs)
    if retain_graph is None:
        retain_graph = create_graph
    with _Recording(True):
        nodes, cotangents = _seeds(outputs, grad_outputs, "grad")
        uids, targets = {}, {}
        for position, each in enumerate(inputs):
            if not each.requires_grad:
                raise fail("grad", f"input {position} does not require gradients",
                           "Set requires_grad=True on it before computing.")
            uid = each._leaf_uid()
            if uid is None:
                targets[node_of(each)] = position
            else:
                uids[uid] = position
    with _Recording(create_graph):
        found, passed = propagate(
            nodes, cotangents,
            lambda node: node in targets or (node.op == "variable" and node.attrs[0] in uids))
        totals: dict[int, Node] = {}
        for node, gradient in found.items():
            place = targets.get(node)
            if place is None and node.op == "variable":
                place = uids.get(node.attrs[0])
            if place is not None:
                have = totals.get(place)
                totals[place] = gradient if have is None else graph.add(have, gradient)
        results: list[Any] = []
        for position, each in enumerate(inputs):
            total = totals.get(position)
            if total is not None:
                result: Any = wrap(placement.onto(total, each) if ir_nodes.placing else total)
                results.append(
                    _apply_hooks(each, result) if each._leaf_uid() is not None else result
                )
            elif materialize_grads:
                zeros = graph.const(0, each.dtype, shape_of(each))
                results.append(wrap(placement.onto(zeros, each) if ir_nodes.placing else zeros))
            elif allow_unused:
                results.append(None)
            else:
                raise fail("grad", f"input {position} was not used to compute the outputs",
                           "Say allow_unused=True to get None for it.")
        if not retain_graph:
            _release(passed)
    return tuple(results)


def _batched_grad(outputs: Any, inputs: Any, grad_outputs: Any, create_graph: bool,
                  allow_unused: bool | None, materialize_grads: bool) -> tuple[Any, ...]:
    """The gradients for each of many cotangents; the graph stays for another time."""
    from lazygrad.func import vmap
    rows = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs or ())
    if not rows:
        raise fail("grad", "is_grads_batched is about grad_outputs, and there are none")
    used: list[int] = []

    def each(*row: Tensor) -> tuple[Tensor, ...]:
        found = grad(outputs, inputs, row, True, create_graph, True, allow_unused, False,
                     materialize_grads)
        used[:] = [position for position, gradient in enumerate(found) if gradient is not None]
        return tuple(found[position] for position in used)

    made = dict(zip(used, vmap(each)(*rows), strict=True))
    count = 1 if isinstance(inputs, Tensor) else len(inputs)
    return tuple(made.get(position) for position in range(count))


def retain_grad(tensor: Tensor) -> None:
    if not tensor.requires_grad:
        raise fail("retain_grad", "this tensor does not require gradients")
    if not tensor.is_leaf:
        tensor._retains_grad = True
        _retaining.add(tensor)


class Handle:
    """Removes a hook: `handle.remove()`, or leaving a `with` block."""

    _next = 0

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks = hooks
        self.id = Handle._next
        Handle._next += 1
        hooks[self.id] = hook

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@operation
def register_hook(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Handle:
    """On a leaf: before accumulation.  On a computed tensor: where its gradient passes."""
    if not tensor.requires_grad:
        raise fail("register_hook", "this tensor does not require gradients")
    if tensor._hooks is None:
        tensor._hooks = {}
        if tensor._leaf_uid() is None:
            _hook_boundary(tensor, tensor._hooks)
    return Handle(tensor._hooks, hook)


def _hook_boundary(tensor: Tensor, hooks: dict[int, Any]) -> None:
    """Puts a boundary after the tensor's value; uses from now on pass it."""
    node, owner = node_of(tensor), ref(tensor)

    def run(gradients: list[Node | None]) -> list[Node | None]:
        gradient = gradients[0]
        assert gradient is not None
        result = wrap(gradient)
        for hook in list(hooks.values()):
            changed = hook(result)
            result = result if changed is None else changed
        if (kept := owner()) is not None and kept._retains_grad:
            kept._after_hooks = node_of(result)  # what `.grad` gets
        return [node_of(result)]

    marked, = cut([node], Boundary(run, [node]))
    cell, view = tensor._cell, tensor._view
    if view is None:
        cell.node, cell.cache = marked, None
    elif not view.steps or cell.tracked:
        cell.read(view)
        assert cell.cache is not None
        cell.cache[view] = marked
    cells.register(cell)


def register_post_hook(tensor: Tensor, hook: Callable[[Tensor], None]) -> Handle:
    if tensor._leaf_uid() is None:
        raise fail("register_post_accumulate_grad_hook", "only leaves accumulate gradients")
    if tensor._post_hooks is None:
        tensor._post_hooks = {}
    return Handle(tensor._post_hooks, hook)
