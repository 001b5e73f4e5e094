"""Every kind of kernel on older processors, on any number of threads, and in code for aarch64."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys

import llvmlite.binding as llvm
import numpy
import pytest

from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.llvm.half import CONVERSIONS
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.pipeline import emit_objects, lower
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.loader import load_object
from lazygrad_runtime.pool import get_num_threads, set_num_threads
from tests.compiler.every_kind import cases, run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IS_X86 = llvm.get_process_triple().startswith("x86_64")
AVX2 = "sse2,sse4.1,sse4.2,popcnt,avx,avx2,fma,f16c,bmi,bmi2,lzcnt,movbe"
CASES = cases()


@pytest.mark.skipif(not IS_X86, reason="the lists are of x86's features")
@pytest.mark.parametrize("features, never, used",
                         [(AVX2, {"zmm"}, {"ymm"}), (AVX2 + ",avxvnni", {"zmm"}, {"ymm"}),
                          ("sse2", {"zmm", "ymm"}, set())],
                         ids=["avx2", "avx2 and vnni", "sse2"])
def test_older_processors(features: str, never: set[str], used: set[str]) -> None:
    """Equal to the interpreter, without a register that the processor would not have."""
    for feature in {"avx2", "avxvnni"} & set(features.split(",")):
        if not llvm.get_host_cpu_features().get(feature):
            pytest.skip(f"this processor has no {feature}")
    path = os.pathsep.join([ROOT, f"{ROOT}/compiler", f"{ROOT}/runtime"])
    done = subprocess.run(
        [sys.executable, "-m", "tests.compiler.every_kind"], cwd=ROOT, capture_output=True,
        text=True, check=False,
        env=os.environ | {"PYTHONPATH": path, "LAZYGRAD_CPU_FEATURES": features})
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-2000:]}"
    registers = dict(line.split(": ") for line in done.stdout.splitlines())
    assert list(registers) == list(CASES)
    for name, line in registers.items():
        found = set(line.split(" ")[1].split(",")) - {""}
        assert found & never == set() and found >= used, (name, found)


@pytest.mark.parametrize("name", CASES)
def test_threads_change_no_bit(name: str) -> None:
    graph, inputs = CASES[name]
    stages, before, found = lower(graph, host()), get_num_threads(), []
    try:
        for count in (1, 2, 4):
            set_num_threads(count)
            found.append([array.tobytes() for array in run(stages, inputs)])
    finally:
        set_num_threads(before)
    assert found[0] == found[1] == found[2]


ARM = {
    "neoverse-n1": "+neon,+fullfp16,-sve",
    "neoverse-v1 without sve": "+neon,+fullfp16,-sve",
    "neoverse-v1": "+neon,+fullfp16,+bf16,+sve",
}
ELF_AARCH64 = b"\xb7\x00"


@pytest.mark.parametrize("machine", ARM)
def test_code_for_aarch64(machine: str) -> None:
    """All of it assembles; the inner loops of products keep their sums in registers."""
    triple = "aarch64-unknown-linux-gnu"
    target = Target(triple, machine.split()[0], ARM[machine], 16, 32)
    llvm.initialize_all_targets()
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip("this LLVM has no aarch64")
    loops = 0
    for name, (graph, _) in CASES.items():
        stages = lower(graph, target)
        objects = emit_objects(stages)
        assert len(objects) == 1 + len(stages.kernels) > 1
        for code in objects.values():
            assert code[:4] == b"\x7fELF" and code[18:20] == ELF_AARCH64 and len(code) > 500
        if not name.startswith("contraction") or not any(
                isinstance(kernel.kernel, ContractionKernel) for kernel in stages.kernels):
            continue
        for block in re.split(r"^[.\w]*BB\w*:|^[\w.\"]+:", stages.render("asm"), flags=re.M):
            if len(re.findall(r"\bfmla\b", block)) >= 24:
                loops += 1
                assert not re.search(r"\[(?:sp|x29)\b", block), f"{name}:\n{block}"
    assert loops >= 3


# ---- float16 where the processor converts none


def converted(name: str, array: numpy.ndarray, to: str) -> numpy.ndarray:
    """By one of the functions of `half.py`, called for each element."""
    kinds = {"float16": "half", "float32": "float", "float64": "double"}
    before, after = kinds[array.dtype.name], kinds[to]
    text = CONVERSIONS + f"""
define void @each(ptr %args, i64 %begin, i64 %end, ptr %scratch) {{
entry:
  %to_place = getelementptr i8, ptr %args, i64 8
  %from = load ptr, ptr %args
  %to = load ptr, ptr %to_place
  br label %body
body:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %source = getelementptr {before}, ptr %from, i64 %i
  %place = getelementptr {after}, ptr %to, i64 %i
  %value = load {before}, ptr %source
  %made = call {after} @{name}({before} %value)
  store {after} %made, ptr %place
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %end
  br i1 %more, label %body, label %done
done:
  ret void
}}"""
    code = load_object(compile_text(text, host()).object_code)
    result = numpy.empty(array.shape, to)
    arguments = (ctypes.c_void_p * 2)(array.ctypes.data, result.ctypes.data)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                ctypes.c_void_p)(code.address("each"))
    function(ctypes.addressof(arguments), 0, array.size, None)
    return result


def assert_same_bits(have: numpy.ndarray, want: numpy.ndarray) -> None:
    nan = numpy.isnan(want)
    numpy.testing.assert_array_equal(numpy.isnan(have), nan)
    word = f"u{want.itemsize}"
    numpy.testing.assert_array_equal(have.view(word)[~nan], want.view(word)[~nan])


ALL_HALVES = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16)


def test_every_float16_is_widened() -> None:
    assert_same_bits(converted("__extendhfsf2", ALL_HALVES, "float32"),
                     ALL_HALVES.astype(numpy.float32))


@pytest.mark.parametrize("name, dtype",
                         [("__truncsfhf2", "float32"), ("__truncdfhf2", "float64")])
def test_narrowing_to_float16_rounds_to_nearest_even(name: str, dtype: str) -> None:
    """Every midpoint between two neighbours, what lies next to it, and any bits at all."""
    random = numpy.random.default_rng(0)
    kind = numpy.dtype(dtype).type
    finite = numpy.sort(ALL_HALVES[numpy.isfinite(ALL_HALVES)]).astype(kind)
    middle = (finite[1:] + finite[:-1]) / 2
    bits = random.integers(0, 256, 8 * 100_000, dtype=numpy.uint8).view(kind)
    scales = kind(10) ** random.integers(-9, 6, 100_000).astype(kind)
    edges = numpy.array([65519.9, 65520, 65535, 65536, 1e30, -1e30, 1e-40, numpy.inf], kind)
    values = numpy.concatenate([
        finite, middle, numpy.nextafter(middle, kind(numpy.inf)),
        numpy.nextafter(middle, kind(-numpy.inf)), bits,
        random.standard_normal(100_000).astype(kind) * scales, edges])
    with numpy.errstate(all="ignore"):
        assert_same_bits(converted(name, values, "float16"), values.astype(numpy.float16))
