"""What a kernel must not do, and that the error says where it was done."""

# ruff: noqa: E501 - PTX and LLVM text, one instruction a line

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import (
    DeviceMemory,
    KernelFault,
    LaunchError,
    Module,
    PtxSyntaxError,
    UnknownInstruction,
)
from tests.ptx.support import kernel_text

ADDRESS = "\tmul.wide.u32 %d1, %t, 4;\n\tadd.s64 %d2, %a0, %d1;\n\tadd.s64 %d3, %a1, %d1;\n"
SHARED = "\tmov.u32 %r1, tile;\n\tshl.b32 %r2, %t, 2;\n\tadd.s32 %r3, %r1, %r2;\n"


def run(
    body: str, threads: int = 64, shared: int = 0, values: int = 64, grid: int = 1
) -> np.ndarray:
    memory = DeviceMemory()
    x, y = memory.upload(np.arange(values, dtype=np.int32)), memory.allocate(4 * values)
    Module(kernel_text(body, 2, shared=shared), memory).launch("kernel", grid, threads, [x, y])
    return memory.read_array(y, np.int32, (values,))


FAULTS = {
    "outside": (ADDRESS + "\tld.global.b32 %r5, [%d2+8];", r"thread \(62, 0, 0\).* outside of any global"),
    "misaligned": (ADDRESS + "\tld.global.b64 %d5, [%d2];", r"thread \(1, 0, 0\).*multiple of 8"),
    "null": ("\tmov.b64 %d1, 0;\n\tst.global.b32 [%d1], 1;", r"thread \(0, 0, 0\).*outside of .global"),
    "unwritten": (ADDRESS + "\tld.global.b32 %r5, [%d3];", "memory nobody wrote"),
    "shared outside": (SHARED + "\tst.shared.b32 [%r3+4], %t;", r"thread \(63, 0, 0\).*256 bytes of .shared"),
    "shared unwritten": (SHARED + "\tld.shared.b32 %r5, [%r3];", "shared memory nobody wrote"),
    "two values": (SHARED + "\tst.shared.b32 [%r1], %t;", "different values by two threads"),
    "race": (SHARED + "\tst.shared.b32 [%r3], %t;\n\txor.b32 %r4, %r3, 128;\n\tld.shared.b32 %r5, [%r4];",
             "race on shared memory: this read follows a write by thread 32"),
    "race in a warp": (SHARED + "\tst.shared.b32 [%r3], %t;\n\txor.b32 %r4, %r3, 4;\n"
                       "\tld.shared.b32 %r5, [%r4];", "race on shared memory"),
    "write after read": (SHARED + "\tst.shared.b32 [%r3], %t;\n\tbar.sync 0;\n\tld.shared.b32 %r5, [tile];\n"
                         "\tst.shared.b32 [%r3], %t;", "this write follows a read"),
    "division": ("\tdiv.u32 %r1, 7, %t;", r"thread \(0, 0, 0\): integer division by zero"),
    "trap": ("\ttrap;", "a trap"),
    "shuffle from nobody": ("\tsetp.gt.u32 %p1, %t, 7;\n\t@%p1 exit;\n"
                            "\tshfl.sync.bfly.b32 %r1, %t, 16, 31, 255;", "lane 16, which does not take part"),
    "deadlock": ("\tsetp.gt.u32 %p1, %t, 31;\n\t@%p1 bar.sync 1, 64;", "deadlock: 32 threads at"),
    "half a matrix": ("\tsetp.gt.u32 %p1, %t, 40;\n\t@%p1 exit;\n"
                      "\tmovmatrix.sync.aligned.m8n8.trans.b16 %r1, %t;", "some have exited"),
    "constant": ("\tst.global.b32 [table], 1;\n\tld.global.b32 %r1, [tables];", "not declared"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name):
    body, message = FAULTS[name]
    expected = UnknownInstruction if name == "constant" else KernelFault
    with pytest.raises(expected, match=message) as caught:
        run(body, shared=256 if "tile" in body else 0)
    assert "kernel" in str(caught.value)


def test_barriers_make_it_no_race():
    body = (
        SHARED
        + ADDRESS
        + """
	st.shared.b32 [%r3], %t;
	bar.sync 0;
	xor.b32 %r4, %r3, 128;
	ld.shared.b32 %r5, [%r4];
	bar.sync 0;
	st.shared.b32 [%r3], %r5;
	bar.warp.sync -1;
	xor.b32 %r6, %r3, 4;
	ld.shared.b32 %r7, [%r6];
	st.global.b32 [%d3], %r7;
"""
    )
    np.testing.assert_array_equal(run(body, shared=256), np.arange(64) ^ 33)


def test_spinning_threads_starve_nobody():
    """Thread 0 waits, in a loop that lies first, for a flag that a later thread sets."""
    body = """
	mov.u32 %r1, tile;
	setp.ne.u32 %p1, %t, 0;
	st.global.b32 [%a1], 0;
	@%p1 bra $other;
$spin:
	ld.volatile.global.b32 %r2, [%a1];
	setp.eq.s32 %p2, %r2, 0;
	@%p2 bra $spin;
	ret;
$other:
	st.global.b32 [%a1], 5;
"""
    assert run(body, threads=2, shared=16)[0] == 5


BAD_TEXTS = {
    "frobnicate.b32 %r1, %r2;": "is not known",
    "add.sat.u64.weird %d1, %d2, %d3;": "weird",
    "add.s32 %r1, %r2, %q7;": "not known",
    "mma.sync.aligned.m16n8k99.row.col.f32.f16.f16.f32 {%r1}, {%r2}, {%r3}, {%r1};": "not known",
    "ld.global.v2.b32 {%r1, %r2, %r3}, [%a0];": "registers for 2 elements",
    "bra $nowhere;": "nowhere",
    "cvt.s32.f32 %r1, %f1;": "needs .rni",
    "add.s64 %d1, %r1, %d2;": "is read as",
}


@pytest.mark.parametrize("line", BAD_TEXTS)
def test_unknown_instructions(line):
    with pytest.raises(UnknownInstruction, match=BAD_TEXTS[line]):
        Module(kernel_text("\t" + line))


def test_syntax_errors_name_the_line():
    with pytest.raises(PtxSyntaxError, match="line 2"):
        Module(".version 9.0\n?")
    with pytest.raises(PtxSyntaxError, match="ends inside"):
        Module(".version 9.0 .visible .entry k() { add.s32 %r1")


def test_launch_errors():
    memory = DeviceMemory()
    module = Module(kernel_text("", 1), memory)
    with pytest.raises(LaunchError, match="no kernel 'other'"):
        module.launch("other", 1, 1, [])
    with pytest.raises(LaunchError, match="2 arguments for 1"):
        module.launch("kernel", 1, 1, [1, 2])
    with pytest.raises(LaunchError, match="at most 1024"):
        module.launch("kernel", 1, 1025, [1])
    with pytest.raises(LaunchError, match="shared memory"):
        module.launch("kernel", 1, 1, [1], shared_bytes=1 << 20)
    with pytest.raises(LaunchError, match="str 'x' for a .u64"):
        module.launch("kernel", 1, 1, ["x"])


def test_memory_errors():
    memory = DeviceMemory(limit=1024)
    address = memory.allocate(1000)
    with pytest.raises(MemoryError):
        memory.allocate(100)
    memory.free(address)
    with pytest.raises(Exception, match="no allocation begins"):
        memory.free(address)
    with pytest.raises(Exception, match="leaves its allocation"):
        memory.read(memory.allocate(8), 9)


@pytest.mark.parametrize("bytes_used, fine", [("0xfff", True), ("0xffff", False), ("", False)])
def test_bytes_that_a_load_does_not_use(bytes_used, fine):
    """LLVM rounds loads of three elements up to four, and says which bytes count."""
    memory = DeviceMemory()
    x, y = memory.allocate(16), memory.allocate(4)
    memory.write(x, np.arange(3, dtype=np.int32))
    pragma = f'\t.pragma "used_bytes_mask {bytes_used}";\n' if bytes_used else ""
    body = pragma + (
        "\tld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a0];\n\tadd.s32 %r1, %r1, %r3;\n"
        "\tst.global.b32 [%a1], %r1;\n"
    )
    module = Module(kernel_text(body, 2), memory)
    if fine:
        module.launch("kernel", 1, 1, [x, y])
        assert memory.read_array(y, np.int32, (1,)) == 2
    else:
        with pytest.raises(KernelFault, match="memory nobody wrote"):
            module.launch("kernel", 1, 1, [x, y])
