"""Instructions of Hopper: barriers in shared memory, copies of tiles by tensor maps (TMA), products
of a warpgroup (`wgmma`), and the layout of tiles that these two share.

A tile lies in shared memory as boxes of rows of 128 bytes, with the swizzle of that width: the
16-byte pieces of a row are permuted by the row's number, by the copy as by the product, so nobody
else needs to know.  What runs along a row is k, or the free axis; the product takes either (PTX
ISA, 9.7.15.5.1: canonical layouts).
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.ptx.builder import KernelFunction

GROUP = 128
"""Threads of a warpgroup."""
ROW_BYTES = 128
BOX = 64
"""16-bit elements of such a row."""
EIGHT_ROWS = 8 * ROW_BYTES
"""Bytes after which the swizzle repeats; boxes begin at multiples."""
SWIZZLE_128 = 1 << 62
STEP = 16
"""Depth of one product."""


def _asm(
    f: KernelFunction, result: str, text: str, constraints: str, *arguments: Value
) -> Value:
    listed = ", ".join(str(argument) for argument in arguments)
    if constraints:
        constraints += ","
    call = f'asm sideeffect "{text}", "{constraints}~{{memory}}"({listed})'
    if result == "void":
        f.emit_void(f"call void {call}")
        return Value("void", "")
    return f.emit(result, f"call {result} {call}")


def shared_word(f: KernelFunction, address: Value) -> Value:
    """An address in shared memory as the 32 bits that instructions take."""
    return f.convert("ptrtoint", address, "i32")


# ---- barriers


def start_barrier(f: KernelFunction, barrier: Value, arrivals: int) -> None:
    """barrier: its address as a word, here and below."""
    count = const("i32", arrivals)
    _asm(f, "void", "mbarrier.init.shared::cta.b64 [$0], $1;", "r,r", barrier, count)


def show_barriers(f: KernelFunction) -> None:
    """Barriers just started become visible to copies."""
    _asm(f, "void", "fence.mbarrier_init.release.cluster;", "")


def arrive(f: KernelFunction, barrier: Value) -> None:
    _asm(f, "void", "mbarrier.arrive.shared::cta.b64 _, [$0];", "r", barrier)


def arrive_expecting(f: KernelFunction, barrier: Value, nbytes: int) -> None:
    """An arrival that counts only when so many bytes have been copied."""
    text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"
    _asm(f, "void", text, "r,r", barrier, const("i32", nbytes))


def wait(f: KernelFunction, barrier: Value, parity: Value) -> None:
    """Until the phase of this parity is complete."""
    again, after = f.fresh("wait"), f.fresh("waited")
    f.branch(again)
    f.start_block(again)
    text = (
        "{\\0A\\09.reg .pred done;\\0A\\09"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [$1], $2;\\0A\\09"
        "selp.b32 $0, 1, 0, done;\\0A\\09}"
    )
    done = _asm(f, "i32", text, "=r,r,r", barrier, parity)
    f.branch_if(f.icmp("ne", done, 0), after, again)
    f.start_block(after)


def show_to_products(f: KernelFunction) -> None:
    """What this thread has stored in shared memory may be read by products, once a barrier says
    so.
    """
    _asm(f, "void", "fence.proxy.async.shared::cta;", "")


# ---- registers


def take_registers(f: KernelFunction, count: int, more: bool) -> None:
    """All threads of a warpgroup give up registers, or wait for more."""
    which = "inc" if more else "dec"
    f.intrinsic(
        f"llvm.nvvm.setmaxnreg.{which}.sync.aligned.u32", "void", const("i32", count)
    )


# ---- copies


def copy_box(
    f: KernelFunction, target: Value, tensor: Value, place: Sequence[Value], barrier: Value
) -> None:
    """A box of the tensor at `place` (i32 each, the innermost first) into shared memory; the
    barrier gets its bytes.  What lies outside of the tensor is zeros, and counts.
    """
    coordinates = ", ".join(f"${2 + number}" for number in range(len(place)))
    text = (
        f"cp.async.bulk.tensor.{len(place)}d.shared::cluster.global.tile"
        f".mbarrier::complete_tx::bytes [$0], [$1, {{{coordinates}}}], [${2 + len(place)}];"
    )
    _asm(f, "void", text, "r,l" + ",r" * (len(place) + 1), target, tensor, *place, barrier)


# ---- products


def descriptor(f: KernelFunction, address: Value, leading: int) -> Value:
    """Of a tile at an address (a word): `leading` bytes from one box to the next where rows run
    along the free axis.
    """
    place = f.wide(f.lshr(f.and_(address, 0x3FFFF), 4))
    layout = SWIZZLE_128 | (EIGHT_ROWS >> 4) << 32 | (leading >> 4) << 16
    return f.or_(place, layout)


def product_fence(f: KernelFunction) -> None:
    """Registers and shared memory written before may be read by the products that follow."""
    f.intrinsic("llvm.nvvm.wgmma.fence.sync.aligned", "void")


def commit_products(f: KernelFunction) -> None:
    f.intrinsic("llvm.nvvm.wgmma.commit_group.sync.aligned", "void")


def wait_products(f: KernelFunction, pending: int) -> None:
    """Until at most so many groups are under way."""
    f.intrinsic("llvm.nvvm.wgmma.wait_group.sync.aligned", "void", const("i64", pending))


def multiply_group(
    f: KernelFunction, dtype: DType, columns: int, sums: Sequence[Value], left: Value,
    right: Value, left_across: bool, right_across: bool,
) -> list[Value]:  # fmt: skip
    """sums + a b of 64 x 16 and 16 x `columns` elements by a warpgroup, asked for only: the sums
    may be read after `wait_products`.  left, right: descriptors; across: rows run along the free
    axis.
    """
    count = columns // 2
    kind = "bf16" if dtype is dtypes.bfloat16 else "f16"
    held = ", ".join(f"${number}" for number in range(count))
    text = (
        f"wgmma.mma_async.sync.aligned.m64n{columns}k{STEP}.f32.{kind}.{kind} {{{held}}}, "
        f"${2 * count}, ${2 * count + 1}, 1, 1, 1, {int(left_across)}, {int(right_across)};"
    )
    outputs = ",".join(["=f"] * count)
    inputs = ",".join(str(number) for number in range(count))
    type_ = "{ " + ", ".join(["float"] * count) + " }"
    whole = _asm(f, type_, text, f"{outputs},{inputs},l,l", *sums, left, right)
    return [f.emit("float", f"extractvalue {whole}, {number}") for number in range(count)]


