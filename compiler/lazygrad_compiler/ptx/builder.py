"""The builder of GPU kernels: `llvm/builder.py` with address spaces, threads and shared memory.

Pointers into global memory are `ptr addrspace(1)`, into shared memory `ptr addrspace(3)`.  Thread
numbers and addresses in shared memory are i32, addresses and numbers of elements i64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

from lazygrad_compiler.cuda_target import TRIPLE
from lazygrad_compiler.llvm.builder import (
    Function,
    Module,
    Operand,
    Value,
    const,
    element_of,
    lanes_of,
    with_element,
)

GLOBAL = "ptr addrspace(1)"
SHARED = "ptr addrspace(3)"
TENSOR_MAP = 'ptr byval([128 x i8]) align 128 "nvvm.grid_constant"'
"""Of a parameter that stays where the launch has put it."""
WARP = 32
STATIC_SHARED_BYTES = 48 * 1024
"""Shared memory that a kernel may have without asking; what goes beyond is given at the launch."""
EVERY_LANE = const("i32", -1)


class KernelModule(Module):
    """A module of one kernel.  Its functions are `KernelFunction`s."""

    def __init__(self, annotated: bool = False) -> None:
        super().__init__(triple=TRIPLE, annotated=annotated)
        self.shared_bytes = 0
        self.dynamic_shared = False

    def function(
        self,
        name: str,
        result: str,
        parameters: Sequence[tuple[str, str]],
        attributes: str = "nounwind",
        linkage: str = "",
    ) -> Function:
        function = KernelFunction(self, name, result, parameters, attributes, linkage)
        self.functions.append(function)
        return function

    def kernel(
        self, name: str, buffers: int, threads: int, blocks_each: int = 1, maps: int = 0
    ) -> KernelFunction:
        """Starts the function that is launched: addresses of buffers and error block, number of the
        launch, tensor maps.  threads: of a block.  blocks_each: how many a multiprocessor should
        hold at least, which bounds the registers; ptxas takes fewer than it needs where nothing is
        said.
        """
        parameters = [(GLOBAL, f"b{number}") for number in range(buffers)]
        parameters += [(GLOBAL, "error"), ("i64", "launch")]
        by_value = [(TENSOR_MAP, f"map{number}") for number in range(maps)]
        attributes = f'nounwind "nvvm.reqntid"="{threads},1,1" "nvvm.minctasm"="{blocks_each}"'
        function = KernelFunction(
            self, name, "void", parameters + by_value, attributes, "ptx_kernel"
        )
        function.parameters = [
            Value(type_, f"%{label}") for type_, label in parameters
        ]
        function.maps = [Value("ptr", f"%{label}") for _, label in by_value]
        self.functions.append(function)
        return function

    def shared(self, bytes_: int, align: int = 16) -> int:
        """Reserves shared memory; gives its offset."""
        start = -(-self.shared_bytes // align) * align
        self.shared_bytes = start + bytes_
        return start

    @property
    def dynamic_bytes(self) -> int:
        """Shared memory to ask for at the launch."""
        return self.shared_bytes if self.shared_bytes > STATIC_SHARED_BYTES else 0

    def text(self) -> str:
        if self.shared_bytes:
            size = 0 if self.dynamic_bytes else self.shared_bytes
            linkage = "external" if self.dynamic_bytes else "internal"
            start = "" if self.dynamic_bytes else " undef"
            self._globals["tile"] = (
                f"@tile = {linkage} addrspace(3) global [{size} x i8]{start}, align 1024"
            )
        return super().text()


def _within_64(f: Function, count: Operand) -> Operand:
    """A count of 64 bits by its low six.  Where a count beyond the width gives 0, LLVM writes the
    machine's shift, which does so by itself, but gives it the low 32 bits of the count.
    """
    if isinstance(count, Value) and element_of(count.type) == "i64":
        return f.and_(count, 63)
    return count


class KernelFunction(Function):
    """Adds threads, shared memory and shuffles.  Masked vectors become one access a lane."""

    module: KernelModule
    maps: Sequence[Value] = ()
    """Addresses of the tensor maps among the parameters."""

    def intrinsic(self, name: str, result: str, *arguments: Value) -> Value:
        """Reductions of the lanes of a vector, which NVPTX lacks, are written out."""
        if not name.startswith("llvm.vector.reduce."):
            return super().intrinsic(name, result, *arguments)
        operation = name.split(".")[3]
        total, *rest = self.unpack(arguments[0])
        for lane in rest:
            if operation == "or":
                total = self.or_(total, lane)
            else:
                assert operation == "smax", name
                total = self.select(self.icmp("sgt", total, lane), total, lane)
        return total

    # ---- shifts

    def shl(self, a: Operand, b: Operand) -> Value:
        return super().shl(a, _within_64(self, b))

    def lshr(self, a: Operand, b: Operand) -> Value:
        return super().lshr(a, _within_64(self, b))

    # ---- threads

    def _register(self, name: str) -> Value:
        return self.intrinsic(f"llvm.nvvm.read.ptx.sreg.{name}", "i32")

    def thread(self) -> Value:
        """Number of the thread in its block."""
        return self._register("tid.x")

    def block(self, axis: str = "x") -> Value:
        return self._register(f"ctaid.{axis}")

    def blocks(self, axis: str = "x") -> Value:
        return self._register(f"nctaid.{axis}")

    def barrier(self) -> None:
        """All threads of the block wait for each other."""
        self.intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", "void", const("i32", 0))

    def warp_barrier(self) -> None:
        self.intrinsic("llvm.nvvm.bar.warp.sync", "void", EVERY_LANE)

    def wide(self, value: Value) -> Value:
        """An i32 that is not negative, as i64."""
        return self.convert("zext", value, with_element(value.type, "i64"))

    # ---- shuffles

    def _through_words(self, value: Value, move) -> Value:
        """A value of any register type, moved as words of 32 bits."""
        type_ = value.type
        if type_ in ("i64", "double"):
            whole = self.bitcast(value, "i64")
            low = move(self.convert("trunc", whole, "i32"))
            high = move(self.convert("trunc", self.lshr(whole, 32), "i32"))
            joined = self.or_(self.wide(low), self.shl(self.wide(high), 32))
            return self.bitcast(joined, type_)
        if type_ in ("i32", "float"):
            return self.bitcast(move(self.bitcast(value, "i32")), type_)
        narrow = "i16" if type_ == "half" else type_
        word = self.convert("zext", self.bitcast(value, narrow), "i32")
        return self.bitcast(self.convert("trunc", move(word), narrow), type_)

    def shuffle_xor(self, value: Value, mask: int) -> Value:
        """The value of the lane whose number differs in these bits.  All 32 lanes take part."""
        return self._through_words(value, lambda word: self._shuffle("bfly", word, mask, 31))

    def shuffle_up(self, value: Value, distance: int) -> Value:
        """The value of the lane so many places below; one's own where there is none."""
        return self._through_words(value, lambda word: self._shuffle("up", word, distance, 0))

    def shuffle_from(self, value: Value, lane: Operand) -> Value:
        """The value of a lane by its number."""
        return self._through_words(value, lambda word: self._shuffle("idx", word, lane, 31))

    def _shuffle(self, mode: str, word: Value, lane: Operand, clamp: int) -> Value:
        lane = lane if isinstance(lane, Value) else const("i32", lane)
        name = f"llvm.nvvm.shfl.sync.{mode}.i32"
        return self.intrinsic(name, "i32", EVERY_LANE, word, lane, const("i32", clamp))

    def ballot(self, condition: Value) -> Value:
        """One bit for each lane of the warp."""
        return self.intrinsic("llvm.nvvm.vote.ballot.sync", "i32", EVERY_LANE, condition)

    # ---- memory

    def shared_address(self, offset: int) -> Value:
        """Of a place that `KernelModule.shared` has given."""
        base = Value(SHARED, "@tile")
        if not offset:
            return base
        return self.emit(SHARED, f"getelementptr i8, {base}, i32 {offset}", "p")

    def offset(self, pointer: Value, index: Operand, element: str) -> Value:
        if not isinstance(index, Value):
            index = const("i32" if pointer.type == SHARED else "i64", index)
        if lanes_of(index.type) > 1:
            return super().offset(pointer, index, element)
        return self.emit(pointer.type, f"getelementptr {element}, {pointer}, {index}", "p")

    def gather(
        self, type_: str, pointers: Value, align: int, mask: Value, otherwise: Value
    ) -> Value:
        """One load a lane; the mask must have every lane on."""
        element = element_of(type_)
        return self.pack([self.load(element, each, align) for each in self.unpack(pointers)])

    def atomic(self, operation: str, pointer: Value, value: Value) -> Value:
        """operation: LLVM's name (add, xchg, umax, …); gives what was there."""
        return self.emit(value.type, f"atomicrmw {operation} {pointer}, {value} monotonic")

    # ---- control flow

    @contextmanager
    def grid_stride(self, begin: Value, end: Operand, step: Operand, hint: str = "loop"):
        """`for index in range(begin, end, step)` with a step that may be known at run time only."""
        end = end if isinstance(end, Value) else const(begin.type, end)
        step = step if isinstance(step, Value) else const(begin.type, step)
        head, body, after = (self.fresh(f"{hint}.{part}") for part in ("head", "body", "end"))
        before = self.label
        self.branch(head)
        self.start_block(head)
        index = Value(begin.type, "%" + self.fresh("i"))
        head_lines = self._current
        self.branch_if(self.icmp("slt", index, end), body, after)
        self.start_block(body)
        yield index
        following = self.emit(begin.type, f"add nsw {index}, {step.name}", "i")
        head_lines.insert(
            0,
            f"  {index.name} = phi {begin.type} [ {begin.name}, %{before} ], "
            f"[ {following.name}, %{self.label} ]",
        )
        self.branch(head)
        self.start_block(after)

    def pack(self, values: Sequence[Value]) -> Value:
        """Scalars as the lanes of one vector."""
        if len(values) == 1:
            return values[0]
        type_ = f"<{len(values)} x {values[0].type}>"
        result = Value(type_, "poison")
        for lane, value in enumerate(values):
            result = self.insert(result, value, lane)
        return result

    def unpack(self, value: Value) -> list[Value]:
        return [self.extract(value, lane) for lane in range(lanes_of(value.type))]

    def any_lane(self, mask: Value) -> Value:
        """Whether a lane of a vector of i1 is on."""
        return self.intrinsic(f"llvm.vector.reduce.or.v{lanes_of(mask.type)}i1", "i1", mask)


def element_bytes(type_: str) -> int:
    """Bytes of one element of a type as memory holds it."""
    sizes = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "i1": 1}
    element = element_of(type_)
    return sizes[element] if element in sizes else int(element[1:]) // 8
