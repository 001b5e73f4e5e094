"""The loader: objects become callable code, as many as a process wants, and bad ones are errors."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from lazygrad_runtime.loader import LoadError, initialize_target, load_object

UnaryFunction = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def emit(source: str) -> bytes:
    initialize_target()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1, reloc="pic")
    return machine.emit_object(llvm.parse_assembly(source))


def adder(amount: int) -> bytes:
    return emit(f"define i64 @kernel(i64 %x) {{ %r = add i64 %x, {amount} ret i64 %r }}")


def test_hundreds_of_objects_with_the_same_names_at_once():
    loaded = [load_object(adder(amount)) for amount in range(300)]
    for amount, code in enumerate(loaded):
        assert UnaryFunction(code.address("kernel"))(1000) == 1000 + amount


def test_code_stays_while_referenced_and_goes_afterwards():
    kept = load_object(adder(7))
    address = kept.address("kernel")
    for amount in range(50):
        load_object(adder(amount)).address("kernel")
    gc.collect()
    assert UnaryFunction(address)(1) == 8
    assert kept.address("kernel") == address


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_dropped_code_gives_its_pages_back():
    def mapping_count():
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)

    object_bytes = adder(1)
    before = mapping_count()
    codes = [load_object(object_bytes) for _ in range(200)]
    for code in codes:
        code.address("kernel")
    assert mapping_count() > before + 150
    del code
    codes.clear()
    gc.collect()
    assert mapping_count() < before + 50


def test_given_symbols_belong_to_their_object_only():
    source = """
    declare i64 @outside(i64)
    define i64 @kernel(i64 %x) { %r = call i64 @outside(i64 %x) ret i64 %r }
    """
    double, triple = UnaryFunction(lambda x: 2 * x), UnaryFunction(lambda x: 3 * x)
    object_bytes = emit(source)
    first, second = (
        load_object(object_bytes, {"outside": ctypes.cast(function, ctypes.c_void_p).value})
        for function in (double, triple)
    )
    assert UnaryFunction(first.address("kernel"))(5) == 10
    assert UnaryFunction(second.address("kernel"))(5) == 15


def test_code_of_one_object_can_call_another():
    inner = load_object(adder(3))
    outer = load_object(
        emit(
            "declare i64 @inner(i64)\n"
            "define i64 @kernel(i64 %x) { %r = call i64 @inner(i64 %x) ret i64 %r }"
        ),
        {"inner": inner.address("kernel")},
    )
    assert UnaryFunction(outer.address("kernel"))(4) == 7


def test_libc_functions_and_constants_resolve():
    source = """
    declare ptr @memcpy(ptr, ptr, i64)
    declare ptr @memset(ptr, i32, i64)
    declare i64 @syscall(i64, ...)
    @words = private constant [4 x i64] [i64 11, i64 22, i64 33, i64 44]
    @state = global i64 5, align 64
    define i64 @kernel(i64 %index) {
      %copy = alloca [4 x i64]
      %1 = call ptr @memset(ptr %copy, i32 255, i64 32)
      %2 = call ptr @memcpy(ptr %copy, ptr @words, i64 24)
      %cell = getelementptr i64, ptr %copy, i64 %index
      %value = load i64, ptr %cell
      %old = load i64, ptr @state
      %new = add i64 %old, 1
      store i64 %new, ptr @state
      ret i64 %value
    }
    define i64 @process(i64 %number) {
      %r = call i64 (i64, ...) @syscall(i64 %number)
      ret i64 %r
    }
    """
    code = load_object(emit(source))
    kernel = UnaryFunction(code.address("kernel"))
    assert [kernel(index) for index in range(4)] == [11, 22, 33, -1]
    assert ctypes.c_int64.from_address(code.address("state")).value == 9
    assert code.address("state") % 64 == 0


def test_unknown_name_is_an_error_that_names_it():
    code = load_object(adder(1))
    with pytest.raises(LoadError, match="no_such_kernel"):
        code.address("no_such_kernel")
    assert UnaryFunction(code.address("kernel"))(1) == 2


def test_undefined_symbol_is_an_error_and_the_linker_survives():
    source = """
    declare i64 @nobody_defines_this(i64)
    define i64 @kernel(i64 %x) { %r = call i64 @nobody_defines_this(i64 %x) ret i64 %r }
    """
    with pytest.raises(LoadError, match="kernel"):
        load_object(emit(source)).address("kernel")
    assert UnaryFunction(load_object(adder(1)).address("kernel"))(1) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF objects")
def test_bytes_that_are_no_object_are_refused():
    good = adder(1)
    for bad in (b"", b"abc", b"\x7fELF", b"\0" * 500, good[:64], good[:200]):
        with pytest.raises(LoadError):
            load_object(bad).address("kernel")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF objects")
def test_objects_of_another_machine_are_refused():
    foreign = bytearray(adder(1))
    foreign[18] ^= 0xFF
    with pytest.raises(LoadError, match="Compile again for this machine"):
        load_object(bytes(foreign))


def test_exit_with_loaded_code_in_globals_and_cycles():
    script = f"""
from lazygrad_runtime.loader import load_object
code = load_object({adder(1)!r})
code.address("kernel")
cycle = [code]
cycle.append(cycle)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=200
    )
    assert (result.returncode, result.stderr) == (0, b"")
