"""Derivatives of functions: gradients, products with Jacobians from either side, whole Jacobians.

A function is called on arguments that carry a `variable` marker; the autodiff pass derives what is
wanted from the nodes that it recorded, and the markers are taken out again.  So an outer transform
differentiates straight through an inner one.

Products from the right need no rules of their own: the vector-Jacobian product is linear in its
vector, and its transpose is the Jacobian-vector product.  What the vector was does not matter and
is gone from the graph (the double-backward trick; J. Townsend, "A new trick for calculating
Jacobian vector products", 2017).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from lazygrad._core import engine, graph
from lazygrad._core.context import fail, here, now, operation
from lazygrad._core.engine import Boundary, boundaries
from lazygrad._core.nests import parts_of, replace, tensors_in
from lazygrad._core.tensor import Tensor, _uids, node_of, shape_of, wrap
from lazygrad_compiler.ir.node import Node, build, device_of, fresh_input, rebuild, topological
from lazygrad_compiler.ir.ops import OPS, listed

_VARIABLE = OPS["variable"]


class _Recorded:
    """A function called on marked arguments.

    inputs: the arguments' nodes.  variables: the markers on them.  results: the nest that came
    back; outputs: the nodes of its tensors.  auxiliary: what came with it.
    """

    def __init__(self, name: str, function: Callable[..., Any], arguments: Sequence[Any],
                 chosen: Sequence[int], keywords: dict[str, Any], has_aux: bool) -> None:
        self.name = name
        self.inputs: list[Node] = []
        self.variables: list[Node] = []
        marked = list(arguments)
        line, operation = now.location, now.operation
        before, now.grad = now.grad, True
        try:
            for position in chosen:
                marked[position] = replace(arguments[position], self._mark)
            now.location = ()
            returned = function(*marked, **keywords)
            now.location, now.operation = line, operation
            self.auxiliary: Any = None
            if has_aux:
                if not isinstance(returned, tuple) or len(returned) != 2:
                    raise fail(name, "with has_aux=True the function returns (result, auxiliary)",
                               kind=RuntimeError)
                returned, auxiliary = returned
                self.auxiliary = (auxiliary, [node_of(each) for each in tensors_in(auxiliary)])
            self.results = returned
            self.outputs = [node_of(tensor) for tensor in tensors_in(returned)]
        finally:
            now.grad, now.location, now.operation = before, line, operation
        if not self.outputs:
            raise fail(name, f"the function returned no tensor but {type(returned).__name__}",
                       kind=TypeError)

    def _mark(self, tensor: Tensor) -> Tensor:
        if not tensor.dtype.is_differentiable:
            raise fail(self.name, f"an argument is {tensor.dtype.name}; only floating-point and "
                       "complex tensors have derivatives",
                       "Convert it, or leave it out of argnums.")
        node = node_of(tensor)
        marker = build(_VARIABLE, (node,), (next(_uids),), now.location or here())
        self.inputs.append(node)
        self.variables.append(marker)
        return wrap(marker)

    def pull(self, cotangents: Sequence[Node]) -> list[Node]:
        """The gradient of each input for cotangents of the outputs, markers still inside."""
        pairs = [(output, cotangent) for output, cotangent in
                 zip(self.outputs, cotangents, strict=True) if output.differentiable]
        wanted = set(self.variables)
        found: dict[Node, Node] = {}
        if pairs:
            before, now.grad = now.grad, True
            try:
                found, _ = engine.propagate([output for output, _ in pairs],
                                            [cotangent for _, cotangent in pairs],
                                            lambda node: node in wanted)
            finally:
                now.grad = before
        return [found[marker] if marker in found else graph.like(0, marker)
                for marker in self.variables]

    def unmarked(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes with the arguments themselves instead of the markers."""
        result: dict[Node, Node] = dict(zip(self.variables, self.inputs, strict=True))
        moved: dict[int, Boundary] = {}
        for current in topological(nodes, stop=lambda node: node in result):
            if current in result:
                continue
            new = result[current] = rebuild(current, [result[value] for value in current.inputs])
            boundary = boundaries.get(current) if current.op == "variable" else None
            if boundary is not None and new is not current:
                # a custom backward goes with its outputs
                if id(boundary) not in moved:
                    inputs = [result.get(value, value) for value in boundary.inputs]
                    moved[id(boundary)] = Boundary(boundary.function, inputs)
                    moved[id(boundary)].members = boundary.members
                boundaries[new] = moved[id(boundary)]
        return [result[node] for node in nodes]

    def value(self) -> Any:
        """The function's result, without markers."""
        return _refilled(self.results, self.unmarked(self.outputs))

    def aux(self) -> Any:
        if self.auxiliary is None:
            return None
        nest, nodes = self.auxiliary
        return _refilled(nest, self.unmarked(nodes))


def _refilled(nest: Any, nodes: Sequence[Node]) -> Any:
    """The nest with tensors of these nodes."""
    made = iter(nodes)
    return replace(nest, lambda _: wrap(next(made)))


def _positions(name: str, argnums: int | tuple[int, ...], count: int) -> list[int]:
    chosen = [argnums] if isinstance(argnums, int) else list(argnums)
    for number in chosen:
        if not -count <= number < count:
            raise fail(name, f"argnums {number} with {count} arguments", kind=ValueError)
    result = [number % count for number in chosen]
    if len(set(result)) != len(result):
        raise fail(name, f"argnums {argnums} names an argument twice", kind=ValueError)
    return result


# ---- gradients


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives (gradient, value) of a function with one 0-d result."""

    @functools.wraps(func)
    @operation
    def derived(*arguments: Any, **keywords: Any) -> Any:
        chosen = _positions("grad", argnums, len(arguments))
        recorded = _Recorded("grad", func, arguments, chosen, keywords, has_aux)
        if not isinstance(recorded.results, Tensor) or recorded.outputs[0].size != 1 \
                or recorded.outputs[0].ndim:
            shapes = ", ".join(listed(node.shape) for node in recorded.outputs)
            raise fail("grad", f"the function returns {shapes}, not one 0-d tensor",
                       "Reduce it (.sum(), .mean()), or use vjp or jacrev.")
        gradients = recorded.unmarked(recorded.pull([graph.like(1, recorded.outputs[0])]))
        nodes = iter(gradients)
        nests = [replace(arguments[position], lambda _: wrap(next(nodes))) for position in chosen]
        result = nests[0] if isinstance(argnums, int) else tuple(nests)
        value = recorded.value()
        return result, ((value, recorded.aux()) if has_aux else value)

    return derived


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a function with one 0-d result.

    argnums: which arguments.  has_aux: the function returns (result, auxiliary), and the gradient
    function (gradient, auxiliary).
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def derived(*arguments: Any, **keywords: Any) -> Any:
        gradients, value = both(*arguments, **keywords)
        return (gradients, value[1]) if has_aux else gradients

    return derived


def value_and_grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Like `grad_and_value`, value first."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def derived(*arguments: Any, **keywords: Any) -> Any:
        gradients, value = both(*arguments, **keywords)
        return value, gradients

    return derived


# ---- products with the Jacobian


@operation
def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """(result, vjp function[, auxiliary]): the latter takes cotangents shaped like the result and
    gives a tuple, the gradient of each primal.
    """
    recorded = _Recorded("vjp", func, primals, range(len(primals)), {}, has_aux)

    @operation
    def pull_back(*cotangents: Any) -> Any:
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        nodes = _like_outputs("vjp", "cotangent", given, recorded.outputs)
        gradients = iter(recorded.unmarked(recorded.pull(nodes)))
        return tuple(replace(primal, lambda _: wrap(next(gradients))) for primal in primals)

    value = recorded.value()
    return (value, pull_back, recorded.aux()) if has_aux else (value, pull_back)


def _like_outputs(name: str, what: str, given: Any, outputs: Sequence[Node]) -> list[Node]:
    """The nodes of tensors given for each output; errors where they do not fit."""
    tensors = list(tensors_in(given))
    if len(tensors) != len(outputs):
        raise fail(name, f"{len(tensors)} {what}s for {len(outputs)} tensors")
    nodes = []
    for tensor, output in zip(tensors, outputs, strict=True):
        if tuple(shape_of(tensor)) != tuple(output.shape):
            raise fail(name, f"a {what} is {listed(shape_of(tensor))}, what it belongs to "
                       f"{listed(output.shape)}")
        nodes.append(graph.cast(node_of(tensor), output.dtype))
    return nodes


def _push(recorded: _Recorded, tangents: Sequence[Node]) -> list[Node]:
    """The derivative of each output along the tangents, markers still inside."""
    from lazygrad_compiler.autodiff.backward import backward

    cotangents = []
    for output in recorded.outputs:
        stand_in = fresh_input(output.dtype, output.shape, output.location)
        if (device := device_of(output)) is not None:
            stand_in.device = device
        cotangents.append(build(_VARIABLE, (stand_in,), (next(_uids),), output.location))
    gradients = recorded.pull(cotangents)
    found = backward(gradients, tangents, cotangents)
    return [graph.like(0, output) if derivative is None else derivative
            for output, derivative in zip(recorded.outputs, found, strict=True)]


@operation
def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False,
        has_aux: bool = False) -> tuple[Any, ...]:
    """(result, derivative along the tangents[, auxiliary]); primals and tangents are tuples of the
    same shapes.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise fail("jvp", "primals and tangents are tuples", "Write (x,) for one.", TypeError)
    recorded = _Recorded("jvp", func, primals, range(len(primals)), {}, has_aux)
    nodes = _like_outputs("jvp", "tangent", tangents, recorded.inputs)
    if strict and not any(output.differentiable for output in recorded.outputs):
        raise fail("jvp", "no output depends on the primals (strict=True)")
    derivative = _refilled(recorded.results, recorded.unmarked(_push(recorded, nodes)))
    value = recorded.value()
    return (value, derivative, recorded.aux()) if has_aux else (value, derivative)


@operation
def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(result, function of tangents): the derivative at the primals, as a linear function."""
    recorded = _Recorded("linearize", func, primals, range(len(primals)), {}, False)

    @operation
    def push_forward(*tangents: Any) -> Any:
        nodes = _like_outputs("linearize", "tangent", tangents, recorded.inputs)
        return _refilled(recorded.results, recorded.unmarked(_push(recorded, nodes)))

    return recorded.value(), push_forward


# ---- whole Jacobians


def _basis(node: Node) -> Tensor:
    """Every unit vector of a node's shape, along a new first axis."""
    count = node.size
    same = graph.make("eq", graph.iota(0, (count, count)), graph.iota(1, (count, count)))
    return wrap(graph.reshape(graph.cast(same, node.dtype), (count, *node.shape)))


def _zeros(node: Node, count: int) -> Tensor:
    return wrap(graph.const(0, node.dtype, (count, *node.shape)))


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """The Jacobian by reverse mode, one product a result element: result shape + argument shape."""
    from lazygrad.func.vectorize import vmap

    @functools.wraps(func)
    @operation
    def derived(*arguments: Any, **keywords: Any) -> Any:
        chosen = _positions("jacrev", argnums, len(arguments))
        recorded = _Recorded("jacrev", func, arguments, chosen, keywords, has_aux)
        rows: list[list[Tensor]] = []
        for place, output in enumerate(recorded.outputs):

            def pull_back(vector: Tensor, place: int = place) -> tuple[Tensor, ...]:
                cotangents = [node_of(vector) if k == place else graph.like(0, other)
                              for k, other in enumerate(recorded.outputs)]
                return tuple(wrap(node) for node in recorded.unmarked(recorded.pull(cotangents)))

            columns = vmap(pull_back, chunk_size=chunk_size)(_basis(output))
            rows.append([column.reshape(*output.shape, *given.shape)
                         for column, given in zip(columns, recorded.inputs, strict=True)])
        result = _arranged(recorded, arguments, chosen, isinstance(argnums, int), rows)
        return (result, recorded.aux()) if has_aux else result

    return derived


def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """The Jacobian by forward mode, one product an argument element: result shape + argument
    shape.
    """
    from lazygrad.func.vectorize import vmap

    @functools.wraps(func)
    @operation
    def derived(*arguments: Any, **keywords: Any) -> Any:
        chosen = _positions("jacfwd", argnums, len(arguments))
        recorded = _Recorded("jacfwd", func, arguments, chosen, keywords, has_aux)
        rows: list[list[Tensor]] = [[] for _ in recorded.outputs]
        for place, given in enumerate(recorded.inputs):

            def push_forward(vector: Tensor, place: int = place) -> tuple[Tensor, ...]:
                tangents = [node_of(vector) if k == place else graph.like(0, other)
                            for k, other in enumerate(recorded.inputs)]
                return tuple(wrap(node) for node in recorded.unmarked(_push(recorded, tangents)))

            columns = vmap(push_forward, out_dims=-1, randomness=randomness)(_basis(given))
            for row, column, output in zip(rows, columns, recorded.outputs, strict=True):
                row.append(column.reshape(*output.shape, *given.shape))
        result = _arranged(recorded, arguments, chosen, isinstance(argnums, int), rows)
        return (result, recorded.aux()) if has_aux else result

    return derived


def _arranged(recorded: _Recorded, arguments: Sequence[Any], chosen: Sequence[int], single: bool,
              rows: list[list[Tensor]]) -> Any:
    """Jacobians as a nest like the result's, of nests like the arguments'."""
    def of_output(row: list[Tensor]) -> Any:
        columns = iter(row)
        nests = [replace(arguments[position], lambda _: next(columns)) for position in chosen]
        return nests[0] if single else tuple(nests)

    made = iter(rows)

    def fill(part: Any) -> Any:
        if isinstance(part, Tensor):
            return of_output(next(made))
        items = parts_of(part)
        if items is None:
            return part
        from lazygrad._core.nests import rebuild as rebuild_nest
        return rebuild_nest(part, [fill(item) for item in items])

    return fill(recorded.results)


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Second derivatives: forward mode over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)
