"""From PTX text to a syntax tree: modules, kernels, declarations, instructions.

In: the text that LLVM's NVPTX target writes, or written by hand (PTX ISA, sections 4, 5 and 7.1).
Out: frozen dataclasses that say what was written, with nothing resolved.  The one idea: PTX is a
list of statements that each end at `;`, `:` or a brace, so one pass over the tokens is enough; a
register declared inside nested braces (inline assembly) is renamed so that names are unique.
"""

from __future__ import annotations

import bisect
import functools
import re
import struct
from dataclasses import dataclass, field


class PtxError(Exception):
    """Anything that is wrong in a PTX text or happens while a kernel runs."""


class PtxSyntaxError(PtxError):
    """The text is no PTX that this parser knows; the message names the line."""


@dataclass(frozen=True, slots=True)
class Register:
    """A declared register, or a special one (`%tid.x`)."""

    name: str


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant.  bits: for `0f…` (32) and `0d…` (64) the value is a float of that width."""

    value: int | float
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable's or label's name, plus a constant number of bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """`[base + offset]`; coordinates where it is a tensor access `[base, {c0, c1}]`."""

    base: Register | Symbol | Immediate
    offset: int = 0
    coordinates: tuple[Operand, ...] = ()


@dataclass(frozen=True, slots=True)
class Vector:
    """`{a, b, …}`: several registers as one operand."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """`a|b`: two destinations of one instruction."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Negated:
    """`!p` as a source operand."""

    operand: Register


@dataclass(frozen=True, slots=True)
class Sink:
    """`_`: a destination that is thrown away."""


Operand = Register | Immediate | Symbol | Address | Vector | Pair | Negated | Sink


@dataclass(frozen=True, slots=True)
class Instruction:
    """opcode: as written (`ld.global.v2.b32`).  predicate: the guard and whether it is negated.
    used: one bit for each byte of a load that counts (the pragma `used_bytes_mask`); 0: all.
    """

    opcode: str
    operands: tuple[Operand, ...]
    predicate: tuple[Register, bool] | None
    line: int
    text: str
    used: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable.  size: bytes; 0 for `.extern .shared name[]`, the launch's own size."""

    name: str
    space: str
    type: str
    size: int
    alignment: int
    initial: bytes = b""
    relocations: tuple[tuple[int, str, int], ...] = ()
    extern: bool = False


@dataclass(slots=True)
class Kernel:
    """One `.entry`: parameters in order, registers by name, and its statements."""

    name: str
    parameters: list[Variable] = field(default_factory=list)
    directives: dict[str, tuple[int, ...]] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    body: list[Instruction | Label] = field(default_factory=list)
    branch_targets: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class ModuleSyntax:
    version: str = ""
    target: str = ""
    variables: list[Variable] = field(default_factory=list)
    kernels: dict[str, Kernel] = field(default_factory=dict)


TYPE_BYTES = {
    **{f"{kind}{bits}": bits // 8 for kind in "usb" for bits in (8, 16, 32, 64, 128)},
    "f16": 2, "bf16": 2, "f16x2": 4, "bf16x2": 4, "f32": 4, "f64": 8, "pred": 1, "tf32": 4,
}  # fmt: skip

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<float>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16})
  | (?P<number>0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?(?![\w.]))
  | (?P<decimal>\d+\.\d*(?:[eE][+-]?\d+)?)
  | (?P<string>"[^"]*")
  | (?P<directive>\.[A-Za-z_]\w*)
  | (?P<word>[%$_A-Za-z][\w$]*(?:(?:\.|::)[A-Za-z0-9_]+)*)
  | (?P<mark>[{}()\[\],;:|+\-<>=@!])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise PtxSyntaxError(
                f"line {line}: unreadable PTX at {text[position : position + 40]!r}"
            )
        if match.lastgroup != "space":
            tokens.append(_Token(match.lastgroup or "", match.group(), position))
        position = match.end()
    return tokens


def _number(text: str) -> int:
    return int(text.rstrip("U"), 0)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokenize(text)
        self._position = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._scopes: list[dict[str, str]] = []
        self._scope_count = 0
        self._used = 0
        self.module = ModuleSyntax()

    # ---- tokens

    def _peek(self, ahead: int = 0) -> str:
        index = self._position + ahead
        return self._tokens[index].text if index < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._position].kind if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        if self._position >= len(self._tokens):
            raise PtxSyntaxError("the PTX text ends inside a statement")
        self._position += 1
        return self._tokens[self._position - 1].text

    def _expect(self, text: str) -> None:
        found = self._next()
        if found != text:
            raise self._error(f"expected {text!r}, found {found!r}")

    def _accept(self, text: str) -> bool:
        if self._peek() == text:
            self._position += 1
            return True
        return False

    def _line(self, position: int) -> int:
        index = min(position, len(self._tokens) - 1)
        return bisect.bisect_right(self._line_starts, self._tokens[index].start)

    def _error(self, message: str) -> PtxSyntaxError:
        line = self._line(max(self._position - 1, 0))
        source = self._text.splitlines()[line - 1].strip()
        return PtxSyntaxError(f"line {line}: {message} in {source!r}")

    # ---- module level

    def parse(self) -> ModuleSyntax:
        while self._position < len(self._tokens):
            word = self._next()
            if word == ".version":
                self.module.version = self._next()
            elif word == ".target":
                self.module.target = self._next()
                while self._accept(","):
                    self._next()
            elif word == ".address_size":
                if self._next() != "64":
                    raise self._error("only 64-bit addresses are known")
            elif word in (".visible", ".weak"):
                continue
            elif word == ".entry":
                self._kernel()
            elif word == ".file":
                self._skip_file()
            elif word == ".section":
                self._skip_section()
            elif word in (".extern", ".global", ".const", ".shared"):
                self._position -= 1
                self.module.variables.extend(self._variables())
            else:
                raise self._error(f"{word!r} is not known at module level")
        return self.module

    def _skip_file(self) -> None:
        while self._kind() in ("number", "string") or self._peek() == ",":
            self._next()

    def _skip_section(self) -> None:
        while self._next() != "{":
            pass
        while self._next() != "}":
            pass

    def _integer(self) -> int:
        sign = -1 if self._accept("-") else 1
        return sign * _number(self._next())

    def _variables(self, parameter: bool = False) -> list[Variable]:
        space, alignment, extern, type_, pointer = "", 0, False, "", False
        while self._kind() == "directive":
            word = self._next()
            if word == ".align":
                # Behind `.ptr` it is the alignment of what the pointer points to.
                declared = _number(self._next())
                alignment = alignment if pointer else declared
            elif word == ".ptr":
                pointer = True
            elif word == ".extern":
                extern = True
            elif word in (".visible", ".weak"):
                continue
            elif word[1:] in TYPE_BYTES:
                type_ = word[1:]
            elif word in (".global", ".const", ".shared", ".local", ".param"):
                space = space or word[1:]
            else:
                raise self._error(f"{word!r} is not known in a declaration")
        if not type_:
            raise self._error("a declaration without a type")
        found = [self._declarator(space, type_, alignment, extern)]
        while not parameter and self._accept(","):
            found.append(self._declarator(space, type_, alignment, extern))
        if not parameter:
            self._expect(";")
        return found

    def _declarator(self, space: str, type_: str, alignment: int, extern: bool) -> Variable:
        name = self._next()
        width = TYPE_BYTES[type_]
        count = 1
        while self._accept("["):
            count = 0 if self._peek() == "]" else count * self._integer()
            self._expect("]")
        initial, relocations = b"", []
        if self._accept("="):
            braces = self._accept("{")
            values: list[bytes] = []
            while self._peek() not in ("}", ";"):
                if self._kind() == "word":
                    relocations.append((len(values) * width, *self._initial_symbol()))
                    values.append(bytes(width))
                elif self._kind() == "float":
                    values.append(bytes.fromhex(self._next()[2:])[::-1])
                else:
                    value = self._integer()
                    values.append((value % (1 << (8 * width))).to_bytes(width, "little"))
                if not self._accept(","):
                    break
            if braces:
                self._expect("}")
            initial = b"".join(values)
        return Variable(
            name,
            space,
            type_,
            count * width,
            alignment or width,
            initial,
            tuple(relocations),
            extern,
        )

    def _initial_symbol(self) -> tuple[str, int]:
        name = self._next()
        if name == "generic":
            self._expect("(")
            name = self._next()
            self._expect(")")
        return name, self._integer() if self._accept("+") else 0

    # ---- kernels

    def _kernel(self) -> None:
        kernel = Kernel(self._next())
        if self._accept("("):
            while not self._accept(")"):
                kernel.parameters.extend(self._variables(parameter=True))
                self._accept(",")
        while self._peek() != "{":
            directive = self._next()
            values = []
            while self._kind() == "number":
                values.append(_number(self._next()))
                self._accept(",")
            kernel.directives[directive] = tuple(values)
        self._scopes = []
        self._scope_count = 0
        self._block(kernel)
        if kernel.name in self.module.kernels:
            raise self._error(f"kernel {kernel.name!r} is defined twice")
        self.module.kernels[kernel.name] = kernel

    def _block(self, kernel: Kernel) -> None:
        self._expect("{")
        self._scopes.append({})
        self._scope_count += 1
        while not self._accept("}"):
            self._statement(kernel)
        self._scopes.pop()

    def _statement(self, kernel: Kernel) -> None:
        word = self._peek()
        if word == "{":
            self._block(kernel)
        elif word == ";":
            self._next()
        elif word == ".reg":
            self._registers(kernel)
        elif word in (".shared", ".local", ".param", ".const", ".global"):
            kernel.variables.extend(self._variables())
        elif word == ".loc":
            self._next()
            while self._kind() == "number" or self._peek() == ",":
                self._next()
            while self._peek() in ("function_name", "inlined_at"):
                self._next()
                while self._kind() == "number" or self._peek()[:6] in (",", "+", "$L__in"):
                    self._next()
        elif word == ".pragma":
            self._pragma()
        elif self._kind() == "word" and self._peek(1) == ":":
            self._label(kernel)
        else:
            self._instruction(kernel)

    def _pragma(self) -> None:
        while (word := self._next()) != ";":
            found = re.fullmatch(r'"used_bytes_mask (0x[0-9a-fA-F]+)"', word)
            if found:
                self._used = int(found[1], 16)

    def _label(self, kernel: Kernel) -> None:
        name = self._rename(self._next(), define=len(self._scopes) > 1)
        self._expect(":")
        if self._accept(".branchtargets"):
            targets = [self._next()]
            while self._accept(","):
                targets.append(self._next())
            self._expect(";")
            kernel.branch_targets[name] = tuple(targets)
        else:
            kernel.body.append(Label(name))

    def _rename(self, name: str, define: bool = False) -> str:
        """A name declared in an inner scope gets the scope's number; see the module's idea."""
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        if define:
            self._scopes[-1][name] = f"{name}.{self._scope_count}"
            return self._scopes[-1][name]
        return name

    def _registers(self, kernel: Kernel) -> None:
        self._next()
        type_ = self._next()[1:]
        if type_ not in TYPE_BYTES:
            raise self._error(f"registers of type {type_!r} are not known")
        while True:
            name = self._next()
            names = [name]
            if self._accept("<"):
                names = [f"{name}{index}" for index in range(_number(self._next()))]
                self._expect(">")
            inner = len(self._scopes) > 1
            for each in names:
                if inner:
                    self._scopes[-1][each] = f"{each}.{self._scope_count}"
                kernel.registers[self._scopes[-1][each] if inner else each] = type_
            if not self._accept(","):
                break
        self._expect(";")

    def _instruction(self, kernel: Kernel) -> None:
        first = self._position
        predicate = None
        if self._accept("@"):
            negated = self._accept("!")
            predicate = (Register(self._rename(self._next())), negated)
        if self._kind() != "word":
            raise self._error(f"expected an instruction, found {self._peek()!r}")
        opcode = self._next()
        operands: list[Operand] = []
        if self._peek() != ";":
            operands.append(self._operand(kernel))
            while self._accept(","):
                operands.append(self._operand(kernel))
        self._expect(";")
        last = self._tokens[self._position - 1].start
        source = " ".join(self._text[self._tokens[first].start : last].split())
        used, self._used = self._used, 0
        line = self._line(first)
        kernel.body.append(
            Instruction(opcode, tuple(operands), predicate, line, source + ";", used)
        )

    def _operand(self, kernel: Kernel) -> Operand:
        operand = self._single(kernel)
        if self._accept("|"):
            return Pair(operand, self._single(kernel))
        if self._accept("+"):
            if not isinstance(operand, Symbol):
                raise self._error("an offset on something that is no symbol")
            return Symbol(operand.name, operand.offset + self._integer())
        return operand

    def _single(self, kernel: Kernel) -> Operand:
        if self._accept("["):
            return self._address(kernel)
        if self._accept("{"):
            items = [self._operand(kernel)]
            while self._accept(","):
                items.append(self._operand(kernel))
            self._expect("}")
            return Vector(tuple(items))
        if self._accept("!"):
            operand = self._single(kernel)
            if not isinstance(operand, Register):
                raise self._error("only a predicate can be negated")
            return Negated(operand)
        if self._accept("-"):
            immediate = self._single(kernel)
            if not isinstance(immediate, Immediate):
                raise self._error("a minus sign before something that is no number")
            return Immediate(-immediate.value, immediate.bits)
        kind = self._kind()
        if kind == "float":
            digits = self._next()
            raw = bytes.fromhex(digits[2:])
            return Immediate(struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0], 8 * len(raw))
        if kind == "decimal":
            return Immediate(float(self._next()), 64)
        if kind == "number":
            return Immediate(_number(self._next()))
        if kind == "word":
            name = self._rename(self._next())
            if name == "_":
                return Sink()
            special = name.startswith("%") or name == "WARP_SZ"
            return Register(name) if name in kernel.registers or special else Symbol(name)
        raise self._error(f"{self._peek()!r} is no operand")

    def _address(self, kernel: Kernel) -> Address:
        base = self._single(kernel)
        offset = 0
        while self._peek() in ("+", "-"):
            sign = -1 if self._next() == "-" else 1
            offset += sign * self._integer()
        coordinates: tuple[Operand, ...] = ()
        if self._accept(","):
            item = self._operand(kernel)
            coordinates = item.items if isinstance(item, Vector) else (item,)
        self._expect("]")
        if not isinstance(base, Register | Symbol | Immediate):
            raise self._error("an address that is neither register, symbol nor number")
        return Address(base, offset, coordinates)


@functools.lru_cache(maxsize=512)
def parse(text: str) -> ModuleSyntax:
    """The syntax of a whole PTX module.  PtxSyntaxError names the line that is not understood.

    Nobody changes it: tests load the same kernels again and again.
    """
    return _Parser(text).parse()
