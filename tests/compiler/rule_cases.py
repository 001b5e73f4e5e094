"""What each rewrite rule does: graphs before and after, and near misses that it leaves alone.

`RULE_CASES` holds (rule, before, after) triples; after is None where the rule must not fire.
`test_passes.py` runs them, and sees to it that every rule has a case and a near miss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Node, node


def leaf(index: int, dtype: str = "float32", shape: tuple[int, ...] = (2, 3)) -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def const(value: Any, like: Node) -> Node:
    return node("const", value=value, dtype=like.dtype, shape=like.shape)


def full(value: Any, dtype: str, shape: tuple[int, ...]) -> Node:
    return node("const", value=value, dtype=DTYPES[dtype], shape=shape)


def cast(x: Node, *names: str) -> Node:
    for name in names:
        x = node("cast", x, dtype=DTYPES[name])
    return x


def bitcast(x: Node, *names: str) -> Node:
    for name in names:
        x = node("bitcast", x, dtype=DTYPES[name])
    return x


def reshape(x: Node, *shape: int) -> Node:
    return node("reshape", x, shape=shape)


def permute(x: Node, *order: int) -> Node:
    return node("permute", x, order=order)


def expand(x: Node, *shape: int) -> Node:
    return node("expand", x, shape=shape)


def flip(x: Node, *axes: int) -> Node:
    return node("flip", x, axes=axes)


def cut(x: Node, *triples: tuple[int, int, int]) -> Node:
    starts, stops, steps = zip(*triples)
    return node("slice", x, starts=starts, stops=stops, steps=steps)


def pad(x: Node, *triples: tuple[int, int, int], value: Any = 0.0) -> Node:
    low, high, interior = zip(*triples)
    return node("pad", x, low=low, high=high, interior=interior, value=value)


def concat(axis: int, *pieces: Node) -> Node:
    return node("concat", *pieces, axis=axis)


def window(x: Node, *parts: tuple[int, int, int, int]) -> Node:
    axes, sizes, strides, dilations = zip(*parts)
    return node("window", x, axes=axes, sizes=sizes, strides=strides, dilations=dilations)


def dot(x: Node, y: Node, *axes: tuple[int, ...]) -> Node:
    return node("dot", x, y, left_batch=axes[0], right_batch=axes[1], left_contract=axes[2],
                right_contract=axes[3])


def reduce(op: str, x: Node, *axes: int) -> Node:
    return node(op, x, axes=axes)


x, y, z = leaf(0), leaf(1), leaf(2)
i, j = leaf(3, "int32"), leaf(4, "int32")
b, c, d = leaf(5, "bool"), leaf(6, "bool"), leaf(7, "bool")
u = leaf(8, "uint8")
row, column = leaf(9, shape=(1, 3)), leaf(10, shape=(2, 1))
line = leaf(11, shape=(7,))
cube = leaf(12, shape=(2, 3, 4))
unit = leaf(13, shape=(2, 1, 3, 1))
scalar = leaf(14, shape=(1, 1))
iunit = leaf(15, "int32", (2, 1))
h = leaf(16, "float16")
z64 = leaf(17, "complex64")
empty = leaf(18, shape=(2, 0))
few = leaf(19, shape=(4, 2))
nothing = leaf(20, "int64", (0,))
icube = leaf(21, "int32", (2, 3, 4))
f64 = leaf(22, "float64")
zero_sized_unit = leaf(23, shape=(0, 1))


def op(name: str, *inputs: Node) -> Node:
    return node(name, *inputs)


def count(size: int, axis: int = 0, shape: tuple[int, ...] | None = None) -> Node:
    return node("iota", axis=axis, dtype=dtypes.int64, shape=shape or (size,))


def gather(value: Node, axes: tuple[int, ...], *indices: Node) -> Node:
    return node("gather", value, *indices, axes=axes)


NAN, INF = math.nan, math.inf
RULE_CASES: list[tuple[str, Node, Node | None]] = [
    # markers
    ("strip_marker", node("variable", x, uid=3), x),
    ("strip_marker", op("stop_gradient", x), x),
    ("strip_marker", op("neg", x), None),
    # canonicalise
    ("canonical_constant", full(1, "float32", (2,)), full(1.0, "float32", (2,))),
    ("canonical_constant", full(0.1, "float32", ()),
     full(float(numpy.float32(0.1)), "float32", ())),
    ("canonical_constant", full(1, "bool", ()), full(True, "bool", ())),
    ("canonical_constant", full(0.1, "float64", ()), None),
    ("canonical_constant", full(-0.0, "float32", ()), None),
    ("constant_to_the_right", op("add", const(2.0, x), x), op("add", x, const(2.0, x))),
    ("constant_to_the_right", op("maximum", const(2.0, x), x), op("maximum", x, const(2.0, x))),
    ("constant_to_the_right", op("maximum", const(0, i), i), op("maximum", i, const(0, i))),
    ("constant_to_the_right", op("maximum", const(0.0, x), x), None),
    ("constant_to_the_right", op("sub", const(2.0, x), x), None),
    ("constant_to_the_right", op("add", const(2.0, x), const(1.0, x)), None),
    ("short_count", count(1), full(0, "int64", (1,))),
    ("short_count", count(2), None),
    ("short_count", count(0, 1, (2, 1)), full(0, "int64", (2, 1))),
    ("nothing_is_constant", op("neg", empty), full(0.0, "float32", (2, 0))),
    ("nothing_is_constant", op("neg", x), None),
    ("nothing_is_constant", gather(empty, (0,), leaf(24, "int64", ())), None),
    ("moved_constant", permute(const(2.0, x), 1, 0), full(2.0, "float32", (3, 2))),
    ("moved_constant", window(const(2.0, line), (0, 2, 1, 1)), full(2.0, "float32", (6, 2))),
    ("moved_constant", permute(x, 1, 0), None),
    ("constant_padded_with_itself", pad(const(2.0, line), (1, 1, 1), value=2),
     full(2.0, "float32", (15,))),
    ("constant_padded_with_itself", pad(const(-0.0, line), (1, 0, 0), value=0.0), None),
    ("joined_constants", concat(0, const(2.0, x), const(2.0, row)), full(2.0, "float32", (3, 3))),
    ("joined_constants", concat(0, const(-0.0, x), const(0.0, row)), None),
    ("joined_constants", concat(0, const(2.0, x), row), None),
    ("conversion_to_own_dtype", cast(x, "float32"), x),
    ("conversion_to_own_dtype", bitcast(x, "float32"), x),
    ("conversion_to_own_dtype", cast(x, "float64"), None),
    ("conversion_of_lossless_conversion", cast(h, "float32", "bfloat16"), cast(h, "bfloat16")),
    ("conversion_of_lossless_conversion", cast(i, "int64", "float32"), cast(i, "float32")),
    ("conversion_of_lossless_conversion", cast(i, "int16", "int8"), cast(i, "int8")),
    ("conversion_of_lossless_conversion", cast(b, "float16", "bool"), cast(b, "bool")),
    ("conversion_of_lossless_conversion", cast(x, "float16", "float32"), None),
    ("conversion_of_lossless_conversion", cast(i, "float32", "int32"), None),
    ("conversion_of_lossless_conversion", cast(i, "float64", "uint8"), None),
    ("conversion_of_lossless_conversion", cast(i, "int8", "int32"), None),
    ("conversion_of_lossless_conversion", cast(x, "bool", "float32"), None),
    ("bits_read_twice", bitcast(i, "uint32", "float32"), bitcast(i, "float32")),
    ("bits_read_twice", bitcast(i, "float32"), None),
    # merge-movement
    ("movement_to_the_same_place", reshape(x, 2, 3), x),
    ("movement_to_the_same_place", permute(x, 0, 1), x),
    ("movement_to_the_same_place", expand(x, 2, 3), x),
    ("movement_to_the_same_place", permute(leaf(25, shape=(3, 3)), 1, 0), None),
    ("reshape_twice", reshape(reshape(x, 6), 3, 2), reshape(x, 3, 2)),
    ("reshape_twice", reshape(reshape(x, 6), 2, 3), x),
    ("reshape_twice", reshape(x, 6), None),
    ("permute_twice", permute(permute(cube, 1, 2, 0), 0, 2, 1), permute(cube, 1, 0, 2)),
    ("permute_twice", permute(permute(cube, 1, 2, 0), 2, 0, 1), cube),
    ("permute_twice", permute(cube, 1, 2, 0), None),
    ("permute_of_unit_axes", permute(unit, 1, 0, 2, 3), reshape(unit, 1, 2, 3, 1)),
    ("permute_of_unit_axes", permute(unit, 2, 1, 0, 3), None),
    ("expand_twice", expand(expand(scalar, 2, 1), 2, 3), expand(scalar, 2, 3)),
    ("expand_twice", expand(scalar, 2, 1), None),
    ("permute_of_expand", permute(expand(row, 2, 3), 1, 0), expand(permute(row, 1, 0), 3, 2)),
    ("permute_of_expand", permute(x, 1, 0), None),
    ("slice_of_expand", cut(expand(row, 4, 3), (1, 4, 2), (0, 2, 1)),
     expand(cut(row, (0, 1, 1), (0, 2, 1)), 2, 2)),
    ("slice_of_expand", cut(expand(row, 4, 3), (1, 4, 2), (0, 3, 1)), expand(row, 2, 3)),
    ("slice_of_expand", cut(x, (0, 1, 1), (0, 3, 1)), None),
    ("flip_of_expand", flip(expand(row, 4, 3), 0, 1), expand(flip(row, 1), 4, 3)),
    ("flip_of_expand", flip(x, 0), None),
    ("reshape_of_expanded_scalar", reshape(expand(scalar, 2, 3), 6), expand(reshape(scalar, 1), 6)),
    ("reshape_of_expanded_scalar", reshape(expand(row, 2, 3), 6), None),
    ("slice_in_canonical_form", cut(line, (0, 7, 1)), line),
    ("slice_in_canonical_form", cut(line, (1, 7, 4)), cut(line, (1, 6, 4))),
    ("slice_in_canonical_form", cut(line, (3, 5, 2)), cut(line, (3, 4, 1))),
    ("slice_in_canonical_form", cut(line, (3, 3, 2)), cut(line, (0, 0, 1))),
    ("slice_in_canonical_form", cut(line, (1, 6, 4)), None),
    ("slice_twice", cut(cut(line, (1, 7, 2)), (1, 3, 1)), cut(line, (3, 6, 2))),
    ("slice_twice", cut(line, (1, 7, 2)), None),
    ("flip_in_canonical_form", flip(unit, 2, 1, 0), flip(unit, 0, 2)),
    ("flip_in_canonical_form", flip(unit, 1), unit),
    ("flip_in_canonical_form", flip(unit, 0, 2), None),
    ("flip_twice", flip(flip(cube, 0, 1), 1, 2), flip(cube, 0, 2)),
    ("flip_twice", flip(flip(cube, 0), 0), cube),
    ("flip_twice", flip(cube, 0), None),
    ("pad_by_nothing", pad(line, (0, 0, 0)), line),
    ("pad_by_nothing", pad(line, (0, 1, 0)), None),
    ("pad_twice", pad(pad(line, (1, 0, 0)), (1, 2, 0)), pad(line, (2, 2, 0))),
    ("pad_twice", pad(pad(line, (1, 0, 0)), (1, 2, 0), value=-0.0), None),
    ("pad_twice", pad(pad(line, (1, 0, 0)), (1, 2, 1)), None),
    ("slice_of_pad", cut(pad(line, (2, 1, 0)), (3, 9, 2)), cut(line, (1, 6, 2))),
    ("slice_of_pad", cut(pad(line, (2, 1, 0), value=3.0), (0, 2, 1)), full(3.0, "float32", (2,))),
    ("slice_of_pad", cut(pad(line, (2, 1, 1), value=3.0), (15, 16, 1)), full(3.0, "float32", (1,))),
    ("slice_of_pad", cut(pad(line, (2, 1, 0)), (1, 5, 1)), None),
    ("slice_of_pad", cut(pad(line, (2, 1, 1)), (3, 5, 1)), None),
    ("slice_of_pad", cut(pad(line, (2, 1, 1)), (14, 15, 1)), None),
    ("concat_flattened", concat(0, x), x),
    ("concat_flattened", concat(1, x, empty, y), concat(1, x, y)),
    ("concat_flattened", concat(0, x, concat(0, y, row)), concat(0, x, y, row)),
    ("concat_flattened", concat(0, concat(1, x, y), concat(1, y, x)), None),
    ("concat_flattened", concat(1, empty, empty), None),
    ("slice_of_concat", cut(concat(0, x, row), (2, 3, 1), (0, 2, 1)),
     cut(row, (0, 1, 1), (0, 2, 1))),
    ("slice_of_concat", cut(concat(0, x, row), (0, 2, 1), (0, 3, 1)), x),
    ("slice_of_concat", cut(concat(0, x, row), (1, 3, 1), (0, 3, 1)), None),
    ("window_without_overlap", window(line, (0, 3, 3, 1)), reshape(cut(line, (0, 6, 1)), 2, 3)),
    ("window_without_overlap", window(few, (0, 2, 2, 1)), permute(reshape(few, 2, 2, 2), 0, 2, 1)),
    ("window_without_overlap", window(line, (0, 1, 2, 5)), reshape(cut(line, (0, 7, 2)), 4, 1)),
    ("window_without_overlap", window(line, (0, 3, 2, 1)), None),
    ("window_without_overlap", window(line, (0, 2, 2, 2)), None),
    # fold-constants
    ("elementwise_of_constants", op("add", const(1.5, x), const(2.0, x)), const(3.5, x)),
    ("elementwise_of_constants", op("div", const(1.0, x), const(-0.0, x)), const(-INF, x)),
    ("elementwise_of_constants", cast(const(300, i), "uint8"), const(44, u)),
    ("elementwise_of_constants", op("lt", const(NAN, x), const(1.0, x)), const(False, b)),
    ("elementwise_of_constants", op("add", x, const(2.0, x)), None),
    ("choice_by_constant", op("where", const(True, b), x, y), x),
    ("choice_by_constant", op("where", const(False, b), x, y), y),
    ("choice_by_constant", op("where", b, x, y), None),
    ("reduction_of_nothing", reduce("sum", empty, 1), full(0.0, "float32", (2,))),
    ("reduction_of_nothing", reduce("max", empty, 1), full(-INF, "float32", (2,))),
    ("reduction_of_nothing", reduce("prod", empty, 1), full(1.0, "float32", (2,))),
    ("reduction_of_nothing", reduce("sum", empty, 0), None),
    ("contraction_of_nothing", dot(empty, empty, (), (), (1,), (1,)), full(0.0, "float32", (2, 2))),
    ("contraction_of_nothing", dot(x, y, (), (), (1,), (1,)), None),
    ("reduction_of_constant", reduce("sum", const(0.5, x), 0, 1), full(3.0, "float32", ())),
    ("reduction_of_constant", reduce("sum", const(-0.0, x), 0), full(0.0, "float32", (3,))),
    ("reduction_of_constant", reduce("sum", const(100, u), 0, 1), full(88, "uint8", ())),
    ("reduction_of_constant", reduce("prod", const(-3, i), 1), full(-27, "int32", (2,))),
    ("reduction_of_constant", reduce("max", const(NAN, x), 1), full(NAN, "float32", (2,))),
    ("reduction_of_constant", reduce("argmax", const(3.0, x), 1), full(0, "int64", (2,))),
    ("reduction_of_constant", reduce("sum", const(float(numpy.float32(0.1)), x), 0, 1), None),
    ("reduction_of_constant", reduce("prod", const(1.5, x), 0), None),
    ("reduction_of_constant", reduce("sum", const(INF, x), 0), None),
    # simplify
    ("times_one", op("mul", x, const(1.0, x)), x),
    ("times_one", op("pow", x, const(1.0, x)), x),
    ("times_one", op("idiv", i, const(1, i)), i),
    ("times_one", op("mul", x, const(2.0, x)), None),
    ("times_one", op("div", const(1.0, x), x), None),
    ("plus_nothing", op("add", x, const(-0.0, x)), x),
    ("plus_nothing", op("sub", x, const(0.0, x)), x),
    ("plus_nothing", op("add", i, const(0, i)), i),
    ("plus_nothing", op("shl", i, const(0, i)), i),
    ("plus_nothing", op("add", x, const(0.0, x)), None),
    ("plus_nothing", op("sub", x, const(-0.0, x)), None),
    ("plus_nothing", op("add", z64, const(complex(-0.0), z64)), None),
    ("zero_added_twice", op("add", op("add", x, const(0.0, x)), const(0.0, x)),
     op("add", x, const(0.0, x))),
    ("zero_added_twice", op("add", op("add", x, const(1.0, x)), const(0.0, x)), None),
    ("integer_times_zero", op("mul", i, const(0, i)), const(0, i)),
    ("integer_times_zero", op("mul", x, const(0.0, x)), None),
    ("to_the_power_of_zero", op("pow", x, const(0.0, x)), const(1.0, x)),
    ("to_the_power_of_zero", op("pow", x, const(-0.0, x)), None),
    ("square", op("pow", x, const(2.0, x)), op("mul", x, x)),
    ("square", op("pow", i, const(2, i)), op("mul", i, i)),
    ("square", op("pow", x, const(0.5, x)), None),
    ("square", op("pow", x, const(3.0, x)), None),
    ("remainder_by_one", op("rem", i, const(1, i)), const(0, i)),
    ("remainder_by_one", op("rem", x, const(1.0, x)), None),
    ("mask_of_all_or_nothing", op("and", i, const(-1, i)), i),
    ("mask_of_all_or_nothing", op("or", u, const(255, u)), const(255, u)),
    ("mask_of_all_or_nothing", op("xor", b, const(True, b)), op("not", b)),
    ("mask_of_all_or_nothing", op("and", b, const(False, b)), const(False, b)),
    ("mask_of_all_or_nothing", op("and", i, const(1, i)), None),
    ("bound_beyond_the_range", op("maximum", x, const(-INF, x)), x),
    ("bound_beyond_the_range", op("minimum", u, const(0, u)), const(0, u)),
    ("bound_beyond_the_range", op("maximum", x, const(INF, x)), None),
    ("bound_beyond_the_range", op("maximum", i, const(0, i)), None),
    ("division_by_power_of_two", op("div", x, const(-4.0, x)), op("mul", x, const(-0.25, x))),
    ("division_by_power_of_two", op("div", x, const(3.0, x)), None),
    ("division_by_power_of_two", op("div", x, const(2.0**127, x)), None),
    ("division_by_power_of_two", op("div", h, const(2.0**15, h)), None),
    ("division_by_power_of_two", op("div", x, const(0.0, x)), None),
    ("unsigned_division_by_power_of_two", op("idiv", u, const(8, u)), op("shr", u, const(3, u))),
    ("unsigned_division_by_power_of_two", op("rem", u, const(8, u)), op("and", u, const(7, u))),
    ("unsigned_division_by_power_of_two", op("idiv", i, const(8, i)), None),
    ("unsigned_division_by_power_of_two", op("idiv", u, const(6, u)), None),
    ("unsigned_division_by_power_of_two", op("rem", u, const(0, u)), None),
    ("undone_twice", op("neg", op("neg", x)), x),
    ("undone_twice", op("not", op("not", i)), i),
    ("undone_twice", op("neg", op("abs", x)), None),
    ("times_minus_one", op("mul", x, const(-1.0, x)), op("neg", x)),
    ("times_minus_one", op("sub", const(-0.0, x), x), op("neg", x)),
    ("times_minus_one", op("sub", const(0, i), i), op("neg", i)),
    ("times_minus_one", op("sub", const(0.0, x), x), None),
    ("times_minus_one", op("mul", z64, const(-1 + 0j, z64)), None),
    ("addition_of_negative", op("add", x, op("neg", y)), op("sub", x, y)),
    ("addition_of_negative", op("add", op("neg", x), y), op("sub", y, x)),
    ("addition_of_negative", op("add", x, y), None),
    ("subtraction_of_negative", op("sub", x, op("neg", y)), op("add", x, y)),
    ("subtraction_of_negative", op("sub", op("neg", x), y), None),
    ("both_negative", op("div", op("neg", x), op("neg", y)), op("div", x, y)),
    ("both_negative", op("mul", op("neg", x), y), None),
    ("negative_into_constant", op("mul", op("neg", x), const(3.0, x)),
     op("mul", x, op("neg", const(3.0, x)))),
    ("negative_into_constant", op("mul", op("neg", x), y), None),
    ("absolute_of_sign_change", op("abs", op("neg", i)), op("abs", i)),
    ("absolute_of_sign_change", op("abs", op("abs", x)), op("abs", x)),
    ("absolute_of_sign_change", op("abs", op("neg", u)), None),
    ("absolute_of_unsigned", op("abs", u), u),
    ("absolute_of_unsigned", op("abs", i), None),
    ("rounded_twice", op("floor", op("round", x)), op("round", x)),
    ("rounded_twice", op("floor", op("sqrt", x)), None),
    ("same_of_two", op("maximum", x, x), x),
    ("same_of_two", op("and", b, b), b),
    ("same_of_two", op("maximum", x, y), None),
    ("difference_of_same", op("sub", i, i), const(0, i)),
    ("difference_of_same", op("xor", b, b), const(False, b)),
    ("difference_of_same", op("sub", x, x), None),
    ("comparison_of_same", op("lt", x, x), const(False, b)),
    ("comparison_of_same", op("le", i, i), const(True, b)),
    ("comparison_of_same", op("ne", i, i), const(False, b)),
    ("comparison_of_same", op("ne", x, x), None),
    ("comparison_of_same", op("le", x, x), None),
    ("bounded_twice", op("maximum", op("maximum", x, const(0.0, x)), const(0.0, x)),
     op("maximum", x, const(0.0, x))),
    ("bounded_twice", op("minimum", op("maximum", x, const(0.0, x)), const(0.0, x)), None),
    ("bounded_twice", op("maximum", op("maximum", x, const(0.0, x)), const(-0.0, x)), None),
    ("constants_grouped", op("add", op("add", i, const(3, i)), const(4, i)),
     op("add", i, op("add", const(3, i), const(4, i)))),
    ("constants_grouped", op("mul", op("add", i, const(3, i)), const(4, i)), None),
    ("constants_grouped", op("add", op("add", x, const(3.0, x)), const(4.0, x)), None),
    ("comparison_with_bool", op("eq", b, const(True, b)), b),
    ("comparison_with_bool", op("ne", b, const(True, b)), op("not", b)),
    ("comparison_with_bool", op("eq", i, const(1, i)), None),
    ("opposite_comparison", op("not", op("eq", x, y)), op("ne", x, y)),
    ("opposite_comparison", op("not", op("lt", i, j)), op("le", j, i)),
    ("opposite_comparison", op("not", op("lt", x, y)), None),
    ("choice_of_same", op("where", b, x, x), x),
    ("choice_of_same", op("where", b, x, y), None),
    ("choice_by_opposite", op("where", op("not", b), x, y), op("where", b, y, x)),
    ("choice_by_opposite", op("where", b, x, y), None),
    ("choice_of_bools", op("where", b, const(True, b), const(False, b)), b),
    ("choice_of_bools", op("where", b, const(False, b), const(True, b)), op("not", b)),
    ("choice_of_bools", op("where", b, const(1, i), const(0, i)), None),
    ("choice_made_before", op("where", b, op("where", b, x, y), z), op("where", b, x, z)),
    ("choice_made_before", op("where", b, x, op("where", b, y, z)), op("where", b, x, z)),
    ("choice_made_before", op("where", b, op("where", c, x, y), z), None),
    # simplify-reductions
    ("reduction_of_unit_axes", reduce("max", unit, 1, 3), reshape(unit, 2, 3)),
    ("reduction_of_unit_axes", reduce("sum", unit, 0, 1), reduce("sum", reshape(unit, 2, 3, 1), 0)),
    ("reduction_of_unit_axes", reduce("sum", column, 1),
     op("add", reshape(column, 2), full(0.0, "float32", (2,)))),
    ("reduction_of_unit_axes", reduce("sum", iunit, 1), reshape(iunit, 2)),
    ("reduction_of_unit_axes", reduce("prod", x), x),
    ("reduction_of_unit_axes", reduce("sum", x, 1), None),
    ("place_in_unit_axes", reduce("argmax", unit, 1, 3), full(0, "int64", (2, 3))),
    ("place_in_unit_axes", reduce("argmax", unit, 1, 2), None),
    ("reduction_twice", reduce("max", reduce("max", cube, 1), 0), reduce("max", cube, 0, 1)),
    ("reduction_twice", reduce("sum", reduce("sum", icube, 0), 1), reduce("sum", icube, 0, 2)),
    ("reduction_twice", reduce("sum", reduce("sum", cube, 0), 1), None),
    ("reduction_twice", reduce("min", reduce("max", cube, 0), 1), None),
    ("extreme_of_repeated", reduce("max", expand(row, 2, 3), 0), reduce("max", row, 0)),
    ("extreme_of_repeated", reduce("max", expand(scalar, 2, 3), 0),
     reduce("max", expand(scalar, 1, 3), 0)),
    ("extreme_of_repeated", reduce("max", expand(row, 2, 3), 1), None),
    ("extreme_of_repeated", reduce("sum", expand(row, 2, 3), 0), None),
    ("extreme_of_repeated", reduce("max", expand(row, 0, 3), 0), None),
    ("dot_of_permuted_left", dot(permute(x, 1, 0), y, (), (), (1,), (0,)),
     dot(x, y, (), (), (0,), (0,))),
    ("dot_of_permuted_left", dot(permute(cube, 2, 1, 0), x, (), (), (2,), (0,)), None),
    ("dot_of_permuted_right", dot(x, permute(y, 1, 0), (), (), (1,), (0,)),
     dot(x, y, (), (), (1,), (1,))),
    ("dot_of_permuted_right", dot(x, permute(y, 1, 0), (0,), (1,), (1,), (0,)),
     dot(x, y, (0,), (0,), (1,), (1,))),
    ("dot_of_permuted_right", dot(x, permute(cube, 2, 1, 0), (), (), (0,), (2,)), None),
    ("gather_of_everything", gather(x, (0,), count(2)), x),
    ("gather_of_everything", gather(x, (1,), count(2)),
     permute(cut(x, (0, 2, 1), (0, 2, 1)), 1, 0)),
    ("gather_of_everything", gather(x, (0,), count(3)), None),
    ("gather_of_everything", gather(x, (0,), count(0, 0, (2, 2))), None),
    ("gather_of_one_place", gather(x, (0,), full(-1, "int64", (5,))),
     expand(cut(x, (1, 2, 1), (0, 3, 1)), 5, 3)),
    ("gather_of_one_place", gather(x, (1,), full(1, "int64", ())),
     reshape(cut(x, (0, 2, 1), (1, 2, 1)), 2)),
    ("gather_of_one_place", gather(x, (0,), full(2, "int64", (5,))), None),
    ("scatter_of_nothing",
     node("scatter", x, leaf(26, shape=(0, 3)), nothing, axes=(0,), mode="add"), x),
    ("scatter_of_nothing",
     node("scatter", x, leaf(27, shape=(4, 3)), leaf(28, "int64", (4,)), axes=(0,), mode="add"),
     None),
    # sink-movement
    ("movement_below", op("exp", expand(row, 2, 3)), expand(op("exp", row), 2, 3)),
    ("movement_below", op("add", expand(row, 2, 3), const(2.0, x)),
     expand(op("add", row, const(2.0, row)), 2, 3)),
    ("movement_below", op("add", expand(scalar, 2, 3), expand(row, 2, 3)),
     expand(op("add", expand(scalar, 1, 3), row), 2, 3)),
    ("movement_below", op("mul", reshape(x, 6), reshape(y, 6)), reshape(op("mul", x, y), 6)),
    ("movement_below", op("mul", permute(x, 1, 0), permute(y, 1, 0)),
     permute(op("mul", x, y), 1, 0)),
    ("movement_below", op("neg", flip(x, 0)), flip(op("neg", x), 0)),
    ("movement_below", cast(expand(row, 2, 3), "float64"), expand(cast(row, "float64"), 2, 3)),
    ("movement_below", op("add", expand(row, 2, 3), expand(column, 2, 3)), None),
    ("movement_below", op("add", reshape(x, 6), reshape(cut(few, (0, 3, 1), (0, 2, 1)), 6)), None),
    ("movement_below", op("add", flip(x, 0), flip(x, 1)), None),
    ("movement_below", op("add", expand(row, 2, 3), x), None),
    ("movement_below", op("neg", cut(line, (0, 3, 1))), None),
]
