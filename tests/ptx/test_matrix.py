"""ldmatrix, mma.sync, cp.async against NumPy's matrix products."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.ptx import DeviceMemory, KernelFault, Module
from tests.ptx.support import assemble, kernel_text

DTYPES = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "tf32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "s8": np.dtype(np.int8),
}
SHAPES = [
    (16, 8, "f16", "f32"), (16, 16, "f16", "f32"), (16, 16, "f16", "f16"), (16, 16, "bf16", "f32"),
    (16, 8, "bf16", "f32"), (16, 4, "tf32", "f32"), (16, 8, "tf32", "f32"), (16, 32, "s8", "s32"),
    (16, 16, "s8", "s32"), (8, 4, "f64", "f64"),
]  # fmt: skip


def fragment(rows: np.ndarray, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return matrix[rows, columns]


def mma_text(m: int, k: int, element: str, result: str) -> str:
    """Each lane loads its fragments, packed by the test, from a0, a1, a2 and stores to a3."""
    wide = element == "f64"
    size = 8 if wide else 4
    register = "%w" if wide else "%f"
    bits = 8 * DTYPES[element].itemsize
    a_count = m * k * bits // (8 * size) // 32
    b_count = 8 * k * bits // (8 * size) // 32
    c_count = m * 8 // 32 // (2 if result == "f16" else 1)
    kind = "f64" if wide else "b32"
    lines, names, number = [], [], 0
    for matrix, count in enumerate((a_count, b_count, c_count)):
        lines += [f"mul.wide.u32 %d1, %t, {count * size};", f"add.s64 %d2, %a{matrix}, %d1;"]
        group = [f"{register}{number + i}" for i in range(count)]
        number += count
        names.append("{" + ", ".join(group) + "}")
        lines += [f"ld.global.{kind} {r}, [%d2+{i * size}];" for i, r in enumerate(group)]
    lines.append(
        f"mma.sync.aligned.m{m}n8k{k}.row.col.{result}.{element}.{element}.{result} {names[2]},"
        f" {names[0]}, {names[1]}, {names[2]};"
    )
    lines += [f"mul.wide.u32 %d1, %t, {c_count * size};", "add.s64 %d2, %a3, %d1;"]
    first = a_count + b_count
    lines += [f"st.global.{kind} [%d2+{i * size}], {register}{first + i};" for i in range(c_count)]
    return kernel_text("\t" + "\n\t".join(lines), 4)


@pytest.mark.parametrize(("m", "k", "element", "result"), SHAPES)
def test_mma(m, k, element, result):
    """The fragments are written down here as the ISA's figures list them, element by element."""
    generator = np.random.default_rng(k)
    dtype = DTYPES[element]
    if element == "s8":
        a, b = (generator.integers(-128, 128, s).astype(dtype) for s in ((m, k), (k, 8)))
        c = generator.integers(-1000, 1000, (m, 8)).astype(np.int32)
    else:
        a, b = (generator.standard_normal(s).astype(dtype) for s in ((m, k), (k, 8)))
        kind = {"f16": np.float16, "f32": np.float32, "f64": np.float64}[result]
        c = generator.standard_normal((m, 8)).astype(kind)
    lane = np.arange(32)
    group, thread = lane >> 2, lane % 4
    packed = max(1, 4 // dtype.itemsize)  # elements side by side in one register
    a_columns, b_columns = [], []
    for i in range(m * k // 32):
        # a_i: row is g for the first `packed` elements of each two runs, else g + 8.
        row = group + (8 if (i // packed) % 2 else 0)
        column = thread * packed + i % packed + (4 * packed if i // packed >= 2 else 0)
        a_columns.append(a[row, column])
    for i in range(8 * k // 32):
        row = thread * packed + i % packed + 4 * packed * (i // packed)
        b_columns.append(b[row, group])
    c_rows = [(group + 8 * (i // 2), thread * 2 + i % 2) for i in range(m * 8 // 32)]
    memory = DeviceMemory()
    sources = [
        memory.upload(np.stack(columns, 1))
        for columns in (a_columns, b_columns, [c[at] for at in c_rows])
    ]
    out = memory.allocate(c.nbytes)
    Module(mma_text(m, k, element, result), memory).launch("kernel", 1, 32, [*sources, out])
    got = memory.read_array(out, c.dtype, (32, len(c_rows)))
    expected = np.empty_like(got)
    exact = a.astype(np.float64) @ b.astype(np.float64) + c
    for i, at in enumerate(c_rows):
        expected[:, i] = exact[at]
    tolerance = {"f16": 2e-3, "tf32": 1e-2}.get("tf32" if element == "tf32" else result, 1e-6)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


TILE = """
	// 256 threads of 16 bytes: a 64x32 tile of f16, copied without waiting.
	mov.u32 %r1, tile;
	shl.b32 %r2, %t, 4;
	add.s32 %r3, %r1, %r2;
	mul.wide.u32 %d1, %t, 16;
	add.s64 %d2, %a0, %d1;
	cp.async.cg.shared.global [%r3], [%d2], 16;
	cp.async.commit_group;
	WAIT
	bar.sync 0;
	// Row i of matrix j: rows of 64 bytes, lane 8 j + i; the warp's 8 rows.
	and.b32 %r4, %t, 31;
	shr.u32 %r5, %t, 5;
	and.b32 %r6, %r4, 7;
	shr.u32 %r7, %r4, 3;
	mad.lo.s32 %r8, %r5, 8, %r6;
	shl.b32 %r9, %r8, 6;
	mad.lo.s32 %r10, %r7, 16, %r9;
	add.s32 %r11, %r1, %r10;
	ldmatrix.sync.aligned.m8n8.x4TRANS.shared.b16 {%f0, %f1, %f2, %f3}, [%r11];
	add.s64 %d3, %a1, %d1;
	st.global.v4.b32 [%d3], {%f0, %f1, %f2, %f3};
"""


def tile_text(wait: str, transposed: bool) -> str:
    body = TILE.replace("WAIT", wait).replace("TRANS", ".trans" if transposed else "")
    return kernel_text(body, 2, shared=4096)


@pytest.mark.parametrize("transposed", [False, True])
def test_copy_and_ldmatrix(transposed):
    x = np.arange(64 * 32, dtype=np.uint16).reshape(64, 32)
    memory = DeviceMemory()
    module = Module(tile_text("cp.async.wait_group 0;", transposed), memory)
    source, out = memory.upload(x), memory.allocate(4096)
    module.launch("kernel", 1, 256, [source, out])
    got = memory.read_array(out, np.uint16, (8, 32, 4, 2))
    lane = np.arange(32)
    for warp in range(8):
        for matrix in range(4):
            part = x[8 * warp : 8 * warp + 8, 8 * matrix : 8 * matrix + 8]
            part = part.T if transposed else part
            for element in range(2):
                expected = part[lane // 4, 2 * (lane % 4) + element]
                np.testing.assert_array_equal(got[warp, :, matrix, element], expected)


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;"])
def test_copy_without_waiting_is_found(wait):
    memory = DeviceMemory()
    module = Module(tile_text(wait, False), memory)
    source, out = memory.upload(np.zeros(4096, np.uint8)), memory.allocate(4096)
    with pytest.raises(KernelFault, match="nobody wrote"):
        module.launch("kernel", 1, 256, [source, out])


def test_copy_fills_with_zeros():
    body = """
	mov.u32 %r1, tile;
	shl.b32 %r2, %t, 4;
	add.s32 %r3, %r1, %r2;
	mul.wide.u32 %d1, %t, 16;
	add.s64 %d2, %a0, %d1;
	setp.lt.u32 %p1, %t, 2;
	selp.b32 %r4, 16, 6, %p1;
	cp.async.cg.shared.global [%r3], [%d2], 16, %r4;
	cp.async.wait_all;
	ld.shared.v2.b64 {%d5, %d6}, [%r3];
	add.s64 %d3, %a1, %d1;
	st.global.v2.b64 [%d3], {%d5, %d6};
"""
    text = kernel_text(body, 2, shared=512)
    assemble(text, "sm_80")
    memory = DeviceMemory()
    x = np.arange(1, 65, dtype=np.uint8)
    source, out = memory.upload(x), memory.allocate(64)
    Module(text, memory).launch("kernel", 1, 4, [source, out])
    expected = x.reshape(4, 16).copy()
    expected[2:, 6:] = 0
    np.testing.assert_array_equal(memory.read_array(out, np.uint8, (4, 16)), expected)


def test_stmatrix_and_movmatrix_undo_ldmatrix():
    body = """
	mov.u32 %r1, tile;
	shl.b32 %r2, %t, 2;
	add.s32 %r3, %r1, %r2;
	mul.wide.u32 %d1, %t, 4;
	add.s64 %d2, %a0, %d1;
	ld.global.b32 %r5, [%d2];
	st.shared.b32 [%r3], %r5;
	bar.warp.sync -1;
	and.b32 %r6, %t, 7;
	mad.lo.u32 %r7, %r6, 16, %r1;
	ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r8}, [%r7];
	movmatrix.sync.aligned.m8n8.trans.b16 %r9, %r8;
	bar.warp.sync -1;
	stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r7], {%r9};
	bar.warp.sync -1;
	ld.shared.b32 %r10, [%r3];
	add.s64 %d3, %a1, %d1;
	st.global.b32 [%d3], %r10;
"""
    text = kernel_text(body, 2, "sm_90a", shared=128)
    assemble(text, "sm_90a")
    memory = DeviceMemory()
    x = np.arange(64, dtype=np.uint16)
    source, out = memory.upload(x), memory.allocate(128)
    Module(text, memory).launch("kernel", 1, 32, [source, out])
    np.testing.assert_array_equal(memory.read_array(out, np.uint16, (64,)), x)


def test_ptxas_takes_every_text():
    for shape in SHAPES:
        assemble(mma_text(*shape), "sm_80")
    for transposed in (False, True):
        assemble(tile_text("cp.async.wait_group 0;", transposed), "sm_80")
