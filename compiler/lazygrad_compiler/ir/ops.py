"""The op table: every primitive of the graph IR, one entry each.

An entry (`OpDef`) names the operation, its kind, its attributes in order, and the function that
infers dtype and shape and refuses what does not fit.  The NumPy meaning of each is in
`reference.py`, keyed by the same name; so are the tables of the transforms (gradients, code
generation).  Adding an op is adding rows to those tables.

Kinds: leaf, elementwise, movement, reduction, contraction, indexed (gather/scatter), marker.
Movement ops never move data by themselves: they become index maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Dim, IRError, Node, Shape

Inference = Callable[["OpDef", tuple[Node, ...], tuple], tuple[DType, Shape]]

MAX_ELEMENTS = 2**47
"""More elements than any address space holds: a size beyond it is a mistake, reported as such."""


@dataclass(frozen=True, slots=True)
class OpDef:
    """One primitive: `infer(definition, inputs, attrs) -> (dtype, shape)` raises IRError on what
    does not fit.
    """

    name: str
    kind: str
    arity: int  # -1: any number, at least one
    attributes: tuple[str, ...]
    infer: Inference
    about: str


OPS: dict[str, OpDef] = {}


def define(name: str, kind: str, arity: int, attributes: str, infer: Inference, about: str) -> None:
    OPS[name] = OpDef(name, kind, arity, tuple(attributes.split()), infer, about)


def fail(definition: OpDef, message: str) -> IRError:
    return IRError(f"[{definition.name}] {message}")


def listed(shape: Shape) -> str:
    """A shape as people write it: (2, 3)."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def check_shape(definition: OpDef, shape: Shape) -> None:
    for size in shape:
        if (
            not isinstance(size, (int, Dim))
            or isinstance(size, bool)
            or (isinstance(size, int) and size < 0)
        ):
            raise fail(
                definition,
                f"sizes are whole numbers of at least 0, and {listed(shape)} has {size!r}",
            )
    if all(isinstance(size, int) for size in shape) and math.prod(shape) > MAX_ELEMENTS:
        raise fail(
            definition,
            f"shape {listed(shape)} has {math.prod(shape)} elements, more than memory can hold",
        )


# ---- leaves


def _leaf(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    check_shape(definition, attrs[2])
    return attrs[1], attrs[2]


def _iota(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    axis, dtype, shape = attrs
    check_shape(definition, shape)
    if not 0 <= axis < len(shape):
        raise fail(definition, f"axis {axis} does not exist in {listed(shape)}")
    return dtype, shape


def _random_bits(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    (state,) = inputs
    if state.dtype is not dtypes.int64 or state.shape != (2,):
        raise fail(definition, f"takes the int64 pair (seed, offset), not {state!r}")
    check_shape(definition, attrs[0])
    return dtypes.uint32, attrs[0]


define("input", "leaf", 0, "index dtype shape", _leaf, "a value given from outside, by number")
define("const", "leaf", 0, "value dtype shape", _leaf, "one number, in every place of a shape")
define("iota", "leaf", 0, "axis dtype shape", _iota, "0, 1, 2, … along one axis")
define(
    "random_bits",
    "leaf",
    1,
    "shape",
    _random_bits,
    "Philox 4x32-10: element i is word i % 4 of block offset + i // 4 under the key `seed`",
)


# ---- elementwise


def _same_shapes(definition: OpDef, inputs: tuple[Node, ...]) -> Shape:
    shape = inputs[0].shape
    for value in inputs:
        if value.shape != shape:
            raise fail(
                definition, "shapes differ: " + " and ".join(listed(v.shape) for v in inputs)
            )
    return shape


def _elementwise(allowed: str, result: DType | None = None) -> Inference:
    """Inputs of one shape and one dtype, whose kind is among the allowed; the result has that dtype
    or a fixed one.
    """
    kinds = frozenset(allowed.split())

    def infer(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
        first = inputs[0]
        dtype, shape = first.dtype, first.shape
        for value in inputs:
            if value.shape != shape:
                _same_shapes(definition, inputs)
            if value.dtype is not dtype:
                raise fail(definition, f"dtypes differ: {dtype.name} and {value.dtype.name}")
        if dtype.kind not in kinds:
            raise fail(definition, f"is not defined for {dtype.name}")
        return result or dtype, shape

    return infer


NUMBERS = "unsigned signed float complex"
REALS = "unsigned signed float"
for _name, _kinds, _about in [
    ("neg", NUMBERS, "-x (integers wrap)"),
    ("abs", REALS, "|x|"),
    ("sign", REALS, "-1, 0 or 1; NaN stays NaN"),
    ("floor", "float", "down to a whole number"),
    ("ceil", "float", "up to a whole number"),
    ("trunc", "float", "towards zero"),
    ("round", "float", "to the nearest, ties to even"),
    ("sqrt", "float complex", "square root"),
    ("not", "bool unsigned signed", "complement of every bit; of a bool, not"),
]:
    define(_name, "elementwise", 1, "", _elementwise(_kinds), _about)

ELEMENTARY_UNARY = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
]
for _name in ELEMENTARY_UNARY:
    define(
        _name, "elementwise", 1, "", _elementwise("float complex"), f"{_name}(x), at most 2 ulp off"
    )

for _name, _kinds, _about in [
    ("add", NUMBERS, "x + y (integers wrap)"),
    ("sub", NUMBERS, "x - y"),
    ("mul", NUMBERS, "x * y"),
    ("div", "float complex", "x / y"),
    ("idiv", "unsigned signed", "x / y towards zero; x / 0 is 0"),
    ("rem", REALS, "x - y * trunc(x / y), the sign of x; of integers by 0, 0"),
    ("maximum", "bool " + REALS, "the larger; NaN if either is"),
    ("minimum", "bool " + REALS, "the smaller; NaN if either is"),
    (
        "pow",
        NUMBERS,
        "x ** y; of integers by squaring, negative exponents give 0 unless x is 1 or -1",
    ),
    ("atan2", "float", "the angle of the point (y, x)"),
    ("and", "bool unsigned signed", "bit by bit"),
    ("or", "bool unsigned signed", "bit by bit"),
    ("xor", "bool unsigned signed", "bit by bit"),
    ("shl", "unsigned signed", "x << y; 0 where y is not in 0..bits-1"),
    (
        "shr",
        "unsigned signed",
        "x >> y, filled with the sign; all sign where y is not in 0..bits-1",
    ),
]:
    define(_name, "elementwise", 2, "", _elementwise(_kinds), _about)

for _name, _kinds in [
    ("lt", "bool " + REALS),
    ("le", "bool " + REALS),
    ("eq", "bool " + NUMBERS),
    ("ne", "bool " + NUMBERS),
]:
    define(
        _name,
        "elementwise",
        2,
        "",
        _elementwise(_kinds, dtypes.bool_),
        f"x {_name} y; ordered: NaN compares false but for ne",
    )


def _where(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    condition, yes, no = inputs
    if condition.dtype is not dtypes.bool_ or yes.dtype is not no.dtype:
        raise fail(
            definition, f"takes (bool, T, T), not ({', '.join(v.dtype.name for v in inputs)})"
        )
    return yes.dtype, _same_shapes(definition, inputs)


def _cast(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    return attrs[0], inputs[0].shape


def _bitcast(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    if attrs[0].itemsize != inputs[0].dtype.itemsize or "bool" in (
        attrs[0].kind,
        inputs[0].dtype.kind,
    ):
        raise fail(definition, f"{inputs[0].dtype.name} and {attrs[0].name} differ in size")
    return attrs[0], inputs[0].shape


define("where", "elementwise", 3, "", _where, "y where the condition holds, else z")
define(
    "cast",
    "elementwise",
    1,
    "dtype",
    _cast,
    "conversion; integers wrap, floats go towards zero and saturate (int32 and wider), NaN is 0",
)
define(
    "bitcast",
    "elementwise",
    1,
    "dtype",
    _bitcast,
    "the same bits read as another dtype of the same size",
)


# ---- movement


def _reshape(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (shape,) = inputs[0], attrs
    check_shape(definition, shape)
    if math.prod(shape) != math.prod(value.shape):
        raise fail(
            definition,
            f"{listed(value.shape)} has {value.size} elements, {listed(shape)} {math.prod(shape)}",
        )
    return value.dtype, shape


def _permute(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (order,) = inputs[0], attrs
    if sorted(order) != list(range(value.ndim)):
        raise fail(
            definition,
            f"{listed(order)} is not an order of the {value.ndim} axes of {listed(value.shape)}",
        )
    return value.dtype, tuple(value.shape[axis] for axis in order)


def _expand(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (shape,) = inputs[0], attrs
    check_shape(definition, shape)
    if len(shape) != value.ndim or any(
        old not in (1, new) for old, new in zip(value.shape, shape, strict=True)
    ):
        raise fail(definition, f"{listed(value.shape)} does not broadcast to {listed(shape)}")
    return value.dtype, shape


def _slice(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (starts, stops, steps) = inputs[0], attrs
    if not len(starts) == len(stops) == len(steps) == value.ndim:
        raise fail(
            definition, f"needs a start, stop and step for each axis of {listed(value.shape)}"
        )
    shape = []
    for start, stop, step, size in zip(starts, stops, steps, value.shape, strict=True):
        if not (0 <= start <= stop <= size and step >= 1):
            raise fail(
                definition, f"{start}:{stop}:{step} does not lie within an axis of size {size}"
            )
        shape.append(-(-(stop - start) // step))
    return value.dtype, tuple(shape)


def _pad(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (low, high, interior, _) = inputs[0], attrs
    if not len(low) == len(high) == len(interior) == value.ndim:
        raise fail(
            definition, f"needs low, high and interior for each axis of {listed(value.shape)}"
        )
    if min((*low, *high, *interior), default=0) < 0:
        raise fail(definition, f"negative padding {low}, {high}, {interior}")
    shape = tuple(
        size + below + above + max(size - 1, 0) * between
        for size, below, above, between in zip(value.shape, low, high, interior, strict=True)
    )
    check_shape(definition, shape)
    return value.dtype, shape


def _flip(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (axes,) = inputs[0], attrs
    if len(set(axes)) != len(axes) or any(not 0 <= axis < value.ndim for axis in axes):
        raise fail(definition, f"axes {listed(axes)} of {listed(value.shape)}")
    return value.dtype, value.shape


def _concat(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    axis, first = attrs[0], inputs[0]
    if not 0 <= axis < first.ndim:
        raise fail(definition, f"axis {axis} does not exist in {listed(first.shape)}")
    for value in inputs:
        if value.dtype is not first.dtype:
            raise fail(definition, f"dtypes differ: {first.dtype.name} and {value.dtype.name}")
        if value.ndim != first.ndim or any(
            a != b
            for k, (a, b) in enumerate(zip(value.shape, first.shape, strict=True))
            if k != axis
        ):
            raise fail(
                definition,
                f"{listed(first.shape)} and {listed(value.shape)} differ off axis {axis}",
            )
    total = sum(value.shape[axis] for value in inputs)
    return first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :])


def _window(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (axes, sizes, strides, dilations) = inputs[0], attrs
    if not len(axes) == len(sizes) == len(strides) == len(dilations) or len(set(axes)) != len(axes):
        raise fail(definition, "needs one size, stride and dilation for each of its distinct axes")
    shape = list(value.shape)
    for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
        if not 0 <= axis < value.ndim or size < 1 or stride < 1 or dilation < 1:
            raise fail(
                definition,
                f"axis {axis}, size {size}, stride {stride}, dilation {dilation} "
                f"on {listed(value.shape)}",
            )
        reach = (size - 1) * dilation + 1
        if reach > value.shape[axis]:
            raise fail(
                definition,
                f"a window of {reach} does not fit into axis {axis} of {listed(value.shape)}",
            )
        shape[axis] = (value.shape[axis] - reach) // stride + 1
    return value.dtype, (*shape, *sizes)


define("reshape", "movement", 1, "shape", _reshape, "the same elements in row-major order")
define(
    "permute",
    "movement",
    1,
    "order",
    _permute,
    "axes reordered: result axis k is input axis order[k]",
)
define("expand", "movement", 1, "shape", _expand, "axes of size 1 repeated")
define(
    "slice",
    "movement",
    1,
    "starts stops steps",
    _slice,
    "every step-th element from start to before stop, each axis",
)
define(
    "pad",
    "movement",
    1,
    "low high interior value",
    _pad,
    "a constant put before, after and between the elements",
)
define("flip", "movement", 1, "axes", _flip, "axes reversed")
define("concat", "movement", -1, "axis", _concat, "inputs one after the other along an axis")
define(
    "window",
    "movement",
    1,
    "axes sizes strides dilations",
    _window,
    "sliding windows: axis k counts positions, and the offsets within the window are new last axes",
)


# ---- reductions


def _reduction(
    allowed: str, result: DType | None = None, needs_elements: bool = False
) -> Inference:
    kinds = frozenset(allowed.split())

    def infer(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
        value, axes = inputs[0], attrs[0]
        if value.dtype.kind not in kinds:
            raise fail(definition, f"is not defined for {value.dtype.name}")
        if tuple(sorted(set(axes))) != tuple(axes) or any(
            not 0 <= axis < value.ndim for axis in axes
        ):
            raise fail(
                definition,
                f"axes {listed(axes)} of {listed(value.shape)}: give each once, ascending",
            )
        if needs_elements and any(value.shape[axis] == 0 for axis in axes):
            raise fail(
                definition,
                f"of no elements is not defined: {listed(value.shape)} over axes {listed(axes)}",
            )
        return result or value.dtype, tuple(s for k, s in enumerate(value.shape) if k not in axes)

    return infer


define(
    "sum",
    "reduction",
    1,
    "axes",
    _reduction(NUMBERS),
    "total; 16-bit floats add in float32 and round once",
)
define("prod", "reduction", 1, "axes", _reduction(NUMBERS), "product, like sum")
define(
    "max",
    "reduction",
    1,
    "axes",
    _reduction("bool " + REALS),
    "largest, NaN if any is; of none, the lowest value",
)
define(
    "min",
    "reduction",
    1,
    "axes",
    _reduction("bool " + REALS),
    "smallest, NaN if any is; of none, the highest value",
)
define(
    "argmax",
    "reduction",
    1,
    "axes",
    _reduction("bool " + REALS, dtypes.int64, True),
    "row-major position within the axes of the first largest (a NaN counts as largest)",
)
define(
    "argmin",
    "reduction",
    1,
    "axes",
    _reduction("bool " + REALS, dtypes.int64, True),
    "row-major position within the axes of the first smallest (a NaN counts as smallest)",
)


# ---- contractions


def _dot(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    left, right = inputs
    left_batch, right_batch, left_contract, right_contract = attrs
    if left.dtype is not right.dtype or left.dtype.kind == "bool":
        raise fail(definition, f"of {left.dtype.name} and {right.dtype.name}")
    for value, batch, contract in (
        (left, left_batch, left_contract),
        (right, right_batch, right_contract),
    ):
        used = (*batch, *contract)
        if len(set(used)) != len(used) or any(not 0 <= axis < value.ndim for axis in used):
            raise fail(definition, f"axes {listed(used)} of {listed(value.shape)}")
    for what, ours, theirs in (
        ("batch", left_batch, right_batch),
        ("contracted", left_contract, right_contract),
    ):
        if len(ours) != len(theirs) or any(
            left.shape[a] != right.shape[b] for a, b in zip(ours, theirs, strict=True)
        ):
            raise fail(
                definition,
                f"{what} axes {listed(ours)} of {listed(left.shape)} and {listed(theirs)} of "
                f"{listed(right.shape)} differ in size",
            )
    batch_shape = tuple(left.shape[axis] for axis in left_batch)
    left_free = tuple(
        s for k, s in enumerate(left.shape) if k not in left_batch and k not in left_contract
    )
    right_free = tuple(
        s for k, s in enumerate(right.shape) if k not in right_batch and k not in right_contract
    )
    shape = (*batch_shape, *left_free, *right_free)
    check_shape(definition, shape)
    return left.dtype, shape


def _conv(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, weight = inputs
    strides, padding, left_dilation, right_dilation, groups = attrs
    rank = value.ndim - 2
    if value.dtype is not weight.dtype or value.dtype.kind == "bool":
        raise fail(definition, f"of {value.dtype.name} and {weight.dtype.name}")
    if rank < 1 or weight.ndim != value.ndim:
        raise fail(
            definition,
            f"takes (N, C, *space) and (out, C/groups, *kernel), not {listed(value.shape)} "
            f"and {listed(weight.shape)}",
        )
    if not len(strides) == len(padding) == len(left_dilation) == len(right_dilation) == rank:
        raise fail(definition, f"needs {rank} strides, padding pairs and dilations")
    if groups < 1 or value.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise fail(
            definition,
            f"{value.shape[1]} input and {weight.shape[0]} output channels do not split into "
            f"{groups} groups with weights {listed(weight.shape)}",
        )
    space = []
    for k in range(rank):
        size = (value.shape[k + 2] - 1) * left_dilation[k] + 1 if value.shape[k + 2] else 0
        size += padding[k][0] + padding[k][1]
        reach = (weight.shape[k + 2] - 1) * right_dilation[k] + 1
        if (
            reach > size
            or weight.shape[k + 2] < 1
            or min(strides[k], left_dilation[k], right_dilation[k]) < 1
        ):
            raise fail(
                definition,
                f"a kernel over {reach} positions does not fit into {size} of axis {k + 2}",
            )
        space.append((size - reach) // strides[k] + 1)
    return value.dtype, (value.shape[0], weight.shape[0], *space)


define(
    "dot",
    "contraction",
    2,
    "left_batch right_batch left_contract right_contract",
    _dot,
    "sums of products over the contracted axes; result axes: batch, left free, right free",
)
define(
    "conv",
    "contraction",
    2,
    "strides padding left_dilation right_dilation groups",
    _conv,
    "cross-correlation of (N, C, *space) with (out, C/groups, *kernel); padding is a (low, high) "
    "pair an axis and may be negative",
)


# ---- gather and scatter


def _indices(definition: OpDef, value: Node, indices: tuple[Node, ...], axes: tuple) -> Shape:
    if (
        len(axes) != len(indices)
        or len(set(axes)) != len(axes)
        or any(not 0 <= a < value.ndim for a in axes)
    ):
        raise fail(
            definition,
            f"axes {listed(axes)} of {listed(value.shape)} with {len(indices)} index arrays",
        )
    if not indices:
        raise fail(definition, "needs at least one index array")
    for index in indices:
        if index.dtype is not dtypes.int64:
            raise fail(definition, f"indices are int64, not {index.dtype.name}")
        if index.shape != indices[0].shape:
            raise fail(
                definition,
                f"index shapes differ: {listed(indices[0].shape)} and {listed(index.shape)}",
            )
    return indices[0].shape


def _gather(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, *indices = inputs
    index_shape = _indices(definition, value, tuple(indices), attrs[0])
    return value.dtype, (*index_shape, *(s for k, s in enumerate(value.shape) if k not in attrs[0]))


SCATTER_MODES = ("set", "add", "mul", "max", "min")


def _scatter(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    base, updates, *indices = inputs
    axes, mode = attrs
    index_shape = _indices(definition, base, tuple(indices), axes)
    expected = (*index_shape, *(s for k, s in enumerate(base.shape) if k not in axes))
    if updates.shape != expected or updates.dtype is not base.dtype:
        raise fail(
            definition,
            f"updates of {listed(base.shape)} must be {base.dtype.name} {listed(expected)}, "
            f"not {updates.dtype.name} {listed(updates.shape)}",
        )
    if mode not in SCATTER_MODES:
        raise fail(definition, f"mode {mode!r}; there are {', '.join(SCATTER_MODES)}")
    return base.dtype, base.shape


define(
    "gather",
    "indexed",
    -1,
    "axes",
    _gather,
    "inputs (x, i0, i1, …): x[..., i0, i1, ...] with i_k on axis axes[k]; result axes: those of the "
    "indices, then the rest of x; an index below 0 counts from the end; one out of range is reported at run time",
)
define(
    "scatter",
    "indexed",
    -1,
    "axes mode",
    _scatter,
    "inputs (base, updates, i0, i1, …): base with updates written at the indices in row-major order "
    "(set: the last one stays)",
)


# ---- markers: identities that autodiff reads and the optimiser strips


def _identity(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    return inputs[0].dtype, inputs[0].shape


define(
    "variable", "marker", 1, "uid", _identity, "its input; gradients can be asked for by the number"
)
define("stop_gradient", "marker", 1, "", _identity, "its input; gradients do not pass")


def kind_of(value: Node) -> str:
    return OPS[value.op].kind
