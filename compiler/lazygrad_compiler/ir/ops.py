"""The op table: every primitive of the graph IR, one entry each.

An entry (`OpDef`) names the operation, its kind, its attributes in order, and the function that
infers dtype and shape and refuses what does not fit.  The NumPy meaning of each is in
`reference.py`, keyed by the same name; so are the tables of the transforms (gradients, code
generation).  Adding an op is adding rows to those tables.

Kinds: leaf, elementwise, movement, reduction, contraction, indexed (gather/scatter), scan, sort,
library, marker.  Movement ops never move data by themselves: they become index maps.  The kinds in
`ARRAY_KINDS` work on whole arrays: their operands lie in memory, row-major, before they run.
"""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference import (
    SCATTER_MODES,
    Inference,
    OpDef,
    elementwise,
    infer_bitcast,
    infer_cast,
    infer_concat,
    infer_conv,
    infer_dot,
    infer_expand,
    infer_flip,
    infer_gather,
    infer_identity,
    infer_iota,
    infer_leaf,
    infer_pad,
    infer_permute,
    infer_random_bits,
    infer_reshape,
    infer_scatter,
    infer_slice,
    infer_where,
    infer_window,
    listed,
    reduction,
)
from lazygrad_compiler.ir.node import Node

__all__ = [
    "ARRAY_KINDS",
    "ELEMENTARY_UNARY",
    "OPS",
    "SCATTER_MODES",
    "OpDef",
    "kind_of",
    "listed",
]

OPS: dict[str, OpDef] = {}

ARRAY_KINDS = frozenset({"scan", "sort", "library"})
"""Kinds of ops that read and write whole arrays in an order of their own."""


def define(name: str, kind: str, arity: int, attributes: str, infer: Inference, about: str) -> None:
    OPS[name] = OpDef(name, kind, arity, tuple(attributes.split()), infer, about)


# ---- leaves


define("input", "leaf", 0, "index dtype shape", infer_leaf, "a value given from outside, by number")
define("const", "leaf", 0, "value dtype shape", infer_leaf, "one number, in every place of a shape")
define("iota", "leaf", 0, "axis dtype shape", infer_iota, "0, 1, 2, … along one axis")
define(
    "random_bits",
    "leaf",
    1,
    "shape",
    infer_random_bits,
    "Philox 4x32-10: element i is word i % 4 of block offset + i // 4 under the key `seed`",
)


# ---- elementwise


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
    define(_name, "elementwise", 1, "", elementwise(_kinds), _about)

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
        _name, "elementwise", 1, "", elementwise("float complex"), f"{_name}(x), at most 2 ulp off"
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
    define(_name, "elementwise", 2, "", elementwise(_kinds), _about)

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
        elementwise(_kinds, dtypes.bool_),
        f"x {_name} y; ordered: NaN compares false but for ne",
    )


define("where", "elementwise", 3, "", infer_where, "y where the condition holds, else z")
define(
    "cast",
    "elementwise",
    1,
    "dtype",
    infer_cast,
    "conversion; integers wrap, floats go towards zero and saturate (int32 and wider), NaN is 0",
)
define(
    "bitcast",
    "elementwise",
    1,
    "dtype",
    infer_bitcast,
    "the same bits read as another dtype of the same size",
)


# ---- movement


define("reshape", "movement", 1, "shape", infer_reshape, "the same elements in row-major order")
define(
    "permute",
    "movement",
    1,
    "order",
    infer_permute,
    "axes reordered: result axis k is input axis order[k]",
)
define("expand", "movement", 1, "shape", infer_expand, "axes of size 1 repeated")
define(
    "slice",
    "movement",
    1,
    "starts stops steps",
    infer_slice,
    "every step-th element from start to before stop, each axis",
)
define(
    "pad",
    "movement",
    1,
    "low high interior value",
    infer_pad,
    "a constant put before, after and between the elements",
)
define("flip", "movement", 1, "axes", infer_flip, "axes reversed")
define("concat", "movement", -1, "axis", infer_concat, "inputs one after the other along an axis")
define(
    "window",
    "movement",
    1,
    "axes sizes strides dilations",
    infer_window,
    "sliding windows: axis k counts positions, and the offsets within the window are new last axes",
)


# ---- reductions


define(
    "sum",
    "reduction",
    1,
    "axes",
    reduction(NUMBERS),
    "total; 16-bit floats add in float32 and round once",
)
define("prod", "reduction", 1, "axes", reduction(NUMBERS), "product, like sum")
define(
    "max",
    "reduction",
    1,
    "axes",
    reduction("bool " + REALS),
    "largest, NaN if any is; of none, the lowest value",
)
define(
    "min",
    "reduction",
    1,
    "axes",
    reduction("bool " + REALS),
    "smallest, NaN if any is; of none, the highest value",
)
define(
    "argmax",
    "reduction",
    1,
    "axes",
    reduction("bool " + REALS, dtypes.int64, True),
    "row-major position within the axes of the first largest (a NaN counts as largest)",
)
define(
    "argmin",
    "reduction",
    1,
    "axes",
    reduction("bool " + REALS, dtypes.int64, True),
    "row-major position within the axes of the first smallest (a NaN counts as smallest)",
)


# ---- contractions


define(
    "dot",
    "contraction",
    2,
    "left_batch right_batch left_contract right_contract",
    infer_dot,
    "sums of products over the contracted axes; result axes: batch, left free, right free",
)
define(
    "conv",
    "contraction",
    2,
    "strides padding left_dilation right_dilation groups",
    infer_conv,
    "cross-correlation of (N, C, *space) with (out, C/groups, *kernel); padding is a (low, high) "
    "pair an axis and may be negative",
)


# ---- gather and scatter


define(
    "gather",
    "indexed",
    -1,
    "axes",
    infer_gather,
    "inputs (x, i0, i1, …): x[..., i0, i1, ...] with i_k on axis axes[k]; result axes: those of "
    "the indices, then the rest of x; an index below 0 counts from the end; one out of range is "
    "reported at run time",
)
define(
    "scatter",
    "indexed",
    -1,
    "axes mode",
    infer_scatter,
    "inputs (base, updates, i0, i1, …): base with updates written at the indices in row-major "
    "order (set: the last one stays)",
)


# ---- markers: identities that autodiff reads and the optimiser strips


define(
    "variable",
    "marker",
    1,
    "uid",
    infer_identity,
    "its input; gradients can be asked for by the number",
)
define("stop_gradient", "marker", 1, "", infer_identity, "its input; gradients do not pass")


def kind_of(value: Node) -> str:
    return OPS[value.op].kind
