"""Index expressions mean what they say: every simplification equals evaluation on all points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazygrad_compiler.loops.index import (
    ZERO,
    Affine,
    Div,
    Dyn,
    Mod,
    Term,
    Var,
    combine,
    delinearize,
    digits,
    divide,
    linearize,
    modulo,
    split_points,
    strides_of,
    substitute,
    variable,
)

Array = numpy.ndarray
EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 12])
DIVISORS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24])
DYN = Dyn(5, 3)


def grid(extents: tuple[int, ...]) -> dict[Term, Array]:
    """Every point of the space: the values of x, y, z and of one number read at run time."""
    axes = numpy.meshgrid(*(numpy.arange(e) for e in (*extents, DYN.extent)), indexing="ij")
    terms: list[Term] = [Var(name, e) for name, e in zip("xyz", extents, strict=False)]
    return dict(zip([*terms, DYN], axes, strict=True))


def evaluate(value: Affine, points: Mapping[Term, Array]) -> Array:
    """The expression by its definition; division rounds down."""
    result = numpy.full(next(iter(points.values())).shape, value.constant)
    for term, c in value.terms:
        if isinstance(term, Div):
            number = evaluate(term.inner, points) // term.divisor
        elif isinstance(term, Mod):
            number = evaluate(term.inner, points) % term.divisor
        else:
            number = points[term]
        result = result + c * number
    return result


@dataclass
class Case:
    """An expression as the library simplified it, next to its values computed without it."""

    value: Affine
    expected: Array
    points: dict[Term, Array]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A random expression of three variables: sums, multiples, quotients and remainders, nested."""
    points = grid(draw(st.tuples(EXTENTS, EXTENTS, EXTENTS)))
    known = [(variable(term), array) for term, array in points.items()]
    for _ in range(draw(st.integers(1, 7))):
        value, expected = known[draw(st.integers(0, len(known) - 1))]
        kind = draw(st.sampled_from(["add", "add", "shift", "times", "divide", "modulo", "modulo"]))
        if kind == "add":
            other, more = known[draw(st.integers(0, len(known) - 1))]
            known.append((value + other, expected + more))
        elif kind == "shift":
            constant = draw(st.integers(-9, 9))
            known.append((value + constant, expected + constant))
        elif kind == "times":
            factor = draw(st.sampled_from([-12, -4, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12]))
            known.append((value * factor, expected * factor))
        else:
            divisor = draw(DIVISORS)
            if kind == "divide":
                known.append((divide(value, divisor), expected // divisor))
            else:
                known.append((modulo(value, divisor), expected % divisor))
    value, expected = known[-1]
    return Case(value, expected, points)


def check_form(value: Affine) -> None:
    """What the class promises: distinct sorted terms, no zero coefficients, positive divisors."""
    terms = [term for term, _ in value.terms]
    assert len(set(terms)) == len(terms)
    assert all(c for _, c in value.terms)
    assert [str(t) for t in terms] == sorted(str(t) for t in terms)
    for term in terms:
        if isinstance(term, (Div, Mod)):
            assert term.divisor > 1
            check_form(term.inner)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_simplified_expressions_equal_brute_force(case: Case) -> None:
    got = evaluate(case.value, case.points)
    numpy.testing.assert_array_equal(got, case.expected, err_msg=str(case.value))
    assert case.value.low <= got.min() and got.max() <= case.value.high
    check_form(case.value)


@settings(max_examples=200, deadline=None)
@given(cases(), st.data())
def test_substitution_equals_evaluation_of_the_replacement(case: Case, data: st.DataObject) -> None:
    mapping: dict[Term, Affine] = {}
    moved = dict(case.points)
    for term in case.value.variables():
        if not isinstance(term, Var) or not data.draw(st.booleans()):
            continue
        # another expression that stays within the variable's range
        other = Var("w", data.draw(EXTENTS))
        position = numpy.arange(other.extent).reshape(-1, *(1,) * DYN_RANK)
        moved[other] = position
        shift = data.draw(st.integers(0, term.extent - 1))
        mapping[term] = modulo(variable(other) + shift, term.extent)
        moved[term] = (position + shift) % term.extent
        break
    shape = numpy.broadcast_shapes(*(array.shape for array in moved.values()))
    everywhere = {term: numpy.broadcast_to(array, shape) for term, array in moved.items()}
    numpy.testing.assert_array_equal(
        evaluate(substitute(case.value, mapping), everywhere), evaluate(case.value, everywhere)
    )


DYN_RANK = 4


@settings(max_examples=200, deadline=None)
@given(
    st.lists(EXTENTS, min_size=1, max_size=4), st.lists(EXTENTS, min_size=1, max_size=4), st.data()
)
def test_delinearize_is_numpys_unravel_index(
    loops: list[int], shape: list[int], data: st.DataObject
) -> None:
    """A position made from loops of any sizes, taken apart by another shape of as many elements."""
    total = math.prod(loops)
    shape = [size for size in shape if total % size == 0][:1]
    shape = [*shape, total // math.prod(shape)]
    if data.draw(st.booleans()):
        shape.insert(data.draw(st.integers(0, len(shape))), 1)
    axes = [Var(f"v{k}", size) for k, size in enumerate(loops)]
    values = numpy.meshgrid(*(numpy.arange(size) for size in loops), indexing="ij")
    points: dict[Term, Array] = dict(zip(axes, values, strict=True))
    position = linearize([variable(axis) for axis in axes], loops)
    numpy.testing.assert_array_equal(
        evaluate(position, points), numpy.ravel_multi_index(tuple(values), tuple(loops))
    )
    indices = delinearize(position, shape)
    expected = numpy.unravel_index(numpy.arange(total).reshape(loops), shape)
    for index, right in zip(indices, expected, strict=True):
        numpy.testing.assert_array_equal(evaluate(index, points), right)
    # and back: the same position
    numpy.testing.assert_array_equal(
        evaluate(linearize(indices, shape), points), numpy.arange(total).reshape(loops)
    )


@pytest.mark.parametrize("order", ["quotient first", "remainder first"])
@pytest.mark.parametrize("divisors", [(4,), (3,), (4, 6), (6, 4)])
def test_quotient_and_remainder_join_again(order: str, divisors: tuple[int, ...]) -> None:
    x = variable(Var("x", 1000))
    for divisor in divisors:
        quotient, remainder = divide(x, divisor) * divisor, modulo(x, divisor)
        joined = remainder + quotient if order == "remainder first" else quotient + remainder
        assert joined == x


def test_only_matching_parts_join() -> None:
    x, y = variable(Var("x", 100)), variable(Var("y", 100))
    for other in (modulo(y, 4), modulo(x, 2), modulo(x, 4) * 2):
        assert len((divide(x, 4) * 4 + other).terms) == 2
    assert len((divide(x, 4) * 2 + modulo(x, 4)).terms) == 2


def test_joining_with_a_constant_inside_loses_nothing() -> None:
    shifted = variable(Var("x", 100)) + 3
    got = divide(shifted, 8) * 8 + modulo(shifted, 8)
    points: dict[Term, Array] = {Var("x", 100): numpy.arange(100)}
    numpy.testing.assert_array_equal(evaluate(got, points), numpy.arange(100) + 3)


def test_reshapes_of_whole_axes_leave_no_division() -> None:
    """(4, 6, 5) read as (24, 5), as (4, 30) and back: the loops' own variables remain."""
    axes = [variable(Var(name, size)) for name, size in zip("xyz", (4, 6, 5), strict=True)]
    position = linearize(axes, (4, 6, 5))
    for shape in [(24, 5), (4, 30), (4, 6, 5), (4, 1, 6, 5), (120,)]:
        for index in delinearize(position, shape):
            assert all(isinstance(term, Var) for term, _ in index.terms), f"{shape}: {index}"
    assert delinearize(position, (4, 6, 5)) == tuple(axes)


def test_sizes_of_one_and_zero() -> None:
    assert variable(Var("x", 1)) == ZERO
    assert delinearize(ZERO, (1, 1)) == (ZERO, ZERO)
    assert strides_of((2, 3, 4)) == [12, 4, 1]
    assert linearize([], ()) == ZERO
    assert variable(Var("x", 0)).low == variable(Var("x", 0)).high == 0


def test_combine_drops_what_cancels() -> None:
    x = Var("x", 9)
    assert combine(2, [(x, 3), (x, -3)]) == Affine(2)
    assert (variable(x) + variable(x) * -1) == ZERO


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 240), st.sets(st.integers(1, 240), max_size=4))
def test_digits_split_a_variable_at_the_points(extent: int, points: set[int]) -> None:
    sizes = digits(extent, points)
    inside = sorted(point for point in points if 1 < point < extent)
    nested = all(b % a == 0 for a, b in itertools.pairwise([*inside, extent]))
    if not nested:
        assert sizes is None
        return
    assert sizes is not None and math.prod(sizes) == extent
    assert set(inside) <= set(strides_of(sizes)) | {extent}


def test_split_points_name_the_strides_that_divisions_cut_at() -> None:
    x = Var("x", 60)
    value = variable(x)
    assert split_points([divide(value, 5)]) == {x: {5}}
    assert split_points([modulo(value, 5)]) == {x: {5}}
    middle = modulo(divide(value, 5), 3)
    assert split_points([middle]) == {x: {5, 15}}
    assert split_points([value * 2 + 1]) == {}


def test_split_variable_needs_no_division() -> None:
    """What `digits` is for: x as (4, 3, 5) resolves (x // 5) % 3 to the middle variable."""
    x = Var("x", 60)
    middle = modulo(divide(variable(x), 5), 3)
    sizes = digits(60, split_points([middle])[x])
    assert sizes == [4, 3, 5]
    parts = [Var(f"p{k}", size) for k, size in enumerate(sizes)]
    position = linearize([variable(part) for part in parts], sizes)
    assert substitute(middle, {x: position}) == variable(parts[1])


def test_text_is_readable() -> None:
    x = variable(Var("x", 100))
    assert str(divide(x, 7) * 3 + modulo(x, 7) + 1) == "(x)%7 + 3*(x)//7 + 1"
    assert str(ZERO) == "0"
