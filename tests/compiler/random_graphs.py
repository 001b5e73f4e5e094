"""Random graphs for fuzzing: every op of the table, small odd shapes, special values.

`random_graph(seed)` gives a graph and its input arrays, the same ones for the same seed.  It
evaluates as it builds (with the interpreter and `error_bounds.py`), so that every graph runs
without errors and every output can be compared: no overflow by accident, no branch on a rounded
value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.dtypes import DTYPES, DType
from lazygrad_compiler.ir.inference_scan import SCAN_COMBINES
from lazygrad_compiler.ir.node import Graph, IRError, Node, node, rebuild, topological
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, SCATTER_MODES
from tests.compiler.error_bounds import (
    Array,
    Bound,
    IllConditioned,
    assert_close,
    bound_of,
    check,
    compute_node,
    wide,
)

__all__ = ["KINDS", "REAL_DTYPES", "assert_close", "check", "random_array", "random_graph"]

KINDS = ("elementwise", "movement", "reduction", "contraction", "indexed", "leaf", "marker")
"""What is drawn where nothing else is asked for; there are scans, too."""
REAL_DTYPES = tuple(name for name, dtype in DTYPES.items() if not dtype.is_complex)
COMMON_DTYPES = ("float32", "float32", "float32", "float64", "int64", "int32", "bool")
"""What most of a graph is made of, so that its nodes fit together."""

SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 11, 13, 16, 17, 31)
MAX_ELEMENTS = 1500


def random_array(rng: random.Random, dtype: DType, shape: Sequence[int]) -> Array:
    """Values of moderate size; one float array in four also has nan, inf, -0.0, tiny and huge."""
    generator = numpy.random.default_rng(rng.getrandbits(32))
    if dtype.kind == "bool":
        return generator.random(shape) < 0.5
    if dtype.is_integer:
        low, high = dtype.limits()
        if rng.random() < 0.25:
            return generator.integers(low, high, shape, dtype.numpy, endpoint=True)
        return generator.integers(max(low, -9), 10, shape).astype(dtype.numpy)
    values = generator.standard_normal(shape)
    if rng.random() < 0.3:
        values = numpy.round(values * 4) / 2
    if dtype.is_complex:
        return (values + 1j * generator.standard_normal(shape)).astype(dtype.numpy)
    if rng.random() < 0.25:
        tiny, huge = {"float16": (1e-7, 6e4)}.get(dtype.name, (1e-40, 1e30))
        specials = numpy.array([math.nan, math.inf, -math.inf, -0.0, 0.0, tiny, -tiny, huge, 0.5,
                                1.0])
        chosen = generator.integers(0, len(specials), shape)
        values = numpy.where(generator.random(shape) < 0.2, specials[chosen], values)
    with numpy.errstate(over="ignore"):
        return values.astype(dtype.numpy)


def random_graph(seed: int, size: int = 20, dtypes: Sequence[str] = REAL_DTYPES,
                 kinds: Sequence[str] = KINDS) -> tuple[Graph, list[Array]]:
    """A graph of about `size` operations with one to four outputs, and arrays for its inputs.

    dtypes: which may appear (int64 always may, for indices, and bool, for conditions).
    kinds: of ops, among KINDS; inputs and constants always appear.
    """
    maker = _Maker(random.Random(seed), tuple(dtypes))
    makers = [function for kind in kinds for function in MAKERS[kind]]
    weights = [WEIGHTS[kind] / len(MAKERS[kind]) for kind in kinds for _ in MAKERS[kind]]
    maker.new_input()
    attempts = 0
    made = 0
    while made < size and attempts < 12 * size:
        attempts += 1
        function, = maker.rng.choices(makers, weights)
        if function(maker) is not None:
            made += 1
    return maker.finish()


class _Maker:
    """A graph under construction: the nodes so far, each with its value and allowed error."""

    def __init__(self, rng: random.Random, names: tuple[str, ...]) -> None:
        self.rng = rng
        self.dtypes = [DTYPES[name] for name in names]
        self.common = [DTYPES[name] for name in COMMON_DTYPES if name in names] or self.dtypes
        self.nodes: list[Node] = []
        self.values: dict[Node, Array] = {}
        self.bounds: dict[Node, Bound] = {}
        self.inputs: list[Node] = []

    # ---- making nodes

    def add(self, op: str, *inputs: Node | None, **attributes: Any) -> Node | None:
        """The node, if it is legal, small, and comparable; else None."""
        if any(operand is None for operand in inputs):
            return None
        operands = tuple(operand for operand in inputs if operand is not None)
        try:
            made = node(op, *operands, **attributes)
        except IRError:
            return None
        if made in self.values:
            return made
        if made.size > MAX_ELEMENTS:
            return None
        values = [self.values[operand] for operand in operands]
        value = compute_node(made, values)
        try:
            bound = bound_of(made, values, [self.bounds[operand] for operand in operands], value)
        except IllConditioned:
            return None
        self.values[made], self.bounds[made] = value, bound
        self.nodes.append(made)
        return made

    def new_input(self, dtype: DType | None = None, shape: tuple[int, ...] | None = None,
                  value: Array | None = None) -> Node:
        dtype = dtype or self.dtype()
        shape = self.shape() if shape is None else shape
        made = node("input", index=len(self.inputs), dtype=dtype, shape=shape)
        self.inputs.append(made)
        self.nodes.append(made)
        self.values[made] = random_array(self.rng, dtype, shape) if value is None else value
        self.bounds[made] = Bound(numpy.zeros(shape))
        return made

    def constant(self, dtype: DType, shape: tuple[int, ...]) -> Node | None:
        return self.add("const", value=self.number(dtype), dtype=dtype, shape=shape)

    def number(self, dtype: DType) -> Any:
        if dtype.kind == "bool":
            return self.rng.random() < 0.5
        if dtype.is_integer:
            low, high = dtype.limits()
            return self.rng.choice([0, 1, 2, 3, 4, 5, 8, max(low, -1), low, high])
        if dtype.is_complex:
            return complex(self.rng.choice([0.0, 1.0, -0.5]), self.rng.choice([0.0, 2.0]))
        return self.rng.choice([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 0.1, 4.0, math.inf, math.nan])

    # ---- choices

    def dtype(self) -> DType:
        return self.rng.choice(self.common if self.rng.random() < 0.6 else self.dtypes)

    def shape(self) -> tuple[int, ...]:
        while True:
            rank = self.rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4])
            shape = tuple(self.rng.choice(SIZES) for _ in range(rank))
            if rank and self.rng.random() < 0.03:
                shape = (*shape[1:], 0)
            if math.prod(shape) <= 400:
                return shape

    def pick(self, allowed: Callable[[Node], bool] = lambda value: True) -> Node | None:
        """A node, the later the likelier."""
        fitting = [value for value in self.nodes if allowed(value)]
        if not fitting:
            return None
        if self.rng.random() < 0.6:
            return self.rng.choice(fitting[-4:])
        return self.rng.choice(fitting)

    def pick_kind(self, *kinds: str) -> Node | None:
        return self.pick(lambda value: value.dtype.kind in kinds)

    def partner(self, dtype: DType, shape: tuple[int, ...]) -> Node | None:
        """A node of that dtype and shape: found, broadcast, converted, or new."""
        chance = self.rng.random()
        if chance < 0.55:
            found = self.pick(lambda v: v.dtype is dtype and v.shape == shape)
            if found is not None:
                return found
        if chance < 0.75:
            wanted = tuple(size if self.rng.random() < 0.5 else 1 for size in shape)
            small = self.pick(lambda v: v.dtype is dtype and v.shape == wanted)
            if small is None and len(self.inputs) < 6:
                small = self.new_input(dtype, wanted)
            if small is not None:
                return self.add("expand", small, shape=shape)
        if chance < 0.85:
            return self.constant(dtype, shape)
        if len(self.inputs) < 8:
            return self.new_input(dtype, shape)
        return self.constant(dtype, shape)

    def axes(self, rank: int, least: int = 0) -> tuple[int, ...]:
        count = self.rng.randint(min(least, rank), rank)
        return tuple(sorted(self.rng.sample(range(rank), count)))

    def finish(self) -> tuple[Graph, list[Array]]:
        """Outputs: nodes that nothing uses, or any; inputs renumbered to those that are reached."""
        used = {operand for value in self.nodes for operand in value.inputs}
        ends = [value for value in self.nodes if value not in used and value.op != "input"]
        ends = ends or [self.nodes[-1]]
        self.rng.shuffle(ends)
        ends.sort(key=lambda value: -len(topological([value])))
        outputs = ends[: self.rng.randint(1, 4)]
        self.rng.shuffle(outputs)
        if self.rng.random() < 0.3:
            outputs.append(self.rng.choice(self.nodes))
        reached = Graph(tuple(outputs)).inputs()
        arrays = [self.values[leaf] for leaf in reached]
        return renumbered(Graph(tuple(outputs))), arrays


def renumbered(graph: Graph) -> Graph:
    """The graph with its inputs numbered 0..n-1, in the order that they had."""
    leaves = {leaf: node("input", index=number, dtype=leaf.dtype, shape=leaf.shape)
              for number, leaf in enumerate(graph.inputs())}
    result: dict[Node, Node] = {}
    for current in graph.nodes():
        inputs = [result[operand] for operand in current.inputs]
        result[current] = leaves.get(current) or rebuild(current, inputs)
    return Graph(tuple(result[output] for output in graph.outputs))


# ---- one function an op or family, by kind

Make = Callable[[_Maker], Node | None]
MAKERS: dict[str, list[Make]] = {kind: [] for kind in (*KINDS, "scan")}
WEIGHTS = {"elementwise": 18, "movement": 7, "reduction": 3, "contraction": 1.5, "indexed": 1.5,
           "leaf": 1.5, "marker": 0.4, "scan": 4}

UNARY = {
    "neg": "unsigned signed float complex", "abs": "unsigned signed float",
    "sign": "unsigned signed float", "floor": "float", "ceil": "float", "trunc": "float",
    "round": "float", "sqrt": "float", "not": "bool unsigned signed", "sigmoid": "float",
}
BINARY = {
    "add": "unsigned signed float complex", "sub": "unsigned signed float complex",
    "mul": "unsigned signed float complex", "div": "float complex", "idiv": "unsigned signed",
    "rem": "unsigned signed float", "maximum": "bool unsigned signed float",
    "minimum": "bool unsigned signed float", "pow": "unsigned signed float", "atan2": "float",
    "and": "bool unsigned signed", "or": "bool unsigned signed", "xor": "bool unsigned signed",
    "shl": "unsigned signed", "shr": "unsigned signed", "lt": "bool unsigned signed float",
    "le": "bool unsigned signed float", "eq": "bool unsigned signed float complex",
    "ne": "bool unsigned signed float complex", "copysign": "float", "nextafter": "float",
    "gcd": "unsigned signed",
}
ARGUMENT_LIMIT = {"exp": 20, "exp2": 30, "expm1": 20, "sinh": 20, "cosh": 20, "sin": 1e4,
                  "cos": 1e4,
                  "tan": 1e4}
"""Beyond these the result is out of range, or the argument's own error decides it."""


def maker(kind: str) -> Callable[[Make], Make]:
    def register(function: Make) -> Make:
        MAKERS[kind].append(function)
        return function
    return register


@maker("elementwise")
@maker("elementwise")
def _unary(maker: _Maker) -> Node | None:
    op, kinds = maker.rng.choice(list(UNARY.items()))
    return maker.add(op, maker.pick_kind(*kinds.split()))


@maker("elementwise")
@maker("elementwise")
@maker("elementwise")
def _elementary(maker: _Maker) -> Node | None:
    op = maker.rng.choice(ELEMENTARY_UNARY)
    x = maker.pick_kind("float")
    if x is None:
        return None
    finite = numpy.abs(wide(maker.values[x]))
    if finite[numpy.isfinite(finite)].max(initial=0) > ARGUMENT_LIMIT.get(op, math.inf):
        return None
    return maker.add(op, x)


@maker("elementwise")
@maker("elementwise")
@maker("elementwise")
def _binary(maker: _Maker) -> Node | None:
    op, kinds = maker.rng.choice(list(BINARY.items()))
    x = maker.pick_kind(*kinds.split())
    if x is None:
        return None
    y = maker.partner(x.dtype, x.shape)
    if y is None or (op == "pow" and x.dtype.is_floating and not gentle_power(maker, x, y)):
        return None
    if op == "rem" and x.dtype.is_floating:
        with numpy.errstate(all="ignore"):
            ratio = numpy.abs(wide(maker.values[x]) / wide(maker.values[y]))
        if ratio[numpy.isfinite(ratio)].max(initial=0) > 1000:
            return None
    if op == "copysign" and any(numpy.isnan(wide(maker.values[each])).any() for each in (x, y)):
        return None  # the sign of a computed NaN is nobody's promise
    return maker.add(op, x, y) if maker.rng.random() < 0.8 else maker.add(op, y, x)


def gentle_power(maker: _Maker, x: Node, y: Node) -> bool:
    return not any((numpy.abs(values[numpy.isfinite(values)]) > 8).any()
                   for values in (wide(maker.values[x]), wide(maker.values[y])))


@maker("elementwise")
def _where(maker: _Maker) -> Node | None:
    x = maker.pick()
    if x is None:
        return None
    return maker.add("where", maker.partner(DTYPES["bool"], x.shape), x,
                     maker.partner(x.dtype, x.shape))


@maker("elementwise")
def _cast(maker: _Maker) -> Node | None:
    x, target = maker.pick(), maker.dtype()
    if x is None or (x.dtype.is_complex and not target.is_complex):
        return None
    return maker.add("cast", x, dtype=target)


@maker("elementwise")
def _bitcast(maker: _Maker) -> Node | None:
    """To a float from anything; from a float only without NaN, whose bits are nobody's promise."""
    x = maker.pick_kind("signed", "unsigned", "float")
    if x is None or (x.dtype.is_floating and numpy.isnan(wide(maker.values[x])).any()):
        return None
    targets = [dtype for dtype in maker.dtypes if dtype.itemsize == x.dtype.itemsize
               and dtype.kind in ("signed", "unsigned", "float")]
    return maker.add("bitcast", x, dtype=maker.rng.choice(targets)) if targets else None


@maker("movement")
def _reshape(maker: _Maker) -> Node | None:
    x = maker.pick()
    if x is None:
        return None
    rest, shape = x.size, []
    for prime in (2, 2, 3, 5, 7):
        if rest and rest % prime == 0 and maker.rng.random() < 0.6:
            shape.append(prime)
            rest //= prime
    shape.append(rest)
    if maker.rng.random() < 0.4:
        shape.append(1)
    maker.rng.shuffle(shape)
    return maker.add("reshape", x, shape=tuple(shape) if shape != [1] else ())


@maker("movement")
def _permute(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 1)
    return x and maker.add("permute", x, order=tuple(maker.rng.sample(range(x.ndim), x.ndim)))


@maker("movement")
def _expand(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: 1 in value.shape)
    return x and maker.add("expand", x, shape=tuple(
        maker.rng.choice(SIZES) if size == 1 else size for size in x.shape))


@maker("movement")
def _slice(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0)
    if x is None:
        return None
    starts = [maker.rng.randint(0, max(size // 2, 0)) for size in x.shape]
    least = 0 if maker.rng.random() < 0.05 else 1
    stops = [maker.rng.randint(min(start + least, size), size) if maker.rng.random() < 0.5 else size
             for start, size in zip(starts, x.shape)]
    return maker.add("slice", x, starts=tuple(starts), stops=tuple(stops),
                     steps=tuple(maker.rng.choice([1, 1, 1, 2, 3]) for _ in x.shape))


@maker("movement")
def _pad(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0)
    if x is None:
        return None
    low, high, interior = (tuple(maker.rng.choice(choices) for _ in x.shape)
                           for choices in ((0, 0, 1, 2), (0, 0, 1, 3), (0, 0, 0, 1, 2)))
    return maker.add("pad", x, low=low, high=high, interior=interior, value=maker.number(x.dtype))


@maker("movement")
def _flip(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0)
    return x and maker.add("flip", x, axes=maker.axes(x.ndim, 1))


@maker("movement")
def _concat(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0)
    if x is None:
        return None
    axis = maker.rng.randrange(x.ndim)
    pieces: list[Node | None] = [x]
    for _ in range(maker.rng.randint(0, 2)):
        shape = tuple(maker.rng.choice([1, 2, 3, size]) if k == axis else size
                      for k, size in enumerate(x.shape))
        pieces.append(maker.partner(x.dtype, shape))
    maker.rng.shuffle(pieces)
    return maker.add("concat", *pieces, axis=axis)


@maker("movement")
def _window(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0 and value.size > 0)
    if x is None:
        return None
    axes = list(maker.axes(x.ndim, 1))[:2]
    maker.rng.shuffle(axes)
    sizes = [maker.rng.choice([1, 2, 2, 3]) for _ in axes]
    strides = [size if maker.rng.random() < 0.4 else maker.rng.choice([1, 2, 3]) for size in sizes]
    return maker.add("window", x, axes=tuple(axes), sizes=tuple(sizes), strides=tuple(strides),
                     dilations=tuple(maker.rng.choice([1, 1, 2]) for _ in axes))


@maker("reduction")
@maker("reduction")
def _reduce(maker: _Maker) -> Node | None:
    op = maker.rng.choice(["sum", "sum", "prod", "max", "min"])
    kinds = {"sum": "unsigned signed float complex", "prod": "unsigned signed float"}
    x = maker.pick_kind(*kinds.get(op, "bool unsigned signed float").split())
    return x and maker.add(op, x, axes=maker.axes(x.ndim))


@maker("reduction")
def _arg(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: not value.dtype.is_complex and value.size > 0)
    return x and maker.add(maker.rng.choice(["argmax", "argmin"]), x, axes=maker.axes(x.ndim))


@maker("contraction")
def _dot(maker: _Maker) -> Node | None:
    """Random dimension numbers: the left axes in random order are batch, contracted and free."""
    x = maker.pick(lambda value: value.dtype.kind != "bool")
    if x is None:
        return None
    order = maker.rng.sample(range(x.ndim), x.ndim)
    batch = order[: maker.rng.choice([0, 0, 1])]
    contract = order[len(batch): len(batch) + maker.rng.choice([0, 1, 1, 2])]
    roles = [("batch", axis) for axis in batch] + [("contract", axis) for axis in contract]
    roles += [("free", None)] * maker.rng.randint(0, 2)
    maker.rng.shuffle(roles)
    shape = tuple(maker.rng.choice([1, 2, 3, 5]) if axis is None else x.shape[axis]
                  for _, axis in roles)
    y = maker.partner(x.dtype, shape)
    return maker.add(
        "dot", x, y, left_batch=tuple(batch), left_contract=tuple(contract),
        right_batch=tuple(roles.index(("batch", axis)) for axis in batch),
        right_contract=tuple(roles.index(("contract", axis)) for axis in contract))


@maker("contraction")
def _conv(maker: _Maker) -> Node | None:
    rng, dtype = maker.rng, maker.dtype()
    if dtype.kind == "bool":
        return None
    rank, groups = rng.choice([1, 2, 2, 3]), rng.choice([1, 1, 1, 2, 3])
    inner = rng.choice([1, 1, 2, 3])
    value = maker.partner(dtype,
                          (rng.choice([1, 2]), groups * inner,
                           *(rng.randint(2, 6) for _ in range(rank))))
    weight = maker.partner(dtype,
                           (groups * rng.choice([1, 2]), inner,
                            *(rng.randint(1, 3) for _ in range(rank))))
    return maker.add(
        "conv", value, weight, groups=groups,
        strides=tuple(rng.choice([1, 1, 2]) for _ in range(rank)),
        padding=tuple((rng.choice([0, 1, 2, -1]), rng.choice([0, 1, 2])) for _ in range(rank)),
        left_dilation=tuple(rng.choice([1, 1, 2]) for _ in range(rank)),
        right_dilation=tuple(rng.choice([1, 1, 2]) for _ in range(rank)))


def index_arrays(maker: _Maker, value: Node, axes: Sequence[int]) -> list[Node] | None:
    """Indices within their axes, some counted from the end; None where an axis has no places."""
    if any(value.shape[axis] == 0 for axis in axes) or len(maker.inputs) > 10:
        return None
    shape = tuple(maker.rng.choice([1, 2, 3, 5]) for _ in range(maker.rng.choice([0, 1, 1, 2])))
    generator = numpy.random.default_rng(maker.rng.getrandbits(32))
    int64 = DTYPES["int64"]
    if len(axes) == 1 and maker.rng.random() < 0.15:
        place = maker.rng.randrange(-value.shape[axes[0]], value.shape[axes[0]])
        made = maker.add("const", value=place, dtype=int64, shape=shape)
        return [made] if made else None
    return [maker.new_input(int64, shape,
                            generator.integers(-value.shape[axis], value.shape[axis], shape))
            for axis in axes]


@maker("indexed")
def _gather(maker: _Maker) -> Node | None:
    x = maker.pick(lambda value: value.ndim > 0)
    if x is None:
        return None
    axes = maker.rng.sample(range(x.ndim), maker.rng.randint(1, min(2, x.ndim)))
    if len(axes) == 1 and maker.rng.random() < 0.15 and x.shape[axes[0]]:
        count = maker.rng.randint(1, x.shape[axes[0]])
        iota = maker.add("iota", axis=0, dtype=DTYPES["int64"], shape=(count,))
        return maker.add("gather", x, iota, axes=tuple(axes))
    indices = index_arrays(maker, x, axes)
    return None if indices is None else maker.add("gather", x, *indices, axes=tuple(axes))


@maker("indexed")
def _scatter(maker: _Maker) -> Node | None:
    mode = maker.rng.choice(SCATTER_MODES)
    x = maker.pick(lambda value: value.ndim > 0 and not value.dtype.is_complex and (
        mode == "set" or value.dtype.kind != "bool"))
    if x is None:
        return None
    axes = maker.rng.sample(range(x.ndim), maker.rng.randint(1, min(2, x.ndim)))
    indices = index_arrays(maker, x, axes)
    if indices is None:
        return None
    rest = [size for k, size in enumerate(x.shape) if k not in axes]
    updates = maker.partner(x.dtype, (*indices[0].shape, *rest))
    return maker.add("scatter", x, updates, *indices, axes=tuple(axes), mode=mode)


@maker("leaf")
def _leaf(maker: _Maker) -> Node | None:
    dtype, shape = maker.dtype(), maker.shape()
    return maker.new_input(dtype, shape) if len(maker.inputs) < 6 else maker.constant(dtype, shape)


@maker("leaf")
def _iota(maker: _Maker) -> Node | None:
    dtype, shape = maker.dtype(), maker.shape()
    if not shape or dtype.kind == "bool" or dtype.is_complex:
        return None
    return maker.add("iota", axis=maker.rng.randrange(len(shape)), dtype=dtype, shape=shape)


@maker("leaf")
def _random_bits(maker: _Maker) -> Node | None:
    if len(maker.inputs) > 6 or "uint32" not in {dtype.name for dtype in maker.dtypes}:
        return None
    state = numpy.array([maker.rng.getrandbits(40), maker.rng.getrandbits(34)], numpy.int64)
    return maker.add("random_bits", maker.new_input(DTYPES["int64"], (2,), state),
                     shape=maker.shape())


@maker("marker")
def _marker(maker: _Maker) -> Node | None:
    x = maker.pick()
    if maker.rng.random() < 0.5:
        return maker.add("stop_gradient", x)
    return maker.add("variable", x, uid=maker.rng.randrange(1000))


@maker("scan")
def _scan(maker: _Maker) -> Node | None:
    combine = maker.rng.choice(list(SCAN_COMBINES))
    x = maker.pick(lambda value: value.ndim > 0 and not value.dtype.is_complex
                   and value.dtype.kind in SCAN_COMBINES[combine])
    if x is None:
        return None
    if combine == "mul" and not numpy.isfinite(wide(maker.values[x])).all():
        return None  # which products of infinities and zeros are NaN depends on the order
    return maker.add("scan", x, axis=maker.rng.randrange(x.ndim), combine=combine,
                     reverse=maker.rng.random() < 0.5)
