"""The builder of LLVM text: mistakes are Python errors, constants are exact, and LLVM accepts what
comes out.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazygrad_compiler.llvm.builder import (
    BuilderError,
    Function,
    Module,
    Value,
    bits_of,
    const,
    const_lanes,
    element_of,
    format_scalar,
    is_float,
    lanes_of,
    mangle,
    only_lane,
    vector_of,
    with_element,
)
from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.target import host
from lazygrad_runtime.loader import load_object

A, B = Value("i64", "%a"), Value("i64", "%b")
X, Y = Value("float", "%x"), Value("float", "%y")
V = Value("<4 x float>", "%v")


def function() -> Function:
    return Module().function("f", "void", [])


def run(text: str, result: Any, *parameters: Any) -> tuple[Callable, object]:
    code = load_object(compile_text(text, host()).object_code)
    return ctypes.CFUNCTYPE(result, *parameters)(code.address("f")), code


# ---- types


def test_type_spelling() -> None:
    assert vector_of("float", 8) == "<8 x float>" and vector_of("i1", 1) == "i1"
    assert lanes_of("<16 x i8>") == 16 and lanes_of("ptr") == 1
    assert element_of("<4 x double>") == "double" and element_of("i32") == "i32"
    assert with_element("<4 x float>", "i1") == "<4 x i1>"
    assert bits_of("<8 x i16>") == 16 and bits_of("bfloat") == 16 and bits_of("double") == 64
    assert is_float("<2 x half>") and not is_float("<2 x i16>")
    assert mangle("<16 x float>") == "v16f32" and mangle("bfloat") == "bf16"
    assert mangle("<4 x ptr>") == "v4p0" and mangle("i64") == "i64"


# ---- mistakes


@pytest.mark.parametrize(
    "mistake",
    [
        lambda f: f.add(A, X),
        lambda f: f.add(A, Value("i32", "%c")),
        lambda f: f.fadd(X, V),
        lambda f: f.add(1, 2),
        lambda f: f.icmp("slt", A, X),
        lambda f: f.fcmp("olt", X, V),
        lambda f: f.select(A, X, Y),
        lambda f: f.select(Value("<8 x i1>", "%m"), V, V),
        lambda f: f.select(Value("i1", "%m"), X, A),
        lambda f: f.fma(X, Y, Value("double", "%d")),
        lambda f: f.convert("sext", Value("<4 x i32>", "%w"), "i64"),
    ],
)
def test_operands_that_do_not_fit_are_python_errors(mistake: Callable) -> None:
    with pytest.raises(BuilderError):
        mistake(function())


def test_a_carried_value_must_keep_its_type() -> None:
    f = function()
    with pytest.raises(BuilderError, match="carried"), f.loop(0, 4, 1, [X]) as loop:
        loop.next = [A]


def test_emitter_mistakes_that_reach_llvm_are_runtime_errors() -> None:
    with pytest.raises(RuntimeError):
        compile_text("define void @f() {\n  ret i32 1\n}\n", host())


# ---- constants


@given(st.floats(width=32))
def test_float_constants_are_exact(number: float) -> None:
    spelled = format_scalar("float", number)
    (back,) = struct.unpack("<d", struct.pack("<Q", int(spelled, 16)))
    assert back == number or (math.isnan(back) and math.isnan(number))
    assert math.copysign(1, back) == math.copysign(1, number) or math.isnan(number)


@given(st.floats())
def test_double_constants_are_exact(number: float) -> None:
    (back,) = struct.unpack("<d", struct.pack("<Q", int(format_scalar("double", number), 16)))
    assert back == number or (math.isnan(back) and math.isnan(number))


@given(st.floats(allow_nan=False))
def test_doubles_round_to_float_once(number: float) -> None:
    (back,) = struct.unpack("<d", struct.pack("<Q", int(format_scalar("float", number), 16)))
    with numpy.errstate(over="ignore"):
        assert back == float(numpy.float32(number))


@given(st.integers(-(2**70), 2**70), st.sampled_from(["i8", "i16", "i32", "i64"]))
def test_integer_constants_wrap(number: int, element: str) -> None:
    bits = bits_of(element)
    got = int(format_scalar(element, number))
    assert (got - number) % 2**bits == 0 and -(2 ** (bits - 1)) <= got < 2 ** (bits - 1)


def test_constants_of_other_types() -> None:
    assert format_scalar("i1", True) == "true" and format_scalar("i1", 0) == "false"
    assert format_scalar("half", 1.0) == "0xH3C00"
    assert format_scalar("ptr", 0) == "null"
    assert str(const("<4 x i32>", 7)) == "<4 x i32> splat (i32 7)"
    assert str(const_lanes("i64", [0, 1])) == "<2 x i64> <i64 0, i64 1>"
    assert str(const_lanes("i64", [5])) == "i64 5"


# ---- what comes out is LLVM


def test_loops_carry_values_and_allow_no_trips() -> None:
    """sum of i*i for i in range(a, b, 3)."""
    module = Module()
    f = module.function("f", "i64", [("i64", "a"), ("i64", "b")])
    begin, end = f.parameters
    with f.loop(begin, end, 3, [const("i64", 0)]) as loop:
        loop.next = [f.add(loop.carried[0], f.mul(loop.index, loop.index))]
    f.ret(loop.results[0])
    call, code = run(module.text(), ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    for a, b in [(0, 10), (5, 5), (7, 3), (-4, 4)]:
        assert call(a, b) == sum(i * i for i in range(a, b, 3))
    del code


def test_nested_loops_and_conditions() -> None:
    """How many pairs i, j below n have i * j odd; a stack cell counts."""
    module = Module()
    f = module.function("f", "i64", [("i64", "n")])
    cell = f.alloca("i64", 1)
    f.store(const("i64", 0), cell, 8)
    with f.loop(0, f.parameters[0]) as outer, f.loop(0, f.parameters[0]) as inner:
        odd = f.icmp("eq", f.and_(f.mul(outer.index, inner.index), 1), 1)
        with f.when(odd):
            f.store(f.add(f.load("i64", cell, 8), 1), cell, 8)
    f.ret(f.load("i64", cell, 8))
    call, code = run(module.text(), ctypes.c_int64, ctypes.c_int64)
    assert [call(n) for n in (0, 1, 2, 7)] == [0, 0, 1, 9]
    del code


def test_tables_and_intrinsics_are_declared_once() -> None:
    module = Module()
    table = module.constant_table("squares", "i64", [0, 1, 4, 9])
    f = module.function("f", "double", [("i64", "k")])
    number = f.load("i64", f.offset(table, f.parameters[0], "i64"), 8)
    root = f.overloaded("llvm.sqrt", f.convert("sitofp", number, "double"))
    f.ret(f.overloaded("llvm.sqrt", f.fma(root, root, 0.0)))
    assert module.text().count("declare double @llvm.sqrt.f64") == 1
    call, code = run(module.text(), ctypes.c_double, ctypes.c_int64)
    assert [call(k) for k in range(4)] == [0, 1, 2, 3]
    del code


def test_once_guards_helpers() -> None:
    module = Module()
    assert module.once("helper") and not module.once("helper") and module.once("other")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([("i8", 1), ("i16", 2), ("i32", 4), ("i64", 8)]),
    st.sampled_from([2, 4, 8, 16, 32]),
    st.data(),
)
def test_masked_stores_of_truncated_vectors_write_their_lanes_only(
    kind: tuple[str, int], lanes: int, data: st.DataObject
) -> None:
    """LLVM's own lowering of a constant mask with one lane on wrote over the next element."""
    element, itemsize = kind
    wider = [other for other in ("i16", "i32") if bits_of(other) > itemsize * 8]
    wide = data.draw(st.sampled_from([*wider, "i64"]))
    mask = data.draw(
        st.one_of(
            st.integers(0, lanes).map(lambda n: [lane < n for lane in range(lanes)]),
            st.integers(0, lanes - 1).map(lambda n: [lane == n for lane in range(lanes)]),
            st.lists(st.booleans(), min_size=lanes, max_size=lanes),
        )
    )
    module = Module(function_attributes=host().function_attributes)
    f = module.function("f", "void", [("ptr", "from"), ("ptr", "to")], host().function_attributes)
    source, target = f.parameters
    value = f.load(vector_of(wide, lanes), source, 1)
    value = f.add(value, f.lshr(value, 1))
    f.masked_store(
        f.convert("trunc", value, vector_of(element, lanes)),
        target,
        1,
        const_lanes("i1", mask),
    )
    f.ret()
    call, code = run(module.text(), None, ctypes.c_void_p, ctypes.c_void_p)
    given_numbers = numpy.arange(1, lanes * bits_of(wide) // 8 + 1, dtype=numpy.uint8)
    result = numpy.full((lanes + 4) * itemsize, 0xA5, numpy.uint8)
    call(given_numbers.ctypes.data, result.ctypes.data)
    wide_type = numpy.dtype(f"u{bits_of(wide) // 8}")
    numbers = given_numbers.view(wide_type)
    expected = result.copy().view(f"u{itemsize}")
    expected[:] = numpy.frombuffer(bytes([0xA5]) * itemsize, expected.dtype)[0]
    summed = (numbers + (numbers >> wide_type.type(1))).astype(expected.dtype)
    on = numpy.array([*mask, False, False, False, False])
    expected[on] = summed[numpy.array(mask)]
    numpy.testing.assert_array_equal(result.view(expected.dtype), expected)
    del code


def test_only_lane() -> None:
    assert only_lane(const_lanes("i1", [False, True, False, False])) == 1
    assert only_lane(const_lanes("i1", [True, True, False, False])) is None
    assert only_lane(const_lanes("i1", [False, False])) is None
    assert only_lane(Value("<4 x i1>", "%mask")) is None
    assert only_lane(const("<4 x i1>", True)) is None


def test_module_text_parses_back() -> None:
    module = Module("x86_64-unknown-linux-gnu", "", "nounwind")
    f = module.function("f", "void", [("ptr noalias", "p")])
    f.comment("a remark")
    f.masked_store(V_constant(), f.parameters[0], 4, const("<4 x i1>", True))
    f.ret()
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    assert parsed.triple == "x86_64-unknown-linux-gnu"


def V_constant() -> Value:
    return const("<4 x float>", 1.5)
