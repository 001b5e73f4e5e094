"""Data movement and selection (PTX ISA, sections 9.7.9 and 9.7.6: mov, ld, st, cvta, selp,
setp)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx import access, types
from tests.ptx.compiler import Compiler, Lanes, Step, Suffixes, instruction, width_of
from tests.ptx.memory import LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES
from tests.ptx.parser import TYPE_BYTES, Instruction, Pair, Sink, Symbol, Vector

SPACES = (
    "global", "shared", "shared::cta", "shared::cluster", "local", "const", "param",
    "param::entry",
)  # fmt: skip
HINTS = frozenset(
    ("weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "unified")
    + ("cta", "cluster", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc")
)


def space_of(suffixes: Suffixes) -> str:
    return suffixes.take(*SPACES).split("::")[0]


@instruction("mov")
def move(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    if suffixes.flag("pred"):
        suffixes.done()
        write = compiler.writer(item.operands[0], "pred")
        read = compiler.predicate(item.operands[1])
        return lambda batch, lanes: write(batch, lanes, read(batch, lanes))
    type_ = suffixes.type()
    suffixes.done()
    if type_ in types.FLOATS or type_ in types.PACKED:
        type_ = f"b{8 * types.BYTES[type_]}"
    destination, source = item.operands
    if isinstance(source, Vector):
        return _pack(compiler, destination, source, type_)
    if isinstance(destination, Vector):
        return _unpack(compiler, destination, source, type_)
    if isinstance(source, Symbol) and compiler.symbols.get(source.name, ("",))[0] == "local":
        pass  # the address in the .local space; cvta makes it generic
    write, read = compiler.writer(destination, type_), compiler.reader(source, type_)
    return lambda batch, lanes: write(batch, lanes, read(batch, lanes))


def _pack(compiler: Compiler, destination: Any, source: Vector, type_: str) -> Step:
    total, count = types.BYTES[type_], len(source.items)
    part = total // count
    reads = compiler.readers(source.items, f"b{8 * part}")
    write = compiler.writer(destination, type_)
    dtype = types.UNSIGNED[total]

    def run(batch: Any, lanes: Lanes) -> None:
        parts = np.empty((width_of(batch, lanes), count), types.UNSIGNED[part])
        for index, read in enumerate(reads):
            parts[:, index] = read(batch, lanes)
        write(batch, lanes, parts.view(dtype)[:, 0])

    return run


def _unpack(compiler: Compiler, destination: Vector, source: Any, type_: str) -> Step:
    total, count = types.BYTES[type_], len(destination.items)
    part = total // count
    read = compiler.reader(source, type_)
    writes = [compiler.writer(one, f"b{8 * part}") for one in destination.items]

    def run(batch: Any, lanes: Lanes) -> None:
        parts = np.ascontiguousarray(read(batch, lanes)).view(types.UNSIGNED[part])
        parts = parts.reshape(-1, count)
        for index, write in enumerate(writes):
            write(batch, lanes, np.ascontiguousarray(parts[:, index]))

    return run


def _vector_count(suffixes: Suffixes) -> int:
    return int(suffixes.take("v2", "v4", "v8", default="v1")[1:])


@instruction("ld", "ldu")
def load(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    space = space_of(suffixes)
    suffixes.drop(HINTS)
    count, type_ = _vector_count(suffixes), suffixes.type()
    suffixes.done()
    operands = compiler.vector(item.operands[0])
    if len(operands) != count:
        raise suffixes.error(f"names {len(operands)} registers for {count} elements")
    bits = type_ if type_ in types.INTEGERS else f"b{8 * types.BYTES[type_]}"
    writes = [compiler.writer(one, bits) for one in operands]
    named, address = compiler.address(item.operands[1])
    space = space or named
    size, dtype = types.BYTES[type_], types.INTEGERS[bits]
    of_element = (1 << size) - 1
    used = [k for k in range(count) if not item.used or item.used >> k * size & of_element]

    def run(batch: Any, lanes: Lanes) -> None:
        values = access.load(batch, lanes, space, address(batch, lanes), size, count, used)
        for index, write in enumerate(writes):
            write(batch, lanes, np.ascontiguousarray(values[:, index]).view(dtype))

    return run


@instruction("st")
def store(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    space = space_of(suffixes)
    suffixes.drop(HINTS)
    count, type_ = _vector_count(suffixes), suffixes.type()
    suffixes.done()
    size = types.BYTES[type_]
    operands = compiler.vector(item.operands[1])
    if len(operands) != count:
        raise suffixes.error(f"names {len(operands)} registers for {count} elements")
    reads = compiler.readers(operands, f"u{8 * size}")
    named, address = compiler.address(item.operands[0])
    space = space or named
    dtype = types.UNSIGNED[size]

    def run(batch: Any, lanes: Lanes) -> None:
        values = np.empty((width_of(batch, lanes), count), dtype)
        for index, read in enumerate(reads):
            values[:, index] = read(batch, lanes)
        access.store(batch, lanes, space, address(batch, lanes), values)

    return run


_WINDOW = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": 0, "const": 0}


@instruction("cvta")
def convert_address(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    back = suffixes.flag("to")
    space, type_ = space_of(suffixes), suffixes.type()
    suffixes.done()
    read = compiler.reader(item.operands[1], type_)
    write = compiler.writer(item.operands[0], type_)

    def run(batch: Any, lanes: Lanes) -> None:
        window = batch.parameter_address if space == "param" else _WINDOW[space]
        offset = np.uint64(window)
        value = read(batch, lanes)
        write(batch, lanes, value - offset if back else value + offset)

    return run


@instruction("isspacep")
def is_space(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    space = space_of(suffixes)
    suffixes.done()
    read, write = (
        compiler.reader(item.operands[1], "u64"),
        compiler.writer(item.operands[0], "pred"),
    )
    if space not in ("shared", "local", "global"):
        raise suffixes.error("asks for a space that is not known")

    def inside(address: np.ndarray, name: str) -> np.ndarray:
        return (address >= _WINDOW[name]) & (address < _WINDOW[name] + WINDOW_BYTES)

    def run(batch: Any, lanes: Lanes) -> None:
        address = read(batch, lanes)
        if space == "global":
            write(batch, lanes, ~(inside(address, "shared") | inside(address, "local")))
        else:
            write(batch, lanes, inside(address, space))

    return run


@instruction("mapa")
def map_to_cluster(compiler: Compiler, item: Instruction) -> Step:
    """Clusters have one block here: rank 0 maps to itself, any other is an error."""
    suffixes = Suffixes(item)
    space_of(suffixes)
    type_ = suffixes.type()
    suffixes.done()
    read, rank = compiler.reader(item.operands[1], type_), compiler.reader(item.operands[2], "u32")
    write = compiler.writer(item.operands[0], type_)

    def run(batch: Any, lanes: Lanes) -> None:
        if rank(batch, lanes).any():
            raise batch.fault("mapa of another block: clusters are not interpreted", 0)
        write(batch, lanes, read(batch, lanes))

    return run


@instruction("selp")
def select(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    size = 8 * types.BYTES[suffixes.type()]
    suffixes.done()
    write = compiler.writer(item.operands[0], f"b{size}")
    a, b = compiler.readers(tuple(
        operand for operand in item.operands[1:3]), f"b{size}")  # fmt: skip
    chosen = compiler.predicate(item.operands[3])

    def run(batch: Any, lanes: Lanes) -> None:
        write(batch, lanes, np.where(chosen(batch, lanes), a(batch, lanes), b(batch, lanes)))

    return run


@instruction("slct")
def select_by_sign(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    flush = suffixes.flag("ftz")
    type_, by = suffixes.type(), suffixes.type()
    suffixes.done()
    del flush  # a subnormal's sign decides as the flushed zero's: -0 counts as not negative
    bits = f"b{8 * types.BYTES[type_]}"
    write = compiler.writer(item.operands[0], bits)
    a, b = compiler.readers(item.operands[1:3], bits)
    key = compiler.reader(item.operands[3], by)

    def run(batch: Any, lanes: Lanes) -> None:
        write(batch, lanes, np.where(key(batch, lanes) >= 0, a(batch, lanes), b(batch, lanes)))

    return run


def _nan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.isnan(a) | np.isnan(b)


_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
    "hs": np.greater_equal,
}  # fmt: skip
_FLOAT_COMPARE = {
    **{name: _COMPARE[name] for name in ("eq", "lt", "le", "gt", "ge")},
    # Ordered `ne` is false where a NaN meets; the forms with u are true there.
    "ne": lambda a, b: (a != b) & ~_nan(a, b),
    "equ": lambda a, b: (a == b) | _nan(a, b),
    "neu": np.not_equal,
    "ltu": lambda a, b: (a < b) | _nan(a, b),
    "leu": lambda a, b: (a <= b) | _nan(a, b),
    "gtu": lambda a, b: (a > b) | _nan(a, b),
    "geu": lambda a, b: (a >= b) | _nan(a, b),
    "num": lambda a, b: ~_nan(a, b),
    "nan": _nan,
}
_COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


@instruction("setp", "set")
def set_predicate(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    name = suffixes.take(*(set(_COMPARE) | set(_FLOAT_COMPARE)))
    combine = suffixes.take("and", "or", "xor")
    flushes = suffixes.flag("ftz")
    to_predicate = item.opcode.startswith("setp")
    result = "pred" if to_predicate else suffixes.type()
    type_ = suffixes.type()
    suffixes.done()
    table = _FLOAT_COMPARE if types.is_float(type_) else _COMPARE
    if name not in table:
        raise suffixes.error(f"compares .{type_} by {name!r}")
    if name in ("lo", "ls", "hi", "hs"):
        type_ = "u" + type_[1:]
    compare, packed = table[name], type_ in types.PACKED
    a, b = compiler.readers(item.operands[1:3], type_)
    third = compiler.predicate(item.operands[3]) if combine else None
    destination = item.operands[0]
    if packed != (isinstance(destination, Pair) and packed):
        raise suffixes.error("compares packed values into one predicate")
    first, second = (
        (destination.first, destination.second)
        if isinstance(destination, Pair)
        else (destination, Sink())
    )
    writes = compiler.writer(first, result), compiler.writer(second, result)

    def run(batch: Any, lanes: Lanes) -> None:
        left, right = a(batch, lanes), b(batch, lanes)
        if flushes and type_ == "f32":
            from tests.ptx.rounding import flush

            left, right = flush(left), flush(right)
        value = compare(left, right)
        pairs = [value[..., 0], value[..., 1]] if packed else [value, ~value]
        for write, one in zip(writes, pairs):
            if third is not None:
                one = _COMBINE[combine](one, third(batch, lanes))
            if result == "pred":
                write(batch, lanes, one)
            elif result == "f32":
                write(batch, lanes, one.astype(np.float32))
            else:
                write(batch, lanes, np.where(one, -1, 0))

    return run


@instruction("createpolicy")
def create_policy(compiler: Compiler, item: Instruction) -> Step:
    """Cache policies change nothing here: the policy is 0."""
    index, declared = compiler.register(item.operands[0])
    assert TYPE_BYTES[declared] == 8

    def run(batch: Any, lanes: Lanes) -> None:
        batch.registers[index][lanes] = 0

    return run
