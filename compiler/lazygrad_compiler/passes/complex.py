"""split-complex: every complex value becomes its two parts, so that no later stage knows complex.

In: a graph.  Out: an equal graph over real values.  A complex input of shape S is the same input
read as floats of shape S + (2,), a complex output its parts along a new last axis: the same bytes.
An op of a complex value becomes the formulas for its parts: part by part where it is linear or only
moves data, from `complex_functions.py` where it computes.  Library calls take and give complex
arrays; for them the parts are joined into one array before the call and taken apart after it.

    %2 = mul(%0, %1) : complex64[8]    becomes    re = a*c - b*d,  im = a*d + b*c
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_complex import PART
from lazygrad_compiler.ir.library_pairs import PAIRED
from lazygrad_compiler.ir.loop import Loop, make_loop
from lazygrad_compiler.ir.node import (
    Graph,
    IRError,
    Node,
    build,
    fresh_input,
    rebuild,
    topological,
)
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes import complex_functions
from lazygrad_compiler.passes.complex_values import Pair, Real

Value = Real | Pair
Handler = Callable[[Node, Sequence[Value]], Value]
HANDLERS: dict[str, Handler] = {}


def split_complex(graph: Graph) -> Graph:
    """The graph without complex values; itself where there are none.

    Raises IRError for an op that complex numbers do not have.
    """
    if not has_complex(graph.outputs):
        return graph
    return Graph(tuple(whole(value) for value in split_values(graph.outputs, {})))


def has_complex(outputs: Sequence[Node]) -> bool:
    """Whether a complex value occurs, be it in the body of a loop."""
    return any(
        current.dtype.is_complex or (current.op == "loop" and has_complex(current.attrs[0].outputs))
        for current in topological(outputs)
    )


def split_values(outputs: Sequence[Node], known: Mapping[Node, Value]) -> list[Value]:
    """What the outputs become, given what some of the nodes below them became."""
    values: dict[Node, Value] = dict(known)
    for current in topological(outputs, stop=lambda n: n in known):
        if current in values:
            continue
        operands = [values[value] for value in current.inputs]
        concerned = current.dtype.is_complex or any(
            isinstance(operand, Pair) for operand in operands
        )
        if concerned or (current.op == "loop" and has_complex(current.attrs[0].outputs)):
            rule = HANDLERS.get(current.op)
            if rule is None:
                raise IRError(f"[{current.op}] is not defined for complex numbers")
            values[current] = rule(current, operands)
        else:
            inputs = [operand.node for operand in operands if isinstance(operand, Real)]
            values[current] = Real(rebuild(current, inputs), current.location)
    return [values[output] for output in outputs]


def handler(*names: str) -> Callable[[Handler], Handler]:
    def register(function: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = function
        return function

    return register


# ---- parts in memory


def whole(value: Value) -> Node:
    """The value as one node: a pair's parts along a new last axis."""
    if isinstance(value, Real):
        return value.node
    shape = (*value.real.node.shape, 1)
    columns = [part.op("reshape", attrs=(shape,)) for part in value]
    return columns[0].op("concat", columns[1], attrs=(len(shape) - 1,)).node


def parts(value: Real) -> Pair:
    """The pair whose parts lie along the last axis."""
    shape = value.node.shape[:-1]
    front = (0,) * len(shape)
    steps = (1,) * (len(shape) + 1)
    return Pair(
        *(
            value.op("slice", attrs=((*front, k), (*shape, k + 1), steps)).op(
                "reshape", attrs=(shape,)
            )
            for k in (0, 1)
        )
    )


# ---- leaves


def leaf(node: Node, name: str, attrs: tuple) -> Real:
    return Real(build(OPS[name], (), attrs, node.location), node.location)


@handler("input")
def _input(node: Node, operands: Sequence[Value]) -> Pair:
    index, dtype, shape = node.attrs
    return parts(leaf(node, "input", (index, PART[dtype], (*shape, 2))))


@handler("const")
def _const(node: Node, operands: Sequence[Value]) -> Pair:
    number, dtype, shape = complex(node.attrs[0]), PART[node.dtype], node.shape
    return Pair(
        leaf(node, "const", (number.real, dtype, shape)),
        leaf(node, "const", (number.imag, dtype, shape)),
    )


@handler("iota")
def _iota(node: Node, operands: Sequence[Value]) -> Pair:
    axis, dtype, shape = node.attrs
    count = leaf(node, "iota", (axis, PART[dtype], shape))
    return Pair(count, count.like(0.0))


# ---- part by part


def _part(value: Value, number: int) -> Node:
    """Part `number` of a complex operand; a real one (a condition, an index) as it is."""
    if isinstance(value, Real):
        return value.node
    return (value.real, value.imaginary)[number].node


def _part_by_part(node: Node, operands: Sequence[Value]) -> Pair:
    return Pair(
        *(
            Real(
                build(
                    OPS[node.op],
                    tuple(_part(value, number) for value in operands),
                    node.attrs,
                    node.location,
                ),
                node.location,
            )
            for number in (0, 1)
        )
    )


HANDLERS |= dict.fromkeys(
    (
        "neg", "add", "sub", "where", "reshape", "permute", "expand", "slice", "flip", "concat",
        "window", "sum", "gather", "variable", "stop_gradient", "transfer",
    ),
    _part_by_part,
)


@handler("pad")
def _pad(node: Node, operands: Sequence[Value]) -> Pair:
    low, high, interior, fill = node.attrs
    (value,) = operands
    assert isinstance(value, Pair)
    number = complex(fill)
    return Pair(
        value.real.op("pad", attrs=(low, high, interior, number.real)),
        value.imaginary.op("pad", attrs=(low, high, interior, number.imag)),
    )


@handler("scatter")
def _scatter(node: Node, operands: Sequence[Value]) -> Pair:
    if node.attrs[1] not in ("set", "add"):
        raise IRError(f"[scatter] of complex numbers by {node.attrs[1]!r} is not possible")
    return _part_by_part(node, operands)


# ---- elementwise


def unary(function: Callable[[Pair], Value]) -> Handler:
    def handle(node: Node, operands: Sequence[Value]) -> Value:
        (z,) = operands
        assert isinstance(z, Pair)
        return function(z)

    return handle


def binary(function: Callable[[Pair, Pair], Value]) -> Handler:
    def handle(node: Node, operands: Sequence[Value]) -> Value:
        z, w = operands
        assert isinstance(z, Pair) and isinstance(w, Pair)
        return function(z, w)

    return handle


HANDLERS |= {name: unary(function) for name, function in complex_functions.FUNCTIONS.items()}
HANDLERS |= {
    "abs": unary(complex_functions.size),
    "real": unary(lambda z: z.real),
    "imag": unary(lambda z: z.imaginary),
    "conj": unary(lambda z: Pair(z.real, -z.imaginary)),
    "view_as_real": unary(lambda z: Real(whole(z), z.real.location)),
    "mul": binary(lambda z, w: z * w),
    "div": binary(complex_functions.divide),
    "pow": binary(complex_functions.power),
    "eq": binary(lambda z, w: z.real.equals(w.real) & z.imaginary.equals(w.imaginary)),
    "ne": binary(lambda z, w: z.real.differs(w.real) | z.imaginary.differs(w.imaginary)),
}


@handler("complex")
def _complex(node: Node, operands: Sequence[Value]) -> Pair:
    real, imaginary = operands
    assert isinstance(real, Real) and isinstance(imaginary, Real)
    return Pair(real, imaginary)


@handler("view_as_complex")
def _view_as_complex(node: Node, operands: Sequence[Value]) -> Pair:
    (value,) = operands
    assert isinstance(value, Real)
    return parts(value)


@handler("cast")
def _cast(node: Node, operands: Sequence[Value]) -> Value:
    """Of a complex number, the real part; to bool, whether it is not 0."""
    (value,) = operands
    target = node.attrs[0]
    if isinstance(value, Pair):
        if target.is_complex:
            return Pair(value.real.cast(PART[target]), value.imaginary.cast(PART[target]))
        if target is dtypes.bool_:
            return value.real.differs(0.0) | value.imaginary.differs(0.0)
        return value.real.cast(target)
    real = value.cast(PART[target])
    return Pair(real, real.like(0.0))


@handler("bitcast")
def _bitcast(node: Node, operands: Sequence[Value]) -> Value:
    """Between complex64 and other dtypes of 64 bits: the real part is the lower half."""
    (value,) = operands
    target: DType = node.attrs[0]
    if isinstance(value, Pair):
        if target.is_complex:
            return value
        low, high = (
            part.op("bitcast", attrs=(dtypes.uint32,)).cast(dtypes.uint64) for part in value
        )
        return high.op("shl", 32).op("or", low).op("bitcast", attrs=(target,))
    bits = value.op("bitcast", attrs=(dtypes.uint64,))
    halves = (bits, bits.op("shr", 32))
    return Pair(
        *(half.cast(dtypes.uint32).op("bitcast", attrs=(dtypes.float32,)) for half in halves)
    )


# ---- over several elements


@handler("dot", "conv")
def _product(node: Node, operands: Sequence[Value]) -> Pair:
    """Four real products: three would do, but cancel."""
    z, w = operands
    assert isinstance(z, Pair) and isinstance(w, Pair)

    def product(left: Real, right: Real) -> Real:
        return left.op(node.op, right, attrs=node.attrs)

    return Pair(
        product(z.real, w.real) - product(z.imaginary, w.imaginary),
        product(z.real, w.imaginary) + product(z.imaginary, w.real),
    )


def _along(value: Pair, axis: int, start: int, stop: int) -> Pair:
    shape = value.real.node.shape
    starts = tuple(start if k == axis else 0 for k in range(len(shape)))
    stops = tuple(stop if k == axis else size for k, size in enumerate(shape))
    return value.each("slice", attrs=(starts, stops, (1,) * len(shape)))


def _with_ones(value: Pair, axis: int, low: int, high: int) -> Pair:
    """Padded along an axis with ones."""
    rank = len(value.real.node.shape)

    def sides(amount: int) -> tuple[int, ...]:
        return tuple(amount if k == axis else 0 for k in range(rank))

    return Pair(
        *(
            part.op("pad", attrs=(sides(low), sides(high), sides(0), fill))
            for part, fill in zip(value, (1.0, 0.0), strict=True)
        )
    )


@handler("prod")
def _prod(node: Node, operands: Sequence[Value]) -> Pair:
    """Halves multiplied pairwise, down to one."""
    (value,) = operands
    assert isinstance(value, Pair)
    shape, axes = node.inputs[0].shape, node.attrs[0]
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    count = math.prod(shape[axis] for axis in axes)
    if count == 0 or node.size == 0:
        return Pair(*(
            leaf(node, "const", (number, PART[node.dtype], node.shape)) for number in (1.0, 0.0)
        ))
    value = value.each("permute", attrs=((*kept, *axes),))
    value = value.each("reshape", attrs=((*node.shape, count),))
    axis = len(node.shape)
    while count > 1:
        half = -(-count // 2)
        second = _with_ones(_along(value, axis, half, count), axis, 0, 2 * half - count)
        value = _along(value, axis, 0, half) * second
        count = half
    return value.each("reshape", attrs=(node.shape,))


@handler("scan")
def _scan(node: Node, operands: Sequence[Value]) -> Pair:
    """Sums part by part; products by doubling: element k takes in the one 1, 2, 4, … before it."""
    (value,) = operands
    assert isinstance(value, Pair)
    axis, combine, reverse = node.attrs
    if combine == "add":
        return value.each("scan", attrs=node.attrs)
    if combine != "mul":
        raise IRError(f"[scan] by {combine} is not defined for complex numbers")
    length, distance = node.shape[axis], 1
    while distance < length:
        if reverse:
            other = _with_ones(_along(value, axis, distance, length), axis, 0, distance)
        else:
            other = _with_ones(_along(value, axis, 0, length - distance), axis, distance, 0)
        value = value * other
        distance *= 2
    return value


# ---- loops


def _as_real(values: Sequence[Value]) -> list[Node]:
    """Every real value, and both parts of every pair, in order."""
    return [
        part.node
        for value in values
        for part in ((value,) if isinstance(value, Real) else tuple(value))
    ]


@handler("loop")
def _loop(node: Node, operands: Sequence[Value]) -> Value:
    """The loop whose body is split, with two states, series or constants for each complex one."""
    loop = Loop.of(node)
    body = loop.opened()

    def stand_in(inner: Node) -> Value:
        if not inner.dtype.is_complex:
            return Real(inner, node.location)
        dtype = PART[inner.dtype]
        return Pair(
            *(Real(fresh_input(dtype, inner.shape, ()), node.location) for _ in range(2))
        )

    inside = [stand_in(inner) for inner in body.inputs]
    outputs = split_values(body.outputs, dict(zip(body.inputs, inside, strict=True)))
    carried, series_end = loop.carried, loop.carried + loop.stepped

    def pairs(begin: int, end: int | None) -> list[tuple[Node, Node]]:
        return list(zip(_as_real(inside[begin:end]), _as_real(operands[begin:end]), strict=True))

    made = make_loop(
        loop.body.name,
        [
            (inner, first, later)
            for (inner, first), later in zip(
                pairs(0, carried), _as_real(outputs[:carried]), strict=True
            )
        ],
        pairs(carried, series_end),
        pairs(series_end, None),
        _as_real(outputs[carried:]),
        loop.length,
        loop.reverse,
        loop.location,
        loop.body,
    )
    part = node.attr("part")
    place = len(_as_real(outputs[:part]))
    if node.dtype.is_complex:
        results = [Real(made.part(place + k), node.location) for k in range(2)]
        return Pair(*results)
    return Real(made.part(place), node.location)


# ---- library calls


@handler("library")
def _library(node: Node, operands: Sequence[Value]) -> Value:
    """The same call on arrays of pairs (`ir/library_pairs.py`)."""
    name, options, part = node.attrs
    flags = tuple(isinstance(value, Pair) for value in operands)
    made = build(
        OPS["library"],
        tuple(whole(value) for value in operands),
        (name + PAIRED, (options, flags), part),
        node.location,
    )
    result = Real(made, node.location)
    return parts(result) if node.dtype.is_complex else result
