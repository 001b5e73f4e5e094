"""Kernels in LLVM text, compiled by LLVM's NVPTX target, run by the interpreter, against NumPy."""

# ruff: noqa: E501 - PTX and LLVM text, one instruction a line

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import DeviceMemory, Module
from tests.ptx.support import assemble, to_ptx

DECLARATIONS = """
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.nctaid.x()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)
declare float @llvm.nvvm.shfl.sync.down.f32(i32, float, i32, i32)
declare i32 @llvm.nvvm.vote.ballot.sync(i32, i1)
declare float @llvm.nvvm.ex2.approx.f(float)
declare float @llvm.sqrt.f32(float)
declare float @llvm.fma.f32(float, float, float)
declare double @llvm.fma.f64(double, double, double)
declare float @llvm.maxnum.f32(float, float)
declare i64 @llvm.umulh.i64(i64, i64)
declare i32 @llvm.ctpop.i32(i32)
declare i32 @llvm.ctlz.i32(i32, i1)
declare i32 @llvm.fshl.i32(i32, i32, i32)
"""

GRID_STRIDE = """
define ptx_kernel void @kernel(ptr addrspace(1) %x, ptr addrspace(1) %y, i64 %n) {
entry:
  %tid = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %ntid = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %block = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %blocks = call i32 @llvm.nvvm.read.ptx.sreg.nctaid.x()
  %base = mul i32 %block, %ntid
  %first = add i32 %base, %tid
  %start = zext i32 %first to i64
  %stride32 = mul i32 %ntid, %blocks
  %stride = zext i32 %stride32 to i64
  %any = icmp ult i64 %start, %n
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [ %start, %entry ], [ %next, %loop ]
  %p = getelementptr TYPE, ptr addrspace(1) %x, i64 %i
  %q = getelementptr TYPE, ptr addrspace(1) %y, i64 %i
  %v = load TYPE, ptr addrspace(1) %p
  BODY
  store TYPE %r, ptr addrspace(1) %q
  %next = add i64 %i, %stride
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


def elementwise(type_: str, body: str) -> str:
    return DECLARATIONS + GRID_STRIDE.replace("TYPE", type_).replace("BODY", body)


ROW_SUM = """
@partial = internal addrspace(3) global [32 x float] undef, align 16
define ptx_kernel void @kernel(ptr addrspace(1) %x, ptr addrspace(1) %y, i32 %n) {
entry:
  %tid = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %ntid = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %row = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %offset = mul i32 %row, %n
  br label %head
head:
  %i = phi i32 [ %tid, %entry ], [ %next, %body ]
  %sum = phi float [ 0.0, %entry ], [ %more, %body ]
  %inside = icmp ult i32 %i, %n
  br i1 %inside, label %body, label %warp
body:
  %at = add i32 %offset, %i
  %p = getelementptr float, ptr addrspace(1) %x, i32 %at
  %v = load float, ptr addrspace(1) %p
  %more = fadd float %sum, %v
  %next = add i32 %i, %ntid
  br label %head
warp:
  %s1 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %sum, i32 16, i32 31)
  %t1 = fadd float %sum, %s1
  %s2 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %t1, i32 8, i32 31)
  %t2 = fadd float %t1, %s2
  %s3 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %t2, i32 4, i32 31)
  %t3 = fadd float %t2, %s3
  %s4 = call float @llvm.nvvm.shfl.sync.down.f32(i32 -1, float %t3, i32 2, i32 31)
  %t4 = fadd float %t3, %s4
  %s5 = call float @llvm.nvvm.shfl.sync.down.f32(i32 -1, float %t4, i32 1, i32 31)
  %t5 = fadd float %t4, %s5
  %lane = and i32 %tid, 31
  %number = lshr i32 %tid, 5
  %first = icmp eq i32 %lane, 0
  br i1 %first, label %write, label %meet
write:
  %slot = getelementptr float, ptr addrspace(3) @partial, i32 %number
  store float %t5, ptr addrspace(3) %slot
  br label %meet
meet:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %leader = icmp eq i32 %tid, 0
  br i1 %leader, label %collect, label %done
collect:
  %warps = lshr i32 %ntid, 5
  br label %again
again:
  %w = phi i32 [ 0, %collect ], [ %w1, %again ]
  %total = phi float [ 0.0, %collect ], [ %total1, %again ]
  %from = getelementptr float, ptr addrspace(3) @partial, i32 %w
  %part = load float, ptr addrspace(3) %from
  %total1 = fadd float %total, %part
  %w1 = add i32 %w, 1
  %left = icmp ult i32 %w1, %warps
  br i1 %left, label %again, label %put
put:
  %q = getelementptr float, ptr addrspace(1) %y, i32 %row
  store float %total1, ptr addrspace(1) %q
  br label %done
done:
  ret void
}
"""

HISTOGRAM = """
define ptx_kernel void @kernel(ptr addrspace(1) %x, ptr addrspace(1) %counts, ptr addrspace(1) %sum,
                               ptr addrspace(1) %ranks) {
  %tid = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %ntid = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %block = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %base = mul i32 %block, %ntid
  %i = add i32 %base, %tid
  %p = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %bin = load i32, ptr addrspace(1) %p
  %q = getelementptr i32, ptr addrspace(1) %counts, i32 %bin
  %rank = atomicrmw add ptr addrspace(1) %q, i32 1 monotonic
  %r = getelementptr i32, ptr addrspace(1) %ranks, i32 %i
  store i32 %rank, ptr addrspace(1) %r
  %f = uitofp i32 %bin to float
  %unused = atomicrmw fadd ptr addrspace(1) %sum, float %f monotonic
  ret void
}
"""

COLLATZ = """
define ptx_kernel void @kernel(ptr addrspace(1) %x, ptr addrspace(1) %y) {
entry:
  %tid = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %p = getelementptr i32, ptr addrspace(1) %x, i32 %tid
  %start = load i32, ptr addrspace(1) %p
  br label %head
head:
  %v = phi i32 [ %start, %entry ], [ %new, %next ]
  %steps = phi i32 [ 0, %entry ], [ %steps1, %next ]
  %end = icmp ule i32 %v, 1
  br i1 %end, label %done, label %work
work:
  %bit = and i32 %v, 1
  %odd = icmp eq i32 %bit, 1
  br i1 %odd, label %up, label %down
up:
  %triple = mul i32 %v, 3
  %up1 = add i32 %triple, 1
  %z = call i32 @llvm.ctpop.i32(i32 %up1)
  %bad = icmp eq i32 %z, 0
  br i1 %bad, label %done, label %next
down:
  %half = lshr i32 %v, 1
  br label %next
next:
  %new = phi i32 [ %up1, %up ], [ %half, %down ]
  %steps1 = add i32 %steps, 1
  br label %head
done:
  %ballot = call i32 @llvm.nvvm.vote.ballot.sync(i32 -1, i1 true)
  %count = call i32 @llvm.ctpop.i32(i32 %ballot)
  %scaled = mul i32 %steps, 100
  %result = add i32 %scaled, %count
  %q = getelementptr i32, ptr addrspace(1) %y, i32 %tid
  store i32 %result, ptr addrspace(1) %q
  ret void
}
"""

BODIES = {
    "fma": ("float", "%w = fmul float %v, 2.5\n %r = call float @llvm.fma.f32(float %w, float %v, float 1.0)"),
    "exp": ("float", "%r = call float @llvm.nvvm.ex2.approx.f(float %v)"),
    "divide": ("float", "%a = fdiv float 1.0, %v\n %r = call float @llvm.sqrt.f32(float %a)"),
    "fma64": ("double", "%r = call double @llvm.fma.f64(double %v, double %v, double -1.0)"),
    "half": ("half", "%a = fmul half %v, %v\n %r = fadd half %a, %v"),
    "bfloat": ("bfloat", "%a = fmul bfloat %v, %v\n %r = fadd bfloat %a, %v"),
    "division": ("i64", "%a = sdiv i64 %v, 7\n %b = srem i64 %v, 1000003\n %c = mul i64 %a, %b\n"
                 " %d = udiv i64 %c, 12345678901\n %r = xor i64 %d, %c"),
    "shifts": ("i32", "%a = shl i32 %v, 3\n %b = ashr i32 %v, 5\n %c = xor i32 %a, %b\n"
               "%d = call i32 @llvm.fshl.i32(i32 %c, i32 %v, i32 7)\n"
               "%e = call i32 @llvm.ctlz.i32(i32 %d, i1 false)\n %r = add i32 %d, %e"),
    "bytes": ("i8", "%a = sext i8 %v to i32\n %b = mul i32 %a, %a\n %c = lshr i32 %b, 3\n %r = trunc i32 %c to i8"),
    "convert": ("float", "%a = fptosi float %v to i32\n %b = sitofp i32 %a to half\n %c = fpext half %b to double\n"
                "%d = fptrunc double %c to float\n %r = fsub float %v, %d"),
}  # fmt: skip

SHARED_TEXTS = {"row_sum": ROW_SUM, "histogram": HISTOGRAM, "collatz": COLLATZ}


def run_elementwise(name: str, x: np.ndarray, grid: int = 3, block: int = 128) -> np.ndarray:
    memory = DeviceMemory()
    module = Module(to_ptx(elementwise(*BODIES[name])), memory)
    source, result = memory.upload(x), memory.allocate(x.nbytes)
    module.launch("kernel", grid, block, [source, result, x.size])
    assert memory.written(result, x.nbytes)
    return memory.read_array(result, x.dtype, x.shape)


def normal(count: int, dtype: object = np.float32) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(count).astype(dtype)


def bfloat16(values: np.ndarray) -> np.ndarray:
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16)


def test_float_bodies():
    x = normal(1001)
    wide = x.astype(np.float64)
    expected = (np.float64(np.float32(2.5) * x) * wide + 1.0).astype(np.float32)
    np.testing.assert_array_equal(run_elementwise("fma", x), expected)
    np.testing.assert_allclose(run_elementwise("exp", x), np.exp2(x), rtol=1e-6)
    positive = np.abs(x) + np.float32(0.1)
    np.testing.assert_array_equal(
        run_elementwise("divide", positive), np.sqrt(np.float32(1) / positive)
    )
    whole = np.trunc(x * 100).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run_elementwise("convert", x * 100), x * 100 - whole)


def test_double_fma_rounds_once():
    from fractions import Fraction

    x = normal(200, np.float64)
    x[0] = 1 + 2.0**-30
    expected = [float(Fraction(float(v)) ** 2 - 1) for v in x]
    np.testing.assert_array_equal(run_elementwise("fma64", x), expected)


def test_narrow_floats():
    x = normal(515, np.float16)
    # LLVM may not contract, so two roundings.
    np.testing.assert_array_equal(run_elementwise("half", x), x * x + x)
    narrow = bfloat16(normal(515))
    np.testing.assert_array_equal(
        run_elementwise("bfloat", narrow).view(np.uint16),
        (narrow * narrow + narrow).view(np.uint16),
    )


def test_integer_bodies():
    generator = np.random.default_rng(5)
    x = generator.integers(-(2**62), 2**62, 777)
    quotient = np.sign(x) * (np.abs(x) // 7)
    product = quotient * (np.sign(x) * (np.abs(x) % 1000003))
    expected = (product.view(np.uint64) // np.uint64(12345678901)) ^ product.view(np.uint64)
    np.testing.assert_array_equal(run_elementwise("division", x).view(np.uint64), expected)

    y = generator.integers(-(2**31), 2**31, 777).astype(np.int32)
    mixed = ((y << 3) ^ (y >> 5)).view(np.uint32)
    rotated = (mixed << np.uint32(7)) | (y.view(np.uint32) >> np.uint32(25))
    zeros = np.array([32 - int(v).bit_length() for v in rotated], np.uint32)
    np.testing.assert_array_equal(run_elementwise("shifts", y).view(np.uint32), rotated + zeros)

    z = np.arange(-128, 128).astype(np.int8)
    square = z.astype(np.int32) ** 2 >> 3
    np.testing.assert_array_equal(run_elementwise("bytes", z), square.astype(np.int8))


@pytest.mark.parametrize("columns", [1, 37, 300])
def test_row_sum(columns):
    x = normal(70 * columns).reshape(70, columns)
    memory = DeviceMemory()
    module = Module(to_ptx(DECLARATIONS + ROW_SUM), memory)
    source, result = memory.upload(x), memory.allocate(4 * 70)
    # Several batches: the split must not show.
    module.launch("kernel", 70, 128, [source, result, columns], batch_lanes=1024)
    np.testing.assert_allclose(
        memory.read_array(result, np.float32, (70,)), x.sum(1), rtol=1e-4, atol=1e-5
    )


def test_atomics():
    x = np.random.default_rng(1).integers(0, 16, 512).astype(np.int32)
    memory = DeviceMemory()
    module = Module(to_ptx(DECLARATIONS + HISTOGRAM), memory)
    source, ranks = memory.upload(x), memory.allocate(2048)
    counts, total = memory.upload(np.zeros(16, np.int32)), memory.upload(np.zeros(1, np.float32))
    module.launch("kernel", 4, 128, [source, counts, total, ranks])
    np.testing.assert_array_equal(
        memory.read_array(counts, np.int32, (16,)), np.bincount(x, minlength=16)
    )
    assert memory.read_array(total, np.float32, (1,))[0] == x.sum()
    got = memory.read_array(ranks, np.int32, (512,))
    for value in range(16):
        assert sorted(got[x == value]) == list(range((x == value).sum()))


def collatz_steps(value: int) -> int:
    steps = 0
    while value > 1:
        value = 3 * value + 1 if value & 1 else value // 2
        steps += 1
    return steps


def test_divergent_loop_joins_again():
    x = np.arange(1, 65, dtype=np.int32)
    memory = DeviceMemory()
    module = Module(to_ptx(DECLARATIONS + COLLATZ), memory)
    source, result = memory.upload(x), memory.allocate(256)
    module.launch("kernel", 1, 64, [source, result])
    # The ballot counts 32 lanes only if all of a warp came together behind the loop.
    expected = [100 * collatz_steps(int(value)) + 32 for value in x]
    np.testing.assert_array_equal(memory.read_array(result, np.int32, (64,)), expected)


@pytest.mark.parametrize("cpu", ["sm_80", "sm_90a"])
def test_ptxas_takes_every_text(cpu):
    for body in BODIES.values():
        assemble(to_ptx(elementwise(*body), cpu), cpu)
    for text in SHARED_TEXTS.values():
        assemble(to_ptx(DECLARATIONS + text, cpu), cpu)
