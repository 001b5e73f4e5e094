"""A thin typed builder of LLVM text IR.

In: method calls, each naming one instruction.  Out: the text of a module that LLVM parses. The one
idea: every method checks the types that meet, so that a mistake in our code generators is a Python
error at the line that made it, never an LLVM parse error later.

Methods work on scalars and vectors alike. Constants are Values too; a Python number is turned into
a constant of the other operand's type. What instructions take and give is in `values.py`, and can
be had from here with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager

from lazygrad_compiler.llvm.values import (
    BuilderError,
    Operand,
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

__all__ = [
    "ORIGIN", "BuilderError", "Function", "Loop", "Module", "Operand", "Value", "bits_of", "const",
    "const_lanes", "element_of", "format_scalar", "is_float", "lanes_of", "mangle", "vector_of",
    "with_element",
]  # fmt: skip

ORIGIN = "from "
"""How the comments of an annotated module begin; see `Function.origin`."""


class Function:
    """Builds one function: instructions go to the current block, in order."""

    def __init__(
        self,
        module: Module,
        name: str,
        result: str,
        parameters: Sequence[tuple[str, str]],
        attributes: str = "",
        linkage: str = "",
    ) -> None:
        self.module = module
        self.name = name
        self.result = result
        self.parameters = [
            Value(type_.split()[0] if not type_.startswith("<") else type_, f"%{label}")
            for type_, label in parameters
        ]
        self._declared = list(parameters)
        self._attributes = attributes
        self._linkage = linkage
        self._counter = 0
        self._blocks: list[tuple[str, list[str]]] = [("entry", [])]
        self._current = self._blocks[0][1]
        self._current_label = "entry"

    # ---- names, blocks, text

    def fresh(self, hint: str = "v") -> str:
        self._counter += 1
        return f"{hint}{self._counter}"

    def emit(self, type_: str, text: str, hint: str = "v") -> Value:
        """Appends `%new = text` and gives the new value of the given type."""
        value = Value(type_, "%" + self.fresh(hint))
        self._current.append(f"  {value.name} = {text}")
        return value

    def emit_void(self, text: str) -> None:
        self._current.append("  " + text)

    def comment(self, text: str) -> None:
        self._current.append("  ; " + text)

    def origin(self, what: str) -> None:
        """Notes in an annotated module which line of the loop IR the next instructions are for:
        "%3", "b2" (a store), or "" for none.
        """
        if self.module.annotated:
            self.comment(ORIGIN + what)

    def new_block(self, hint: str) -> str:
        """Reserves a label; `start_block` puts it into the function."""
        return self.fresh(hint)

    def start_block(self, label: str) -> None:
        body: list[str] = []
        self._blocks.append((label, body))
        self._current, self._current_label = body, label

    @property
    def label(self) -> str:
        """The label of the block that instructions go to now."""
        return self._current_label

    def text(self) -> str:
        """The whole function as LLVM text."""
        parameters = ", ".join(f"{type_} %{label}" for type_, label in self._declared)
        linkage = self._linkage + " " if self._linkage else ""
        lines = [f"define {linkage}{self.result} @{self.name}({parameters}) {self._attributes} {{"]
        for label, body in self._blocks:
            lines.append(f"{label}:")
            lines.extend(body)
        lines.append("}")
        return "\n".join(lines)

    # ---- operands

    def _pair(self, what: str, left: Operand, right: Operand) -> tuple[Value, Value]:
        if not isinstance(left, Value):
            if not isinstance(right, Value):
                raise BuilderError(f"{what}: both operands are Python numbers ({left}, {right})")
            left = const(right.type, left)
        if not isinstance(right, Value):
            right = const(left.type, right)
        if left.type != right.type:
            raise BuilderError(f"{what}: {left} and {right} differ in type")
        return left, right

    def _binary(self, opcode: str, left: Operand, right: Operand) -> Value:
        left, right = self._pair(opcode, left, right)
        return self.emit(left.type, f"{opcode} {left.type} {left.name}, {right.name}")

    # ---- integer and floating arithmetic

    def add(self, a: Operand, b: Operand) -> Value:
        return self._binary("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Value:
        return self._binary("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Value:
        return self._binary("mul", a, b)

    def sdiv(self, a: Operand, b: Operand) -> Value:
        return self._binary("sdiv", a, b)

    def udiv(self, a: Operand, b: Operand) -> Value:
        return self._binary("udiv", a, b)

    def srem(self, a: Operand, b: Operand) -> Value:
        return self._binary("srem", a, b)

    def urem(self, a: Operand, b: Operand) -> Value:
        return self._binary("urem", a, b)

    def and_(self, a: Operand, b: Operand) -> Value:
        return self._binary("and", a, b)

    def or_(self, a: Operand, b: Operand) -> Value:
        return self._binary("or", a, b)

    def xor(self, a: Operand, b: Operand) -> Value:
        return self._binary("xor", a, b)

    def shl(self, a: Operand, b: Operand) -> Value:
        return self._binary("shl", a, b)

    def lshr(self, a: Operand, b: Operand) -> Value:
        return self._binary("lshr", a, b)

    def ashr(self, a: Operand, b: Operand) -> Value:
        return self._binary("ashr", a, b)

    def fadd(self, a: Operand, b: Operand) -> Value:
        return self._binary("fadd", a, b)

    def fsub(self, a: Operand, b: Operand) -> Value:
        return self._binary("fsub", a, b)

    def fmul(self, a: Operand, b: Operand) -> Value:
        return self._binary("fmul", a, b)

    def fdiv(self, a: Operand, b: Operand) -> Value:
        return self._binary("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        return self.emit(a.type, f"fneg {a.type} {a.name}")

    def icmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """predicate: eq ne slt sle sgt sge ult ule ugt uge; gives i1 lanes."""
        a, b = self._pair("icmp", a, b)
        return self.emit(
            with_element(a.type, "i1"), f"icmp {predicate} {a.type} {a.name}, {b.name}"
        )

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """predicate: oeq one olt ole ogt oge ueq une ult ule ugt uge ord uno; gives i1 lanes."""
        a, b = self._pair("fcmp", a, b)
        return self.emit(
            with_element(a.type, "i1"), f"fcmp {predicate} {a.type} {a.name}, {b.name}"
        )

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        a, b = self._pair("select", a, b)
        if element_of(condition.type) != "i1" or lanes_of(condition.type) not in (
            1,
            lanes_of(a.type),
        ):
            raise BuilderError(f"select: condition {condition} does not fit {a}")
        return self.emit(a.type, f"select {condition}, {a}, {b}")

    def not_(self, a: Value) -> Value:
        """Bitwise complement (of i1: logical not)."""
        return self._binary("xor", a, -1 if a.type != "i1" else True)

    # ---- conversions

    def convert(self, opcode: str, a: Value, type_: str) -> Value:
        """opcode: trunc zext sext fptrunc fpext fptosi fptoui sitofp uitofp bitcast inttoptr
        ptrtoint.
        """
        if a.type == type_:
            return a
        if opcode != "bitcast" and lanes_of(a.type) != lanes_of(type_):
            raise BuilderError(f"{opcode}: {a} has other lanes than {type_}")
        return self.emit(type_, f"{opcode} {a} to {type_}")

    def bitcast(self, a: Value, type_: str) -> Value:
        return self.convert("bitcast", a, type_)

    # ---- vectors

    def splat(self, a: Value, lanes: int) -> Value:
        """A vector whose lanes all hold the scalar."""
        if lanes == 1:
            return a
        if lanes_of(a.type) == lanes:
            return a
        type_ = vector_of(a.type, lanes)
        if not a.name.startswith("%"):
            return Value(type_, f"splat ({a.type} {a.name})")
        first = self.emit(type_, f"insertelement {type_} poison, {a}, i64 0")
        return self.emit(
            type_, f"shufflevector {first}, {type_} poison, <{lanes} x i32> zeroinitializer"
        )

    def extract(self, a: Value, lane: int) -> Value:
        if lanes_of(a.type) == 1:
            return a
        return self.emit(element_of(a.type), f"extractelement {a}, i64 {lane}")

    def insert(self, a: Value, scalar: Value, lane: int) -> Value:
        return self.emit(a.type, f"insertelement {a}, {scalar}, i64 {lane}")

    def shuffle(self, a: Value, b: Value | None, order: Sequence[int]) -> Value:
        """Lanes of the concatenation of a and b, in the given order (-1: any)."""
        second = f"{b}" if b is not None else f"{a.type} poison"
        mask = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in order)
        type_ = vector_of(element_of(a.type), len(order))
        return self.emit(type_, f"shufflevector {a}, {second}, <{len(order)} x i32> <{mask}>")

    # ---- calls

    def intrinsic(self, name: str, result: str, *arguments: Value) -> Value:
        """Calls an LLVM intrinsic by its full name and declares it in the module."""
        self.module.declare(name, result, [argument.type for argument in arguments])
        listed = ", ".join(str(argument) for argument in arguments)
        if result == "void":
            self.emit_void(f"call void @{name}({listed})")
            return Value("void", "")
        return self.emit(result, f"call {result} @{name}({listed})")

    def overloaded(self, name: str, *arguments: Value) -> Value:
        """Calls an intrinsic overloaded on its first argument's type: `overloaded("llvm.floor",
        x)`.
        """
        type_ = arguments[0].type
        return self.intrinsic(f"{name}.{mangle(type_)}", type_, *arguments)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c, rounded once."""
        known = next(x for x in (a, b, c) if isinstance(x, Value))
        operands = [x if isinstance(x, Value) else const(known.type, x) for x in (a, b, c)]
        if len({x.type for x in operands}) != 1:
            raise BuilderError(f"fma: {operands} differ in type")
        return self.overloaded("llvm.fma", *operands)

    def call(self, function: str, result: str, *arguments: Value) -> Value:
        """Calls a function of this module."""
        listed = ", ".join(str(argument) for argument in arguments)
        if result == "void":
            self.emit_void(f"call void @{function}({listed})")
            return Value("void", "")
        return self.emit(result, f"call {result} @{function}({listed})")

    # ---- memory

    def offset(self, pointer: Value, index: Operand, element: str) -> Value:
        """The address `index` elements of type `element` after the pointer (vectors of indices: of
        addresses).
        """
        if not isinstance(index, Value):
            index = const("i64", index)
        type_ = vector_of("ptr", max(lanes_of(pointer.type), lanes_of(index.type)))
        return self.emit(type_, f"getelementptr {element}, {pointer}, {index}", "p")

    def load(self, type_: str, pointer: Value, align: int) -> Value:
        return self.emit(type_, f"load {type_}, {pointer}, align {align}")

    def store(self, value: Value, pointer: Value, align: int) -> None:
        self.emit_void(f"store {value}, {pointer}, align {align}")

    def hidden(self, value: Value) -> Value:
        """The value, by way of memory, so that LLVM does not know it."""
        place = self.alloca(value.type, 1)
        self.emit_void(f"store {value}, {place}")
        return self.emit(value.type, f"load volatile {value.type}, {place}")

    def compare_and_swap(self, pointer: Value, expected: Value, wanted: Value) -> Value:
        """Puts `wanted` there if it holds `expected`; gives what it held."""
        pair = f"{{ {expected.type}, i1 }}"
        both = self.emit(
            pair, f"cmpxchg {pointer}, {expected}, {wanted} monotonic monotonic", "pair"
        )
        return self.emit(expected.type, f"extractvalue {pair} {both.name}, 0")

    def store_past_caches(self, value: Value, pointer: Value, align: int) -> None:
        """A streaming store: the line is written whole and not read first.  align: the value's
        size, else LLVM takes it apart.
        """
        self.module.metadata(0, "!{i32 1}")
        self.emit_void(f"store {value}, {pointer}, align {align}, !nontemporal !0")

    def store_past_caches_if_aligned(self, value: Value, pointer: Value, nbytes: int) -> None:
        """Such a store where the address is a multiple of what is written at a time, at most a
        line; else an ordinary one.
        """
        size = min(nbytes, 64)
        fits = self.icmp("eq", self.and_(self.convert("ptrtoint", pointer, "i64"), size - 1), 0)
        past, plain, after = (self.new_block(f"store.{way}") for way in ("past", "plain", "end"))
        self.branch_if(fits, past, plain)
        self.start_block(past)
        self.store_past_caches(value, pointer, size)
        self.branch(after)
        self.start_block(plain)
        self.store(value, pointer, nbytes // lanes_of(value.type))
        self.branch(after)
        self.start_block(after)

    def prefetch(self, pointer: Value, level: int = 1) -> None:
        """Asks for a line to be read into the first cache, or the second; any address will do."""
        self.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        self.emit_void(f"call void @llvm.prefetch.p0({pointer}, i32 0, i32 {4 - level}, i32 1)")

    def masked_load(
        self, type_: str, pointer: Value, align: int, mask: Value, otherwise: Value
    ) -> Value:
        name = f"llvm.masked.load.{mangle(type_)}.p0"
        self.module.declare(name, type_, ["ptr", "i32", mask.type, type_])
        return self.emit(
            type_, f"call {type_} @{name}({pointer}, i32 {align}, {mask}, {otherwise})"
        )

    def masked_store(self, value: Value, pointer: Value, align: int, mask: Value) -> None:
        """Writes the lanes where the mask holds.

        A constant mask with one lane on becomes a plain store: LLVM 22 turns the masked store of a
        truncated vector into a scalar one of the width before truncation, over its neighbours.
        """
        lane = only_lane(mask)
        if lane is not None:
            element = element_of(value.type)
            self.store(self.extract(value, lane), self.offset(pointer, lane, element), align)
            return
        name = f"llvm.masked.store.{mangle(value.type)}.p0"
        self.module.declare(name, "void", [value.type, "ptr", "i32", mask.type])
        self.emit_void(f"call void @{name}({value}, {pointer}, i32 {align}, {mask})")

    def gather(
        self, type_: str, pointers: Value, align: int, mask: Value, otherwise: Value
    ) -> Value:
        lanes = lanes_of(type_)
        name = f"llvm.masked.gather.{mangle(type_)}.v{lanes}p0"
        self.module.declare(name, type_, [pointers.type, "i32", mask.type, type_])
        return self.emit(
            type_, f"call {type_} @{name}({pointers}, i32 {align}, {mask}, {otherwise})"
        )

    def scatter(self, value: Value, pointers: Value, align: int, mask: Value) -> None:
        name = f"llvm.masked.scatter.{mangle(value.type)}.v{lanes_of(value.type)}p0"
        self.module.declare(name, "void", [value.type, pointers.type, "i32", mask.type])
        self.emit_void(f"call void @{name}({value}, {pointers}, i32 {align}, {mask})")

    def alloca(self, type_: str, count: int, align: int = 64) -> Value:
        """Stack memory; placed in the entry block, so that a loop does not grow the stack."""
        value = Value("ptr", "%" + self.fresh("stack"))
        self._blocks[0][1].insert(0, f"  {value.name} = alloca {type_}, i64 {count}, align {align}")
        return value

    # ---- control flow

    def branch(self, label: str) -> None:
        self.emit_void(f"br label %{label}")

    def branch_if(self, condition: Value, then: str, otherwise: str) -> None:
        self.emit_void(f"br {condition}, label %{then}, label %{otherwise}")

    def ret(self, value: Value | None = None) -> None:
        self.emit_void("ret void" if value is None else f"ret {value}")

    def phi(self, type_: str, incoming: Sequence[tuple[Value, str]]) -> Value:
        pairs = ", ".join(f"[ {value.name}, %{label} ]" for value, label in incoming)
        return self.emit(type_, f"phi {type_} {pairs}")

    @contextmanager
    def loop(
        self,
        begin: Operand,
        end: Operand,
        step: int = 1,
        carried: Sequence[Value] = (),
        hint: str = "loop",
        while_: Callable[[Value], Value] | None = None,
    ):
        """`for index in range(begin, end, step)`, zero trips allowed.  while_: a condition on the
        index that ends the loop, too; it is asked with `end` as well.

        Yields a `Loop`: `.index`, `.carried` (the values carried round, inside the body), and after
        the body set `.next` to their new values; after the with-block `.results` holds what came
        out.
        """
        begin = begin if isinstance(begin, Value) else const("i64", begin)
        end = end if isinstance(end, Value) else const(begin.type, end)
        head, body, after = (self.fresh(f"{hint}.{part}") for part in ("head", "body", "end"))
        before = self.label
        self.branch(head)
        self.start_block(head)
        index = Value(begin.type, "%" + self.fresh("i"))
        carried_in = [Value(value.type, "%" + self.fresh("c")) for value in carried]
        head_lines = self._current
        counter = index
        if self.module.opaque_indices:
            counter = Value(begin.type, "%" + self.fresh("n"))
            self.emit_void(
                f'{index.name} = call {index.type} asm "", "=r,0"({counter}) nounwind memory(none)'
            )
        more = self.icmp("slt", index, end)
        if while_ is not None:
            more = self.and_(more, while_(index))
        self.branch_if(more, body, after)
        self.start_block(body)
        state = Loop(index, carried_in)
        state.next = list(carried_in)
        yield state
        following = self.emit(begin.type, f"add nsw {index}, {step}", "i")
        latch = self.label
        self.branch(head)
        phis = [
            f"  {counter.name} = phi {begin.type} [ {begin.name}, %{before} ], "
            f"[ {following.name}, %{latch} ]"
        ]
        for inside, initial, after_body in zip(carried_in, carried, state.next, strict=True):
            if inside.type != after_body.type:
                raise BuilderError(f"loop: carried {inside} becomes {after_body}")
            phis.append(
                f"  {inside.name} = phi {inside.type} [ {initial.name}, %{before} ], "
                f"[ {after_body.name}, %{latch} ]"
            )
        head_lines[:0] = phis
        self.start_block(after)
        state.results = carried_in

    @contextmanager
    def when(self, condition: Value, hint: str = "when"):
        """Runs the body only where the scalar condition holds."""
        then, after = self.fresh(f"{hint}.then"), self.fresh(f"{hint}.end")
        self.branch_if(condition, then, after)
        self.start_block(then)
        yield
        self.branch(after)
        self.start_block(after)


class Loop:
    """The state of one loop under construction; see `Function.loop`."""

    __slots__ = ("carried", "index", "next", "results")

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
        self.next: list[Value] = []
        self.results: list[Value] = []


class Module:
    """Collects functions, intrinsic declarations and constants of one LLVM module.

    opaque_indices: LLVM is not to know how a loop's index advances (it passes through an empty
    assembler statement, which becomes no instruction).  Its loop strength reduction then finds
    nothing to do, which for long unrolled bodies with constant distances between all addresses
    takes up to two thirds of code generation and makes them no faster.  Short bodies need it, and
    so do machines whose addresses hold no long distances.
    """

    def __init__(
        self,
        triple: str = "",
        data_layout: str = "",
        function_attributes: str = "",
        target_features: str = "",
        annotated: bool = False,
    ) -> None:
        self.triple = triple
        self.annotated = annotated
        self.opaque_indices = False
        self.function_attributes = function_attributes
        self.target_features = target_features
        self.data_layout = data_layout
        self.functions: list[Function] = []
        self._declarations: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self._helpers: set[str] = set()
        self._metadata: dict[int, str] = {}

    def function(
        self,
        name: str,
        result: str,
        parameters: Sequence[tuple[str, str]],
        attributes: str = "nounwind",
        linkage: str = "",
    ) -> Function:
        """Starts a function; parameters are (type with optional attributes, name)."""
        function = Function(self, name, result, parameters, attributes, linkage)
        self.functions.append(function)
        return function

    def metadata(self, number: int, text: str) -> None:
        """A numbered metadata node, the same each time it is asked for."""
        self._metadata[number] = text

    def declare(self, name: str, result: str, parameters: Sequence[str]) -> None:
        self._declarations[name] = f"declare {result} @{name}({', '.join(parameters)})"

    def constant_table(self, name: str, element: str, values: Sequence[object]) -> Value:
        """A private constant array; gives its address."""
        items = ", ".join(f"{element} {format_scalar(element, value)}" for value in values)
        self._globals[name] = (
            f"@{name} = private unnamed_addr constant [{len(values)} x {element}] [{items}], "
            "align 64"
        )
        return Value("ptr", "@" + name)

    def once(self, name: str) -> bool:
        """True the first time it is asked for a name: guards helper functions emitted on demand."""
        if name in self._helpers:
            return False
        self._helpers.add(name)
        return True

    def text(self) -> str:
        head = []
        if self.data_layout:
            head.append(f'target datalayout = "{self.data_layout}"')
        if self.triple:
            head.append(f'target triple = "{self.triple}"')
        parts = [
            "\n".join(head),
            "\n".join(self._globals.values()),
            "\n\n".join(function.text() for function in self.functions),
            "\n".join(self._declarations[name] for name in sorted(self._declarations)),
            "\n".join(f"!{number} = {node}" for number, node in self._metadata.items()),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"
