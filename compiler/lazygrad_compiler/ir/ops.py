"""The op table: every primitive of the graph IR, one entry each.

An entry (`OpDef`) names the operation, its kind, its attributes in order, and the function that
infers dtype and shape and refuses what does not fit.  The NumPy meaning of each is in
`reference.py`, keyed by the same name; so are the tables of the transforms (gradients, code
generation).  Adding an op is adding rows to those tables.

Kinds: leaf, elementwise, movement, reduction, contraction, indexed (gather/scatter), scan, sort,
library, attention, winograd, loop, marker.  Movement ops never move data by themselves: they become
index maps.
The kinds in `ARRAY_KINDS` work on whole arrays: their operands lie in memory, row-major, before
they run.  Composites are gone before anything is compiled, and so are markers, but for `again`.
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
    infer_polynomial,
    infer_random_bits,
    infer_reshape,
    infer_scatter,
    infer_slice,
    infer_where,
    infer_window,
    listed,
    reduction,
)
from lazygrad_compiler.ir.inference_attention import (
    infer_attention,
    infer_attention_grad,
    infer_logsumexp,
)
from lazygrad_compiler.ir.inference_complex import (
    infer_complex,
    infer_part,
    infer_size,
    infer_view_as_complex,
    infer_view_as_real,
)
from lazygrad_compiler.ir.inference_scan import infer_compact, infer_scan
from lazygrad_compiler.ir.inference_sort import (
    infer_argsort,
    infer_searchsorted,
    infer_select_rank,
    infer_sort_values,
    infer_top_k,
)
from lazygrad_compiler.ir.library import infer_library
from lazygrad_compiler.ir.loop import infer_loop
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.winograd import infer_winograd

__all__ = [
    "ARRAY_KINDS",
    "ELEMENTARY_UNARY",
    "ORTHOGONAL_POLYNOMIALS",
    "OPS",
    "SCATTER_MODES",
    "SPECIAL_BINARY",
    "SPECIAL_UNARY",
    "OpDef",
    "kind_of",
    "listed",
]

OPS: dict[str, OpDef] = {}

ARRAY_KINDS = frozenset({"scan", "sort", "library", "attention", "loop", "winograd"})
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
    ("sign", NUMBERS, "-1, 0 or 1; NaN stays NaN; of a complex number x / |x|"),
    ("floor", "float", "down to a whole number"),
    ("ceil", "float", "up to a whole number"),
    ("trunc", "float", "towards zero"),
    ("round", "float", "to the nearest, ties to even"),
    ("sqrt", "float complex", "square root"),
    ("not", "bool unsigned signed", "complement of every bit; of a bool, not"),
]:
    define(_name, "elementwise", 1, "", elementwise(_kinds), _about)

define("abs", "elementwise", 1, "", infer_size, "|x|; of complex numbers a float")

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
    _kinds = "float" if _name in ("erf", "erfc") else "float complex"
    define(_name, "elementwise", 1, "", elementwise(_kinds), f"{_name}(x), at most 2 ulp off")

SPECIAL_UNARY = {
    "lgamma": "log |gamma(x)|",
    "digamma": "the derivative of log(gamma(x))",
    "erfinv": "the y with erf(y) = x",
}
ORTHOGONAL_POLYNOMIALS = [
    "chebyshev_t",
    "chebyshev_u",
    "chebyshev_v",
    "chebyshev_w",
    "hermite_h",
    "hermite_he",
    "laguerre",
    "legendre",
]
SPECIAL_BINARY = {
    "zeta": "the Hurwitz zeta function of (s, q)",
    "gammainc": "the lower regularised incomplete gamma function of (a, x)",
    "gammaincc": "the upper regularised incomplete gamma function of (a, x)",
    "poisson_quantile": "(rate, u): the least k with P(Poisson(rate) <= k) > u, from a rate of 64 "
    "on by an expansion",
    **{
        name: f"the {name} polynomial at x of degree trunc(n), inputs (x, n)"
        for name in ORTHOGONAL_POLYNOMIALS
    },
}
define("sigmoid", "elementwise", 1, "", elementwise("float"), "1 / (1 + exp(-x))")
for _name, _about in SPECIAL_UNARY.items():
    define(_name, "elementwise", 1, "", elementwise("float"), _about)
for _name, _about in SPECIAL_BINARY.items():
    define(_name, "elementwise", 2, "", elementwise("float"), _about)

define(
    "polynomial",
    "elementwise",
    1,
    "coefficients",
    infer_polynomial,
    "c0 + x (c1 + x (c2 + …)) for numbers c, lowest order first",
)
for _name, _kinds, _about in [
    ("copysign", "float", "|x| with the sign of y; signed zeros and NaNs count"),
    ("nextafter", "float", "the number next to x in the direction of y"),
    ("gcd", "unsigned signed", "the greatest common divisor, not negative (the lowest wraps)"),
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


# ---- complex numbers: gone before fusion, which knows only their parts (passes/complex.py)


define("real", "elementwise", 1, "", infer_part, "the real part")
define("imag", "elementwise", 1, "", infer_part, "the imaginary part")
define("complex", "elementwise", 2, "", infer_complex, "inputs (x, y): the number x + iy")
define("conj", "elementwise", 1, "", elementwise("complex"), "the complex conjugate")
define(
    "view_as_real",
    "movement",
    1,
    "",
    infer_view_as_real,
    "real and imaginary part along a new last axis: the same memory",
)
define(
    "view_as_complex",
    "movement",
    1,
    "",
    infer_view_as_complex,
    "the numbers whose parts lie along the last axis, of size 2: the same memory",
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
    "pair an axis and may be negative; the gaps of a dilated input take no part",
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


# ---- scans


define(
    "scan",
    "scan",
    1,
    "axis combine reverse",
    infer_scan,
    "running totals along an axis, from the end if reverse: element k combines elements 0 to k by "
    "add, mul, max, min (NaN if any is) or logaddexp; 16-bit floats combine in float32",
)
define(
    "compact",
    "scan",
    1,
    "count",
    infer_compact,
    "positions at which a mask of one axis holds, in order; count: how many there are, which who "
    "builds the op has to know",
)


# ---- order, along the last axis: NaN is largest, 0.0 equals -0.0, equal elements keep their order


define(
    "argsort", "sort", 1, "descending", infer_argsort, "positions of the elements in stable order"
)
define(
    "sort_values",
    "sort",
    2,
    "",
    infer_sort_values,
    "inputs (x, argsort of x): the elements in that order; the two together are one kernel",
)
define(
    "top_k",
    "sort",
    1,
    "k largest",
    infer_top_k,
    "positions of the first k elements in stable order (descending if largest)",
)
define(
    "select_rank",
    "sort",
    2,
    "",
    infer_select_rank,
    "inputs (x, ranks): positions of the elements that come at those places of the stable "
    "ascending order; ranks are clamped to the axis",
)
define(
    "searchsorted",
    "sort",
    2,
    "side",
    infer_searchsorted,
    "inputs (sorted rows, values): how many elements of the row are below the value (right: or "
    "equal), by bisection",
)


# ---- library calls: what LAPACK and FFT compute, through NumPy


define(
    "library",
    "library",
    -1,
    "call options part",
    infer_library,
    "result number `part` of a row of `LIBRARY` (library.py)",
)


# ---- attention: operands and attributes as in `inference_attention.py`


define(
    "attention",
    "attention",
    -1,
    "scale causal empty_is_zero views dropout",
    infer_attention,
    "inputs (q, k, v), perhaps a mask, with dropout a random state: softmax(q k^T * scale + mask) "
    "v, computed in float32 or wider, weights dropped by chance; a row with nothing to attend to "
    "gives 0 if empty_is_zero, else NaN",
)
define(
    "attention_logsumexp",
    "attention",
    -1,
    "scale causal empty_is_zero views dropout",
    infer_logsumexp,
    "inputs as of attention: log of the sum of exp of each row of scores; the two together are one "
    "kernel",
)
define(
    "attention_grad",
    "attention",
    -1,
    "scale causal empty_is_zero views dropout part",
    infer_attention_grad,
    "inputs (q, k, v, g, logsumexp, delta), perhaps a mask, a random state: what the cotangent g "
    "gives q, k or v (part), where delta is the sum of g * attention over each row; all parts are "
    "one kernel",
)


# ---- Winograd's convolution: what is around its products


define(
    "winograd",
    "winograd",
    1,
    "part geometry",
    infer_winograd,
    "one of the linear maps around the products of a 3x3 convolution by tiles, as told in "
    "`winograd.py`; made from conv before fusion",
)


# ---- loops: a body repeated, as told in `loop.py`


define(
    "loop",
    "loop",
    -1,
    "body carried stepped length reverse part",
    infer_loop,
    "inputs (states, series, constants): result number `part` of the body run once for each step "
    "of the series: a last state, or what the steps gave",
)


# ---- markers: identities that autodiff reads and the optimiser strips; the last one it makes


define(
    "variable",
    "marker",
    1,
    "uid",
    infer_identity,
    "its input; gradients can be asked for by the number",
)
define("stop_gradient", "marker", 1, "", infer_identity, "its input; gradients do not pass")
define(
    "transfer",
    "marker",
    1,
    "device source",
    infer_identity,
    "its input on a device, copied from another; with no source: computed there",
)

define(
    "again",
    "marker",
    2,
    "",
    infer_identity,
    "its first input; what is computed from it waits for the second, and is computed once more",
)


def kind_of(value: Node) -> str:
    return OPS[value.op].kind
