"""What each elementwise op is in LLVM, on scalars and vectors alike.

`emit_op(function, op, arguments, dtype, result)` appends the instructions for one op of the op
table.  Values of a dtype are held in registers as `register_type(dtype)`: bool as i1, bfloat16 as
its bits in i16, all else as LLVM's own type.  16-bit floats compute in float and round once an op.
Integer division is guarded: no input can trap.
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Function, Value, const, lanes_of, vector_of, with_element
from lazygrad_compiler.llvm.elementary import ELEMENTARY, emit_elementary
from lazygrad_compiler.llvm.elementary_gamma import even_odd
from lazygrad_compiler.llvm.elementary_lanes import Lanes
from lazygrad_compiler.llvm.integers import emit_gcd

REGISTER = {
    "bool": "i1",
    "float16": "half",
    "bfloat16": "i16",
    "float32": "float",
    "float64": "double",
}
MEMORY = {
    "bool": "i8",
    "float16": "half",
    "bfloat16": "i16",
    "float32": "float",
    "float64": "double",
}


def register_type(dtype: DType, lanes: int = 1) -> str:
    return vector_of(REGISTER.get(dtype.name) or f"i{dtype.bits}", lanes)


def memory_type(dtype: DType, lanes: int = 1) -> str:
    return vector_of(MEMORY.get(dtype.name) or f"i{dtype.bits}", lanes)


def is_narrow(dtype: DType) -> bool:
    """A 16-bit float, which computes in float32."""
    return dtype.kind == "float" and dtype.bits == 16


def constant(dtype: DType, value: object, lanes: int = 1) -> Value:
    if dtype is dtypes.bfloat16:
        bits = int(dtype.numpy.type(value).view("uint16"))
        return const(register_type(dtype, lanes), bits)
    if dtype is dtypes.float16:
        value = float(dtype.numpy.type(value))
    return const(register_type(dtype, lanes), value)


def widen(f: Function, value: Value, dtype: DType) -> Value:
    """A 16-bit float as float."""
    if dtype is dtypes.float16:
        return f.convert("fpext", value, with_element(value.type, "float"))
    if dtype is dtypes.bfloat16:
        wide = f.convert("zext", value, with_element(value.type, "i32"))
        return f.bitcast(f.shl(wide, 16), with_element(value.type, "float"))
    return value


def narrow(f: Function, value: Value, dtype: DType) -> Value:
    """A float rounded to a 16-bit float, to nearest even."""
    if dtype is dtypes.float16:
        return f.convert("fptrunc", value, with_element(value.type, "half"))
    if dtype is dtypes.bfloat16:
        bits = f.bitcast(value, with_element(value.type, "i32"))
        odd = f.and_(f.lshr(bits, 16), 1)
        rounded = f.lshr(f.add(f.add(bits, 0x7FFF), odd), 16)
        is_nan = f.fcmp("uno", value, value)
        quiet = f.or_(f.lshr(bits, 16), 0x40)
        return f.convert("trunc", f.select(is_nan, quiet, rounded), with_element(value.type, "i16"))
    return value


def from_memory(f: Function, value: Value, dtype: DType) -> Value:
    return f.icmp("ne", value, 0) if dtype is dtypes.bool_ else value


def to_memory(f: Function, value: Value, dtype: DType) -> Value:
    return (
        f.convert("zext", value, with_element(value.type, "i8")) if dtype is dtypes.bool_ else value
    )


Rule = Callable[[Function, DType, list[Value]], Value]


def _arithmetic(float_op: str, integer_op: str) -> Rule:
    def rule(f: Function, dtype: DType, args: list[Value]) -> Value:
        return getattr(f, float_op if dtype.is_floating else integer_op)(args[0], args[1])

    return rule


def _intrinsic(name: str) -> Rule:
    return lambda f, dtype, args: f.overloaded(name, *args)


def _neg(f: Function, dtype: DType, args: list[Value]) -> Value:
    return f.fneg(args[0]) if dtype.is_floating else f.sub(0, args[0])


def _abs(f: Function, dtype: DType, args: list[Value]) -> Value:
    (x,) = args
    if dtype.is_floating:
        return f.overloaded("llvm.fabs", x)
    return f.select(f.icmp("slt", x, 0), f.sub(0, x), x) if dtype.kind == "signed" else x


def _sign(f: Function, dtype: DType, args: list[Value]) -> Value:
    (x,) = args
    zero, one = const(x.type, 0), const(x.type, 1)
    if dtype.is_floating:
        positive = f.select(f.fcmp("ogt", x, zero), one, f.select(f.fcmp("oeq", x, zero), zero, x))
        return f.select(f.fcmp("olt", x, zero), const(x.type, -1), positive)
    positive = f.select(f.icmp("ne", x, zero), one, zero)
    return (
        f.select(f.icmp("slt", x, zero), const(x.type, -1), positive)
        if dtype.kind == "signed"
        else positive
    )


def _less(f: Function, dtype: DType, x: Value, y: Value, equal: bool = False) -> Value:
    if dtype.is_floating:
        return f.fcmp("ole" if equal else "olt", x, y)
    return f.icmp(("s" if dtype.kind == "signed" else "u") + ("le" if equal else "lt"), x, y)


def _extreme(larger: bool) -> Rule:
    def rule(f: Function, dtype: DType, args: list[Value]) -> Value:
        x, y = args
        better = _less(f, dtype, y, x) if larger else _less(f, dtype, x, y)
        if dtype.is_floating:
            better = f.or_(better, f.fcmp("uno", x, x))
        return f.select(better, x, y)

    return rule


def _guarded(opcode: str) -> Rule:
    """Integer quotient or remainder: 0 for a zero divisor; the lowest number by -1 wraps."""

    def rule(f: Function, dtype: DType, args: list[Value]) -> Value:
        x, y = args
        zero = f.icmp("eq", y, 0)
        safe = f.select(zero, const(y.type, 1), y)
        if dtype.kind == "signed":
            minus_one = f.icmp("eq", y, -1)
            safe = f.select(minus_one, const(y.type, 1), safe)
            if opcode == "div":
                result = f.select(minus_one, f.sub(0, x), f.sdiv(x, safe))
            else:
                result = f.select(minus_one, const(x.type, 0), f.srem(x, safe))
        else:
            result = f.udiv(x, safe) if opcode == "div" else f.urem(x, safe)
        return f.select(zero, const(x.type, 0), result)

    return rule


def _rem(f: Function, dtype: DType, args: list[Value]) -> Value:
    if not dtype.is_floating:
        return _guarded("rem")(f, dtype, args)
    return emit_float_remainder(f, args[0], args[1])


def emit_float_remainder(f: Function, x: Value, y: Value) -> Value:
    """fmod, exactly: long division on the significands, one bit a step, lane by lane in lockstep.

    The common case |x| < |y| * 2**23 takes one division where the quotient is small enough to be
    exact with fma.
    """
    bits = 32 if "float" in x.type else 64
    mantissa = 23 if bits == 32 else 52
    integer = with_element(x.type, f"i{bits}")
    # |x| and |y| as integers
    magnitude_mask = (1 << (bits - 1)) - 1
    xi, yi = (f.and_(f.bitcast(v, integer), magnitude_mask) for v in (x, y))
    one = const(integer, 1)

    def unpack(value: Value) -> tuple[Value, Value]:
        """Exponent (at least 1) and significand with its leading bit, subnormals normalised by the
        loop itself.
        """
        exponent = f.lshr(value, mantissa)
        fraction = f.and_(value, (1 << mantissa) - 1)
        normal = f.icmp("ne", exponent, 0)
        return (
            f.select(normal, exponent, one),
            f.select(normal, f.or_(fraction, 1 << mantissa), fraction),
        )

    x_exponent, x_significand = unpack(xi)
    y_exponent, y_significand = unpack(yi)
    distance = f.sub(x_exponent, y_exponent)
    positive = f.icmp("sgt", distance, 0)
    steps_lanes = f.select(positive, distance, const(integer, 0))
    if lanes_of(x.type) > 1:
        steps = f.intrinsic(
            f"llvm.vector.reduce.smax.v{lanes_of(x.type)}i{bits}", f"i{bits}", steps_lanes
        )
    else:
        steps = steps_lanes
    safe_y = f.select(f.icmp("eq", y_significand, 0), one, y_significand)
    # where x is below y the answer is x itself and the loop must not touch the lane
    with f.loop(const(f"i{bits}", 0), steps, 1, [x_significand, steps_lanes], "fmod") as loop:
        remainder, left = loop.carried
        active = f.icmp("sgt", left, 0)
        reduced = f.select(f.icmp("uge", remainder, safe_y), f.sub(remainder, safe_y), remainder)
        loop.next = [f.select(active, f.shl(reduced, 1), remainder), f.sub(left, one)]
    remainder, _ = loop.results
    reduced = f.select(f.icmp("uge", remainder, safe_y), f.sub(remainder, safe_y), remainder)
    # pack: shift the significand up to its leading bit, or stop at exponent 1
    count = f.intrinsic(
        f"llvm.ctlz.{'v' + str(lanes_of(x.type)) if lanes_of(x.type) > 1 else ''}i{bits}",
        integer,
        reduced,
        Value("i1", "false"),
    )
    wanted = f.sub(count, bits - 1 - mantissa)
    room = f.sub(y_exponent, one)
    shift = f.select(f.icmp("slt", wanted, room), wanted, room)
    shift = f.select(f.icmp("eq", reduced, 0), const(integer, 0), shift)
    shifted = f.shl(reduced, shift)
    exponent = f.sub(y_exponent, shift)
    is_normal = f.icmp("uge", shifted, 1 << mantissa)
    packed = f.select(
        is_normal, f.or_(f.and_(shifted, (1 << mantissa) - 1), f.shl(exponent, mantissa)), shifted
    )
    result = f.bitcast(f.select(f.icmp("ult", xi, yi), xi, packed), x.type)
    result = f.overloaded("llvm.copysign", result, x)
    infinity = const(x.type, float("inf"))
    bad = f.or_(
        f.or_(f.fcmp("uno", x, y), f.fcmp("oeq", f.overloaded("llvm.fabs", x), infinity)),
        f.fcmp("oeq", y, 0.0),
    )
    return f.select(bad, const(x.type, float("nan")), result)


def _pow(f: Function, dtype: DType, args: list[Value]) -> Value:
    x, y = args
    if dtype.is_floating:
        return emit_elementary("pow", f, x, y)
    bits = dtype.bits
    with f.loop(0, bits, 1, [const(x.type, 1), x, y], "pow") as loop:
        result, base, left = loop.carried
        odd = f.icmp("ne", f.and_(left, 1), 0)
        loop.next = [f.select(odd, f.mul(result, base), result), f.mul(base, base), f.lshr(left, 1)]
    result = loop.results[0]
    if dtype.kind == "unsigned":
        return result
    zero, one = const(x.type, 0), const(x.type, 1)
    unit = f.or_(f.icmp("eq", x, one), f.icmp("eq", x, -1))
    sign = f.select(f.icmp("ne", f.and_(y, 1), zero), x, one)
    return f.select(f.icmp("slt", y, zero), f.select(unit, sign, zero), result)


def _shift(opcode: str) -> Rule:
    def rule(f: Function, dtype: DType, args: list[Value]) -> Value:
        x, y = args
        legal = f.icmp("ult", y, dtype.bits)
        amount = f.select(legal, y, const(y.type, 0))
        if opcode == "shl":
            return f.select(legal, f.shl(x, amount), const(x.type, 0))
        if dtype.kind == "signed":
            return f.select(legal, f.ashr(x, amount), f.ashr(x, dtype.bits - 1))
        return f.select(legal, f.lshr(x, amount), const(x.type, 0))

    return rule


def _compare(op: str) -> Rule:
    def rule(f: Function, dtype: DType, args: list[Value]) -> Value:
        x, y = args
        if op in ("lt", "le"):
            return _less(f, dtype, x, y, op == "le")
        if dtype.is_floating:
            return f.fcmp("oeq" if op == "eq" else "une", x, y)
        return f.icmp(op, x, y)

    return rule


def _elementary(name: str) -> Rule:
    return lambda f, dtype, args: emit_elementary(name, f, *args)


def _next_after(f: Function, dtype: DType, args: list[Value]) -> Value:
    """The neighbour by its bits: they count upwards from zero on either side of it."""
    x, y = args
    bits = dtype.bits
    integer = with_element(x.type, f"i{bits}")
    wide_x, wide_y = widen(f, x, dtype), widen(f, y, dtype)
    pattern = f.bitcast(x, integer)
    magnitude = f.and_(pattern, (1 << (bits - 1)) - 1)
    upwards = f.fcmp("ogt", wide_y, wide_x)
    negative = f.icmp("slt", pattern, 0)
    outwards = f.xor(negative, upwards)
    moved = f.select(outwards, f.add(pattern, 1), f.sub(pattern, 1))
    smallest = f.select(upwards, const(integer, 1), const(integer, 1 - (1 << (bits - 1))))
    moved = f.select(f.icmp("eq", magnitude, 0), smallest, moved)
    moved = f.select(f.fcmp("oeq", wide_x, wide_y), f.bitcast(y, integer), moved)
    result = f.bitcast(moved, x.type)
    return f.select(f.fcmp("uno", wide_x, wide_y), constant(dtype, float("nan"), lanes_of(x.type)),
                    result)


def _narrow_copysign(f: Function, x: Value, y: Value) -> Value:
    integer = with_element(x.type, "i16")
    size, sign = f.and_(f.bitcast(x, integer), 0x7FFF), f.and_(f.bitcast(y, integer), 0x8000)
    return f.bitcast(f.or_(size, sign), x.type)


def emit_polynomial(f: Function, value: Value, coefficients: tuple[float, ...]) -> Value:
    """A polynomial with numbers for coefficients, lowest order first."""
    if len(coefficients) < 3:
        coefficients = (*coefficients, 0.0, 0.0)
    return even_odd(Lanes(f, value), coefficients).value


RULES: dict[str, Rule] = {
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "floor": _intrinsic("llvm.floor"),
    "ceil": _intrinsic("llvm.ceil"),
    "trunc": _intrinsic("llvm.trunc"),
    "round": _intrinsic("llvm.roundeven"),
    "sqrt": _intrinsic("llvm.sqrt"),
    "not": lambda f, dtype, args: (
        f.not_(args[0]) if dtype is not dtypes.bool_ else f.xor(args[0], True)
    ),
    "add": _arithmetic("fadd", "add"),
    "sub": _arithmetic("fsub", "sub"),
    "mul": _arithmetic("fmul", "mul"),
    "div": _arithmetic("fdiv", "sdiv"),
    "idiv": _guarded("div"),
    "rem": _rem,
    "pow": _pow,
    "copysign": _intrinsic("llvm.copysign"),
    "nextafter": _next_after,
    "gcd": emit_gcd,
    "maximum": _extreme(True),
    "minimum": _extreme(False),
    "and": lambda f, dtype, args: f.and_(*args),
    "or": lambda f, dtype, args: f.or_(*args),
    "xor": lambda f, dtype, args: f.xor(*args),
    "shl": _shift("shl"),
    "shr": _shift("shr"),
    **{op: _compare(op) for op in ("lt", "le", "eq", "ne")},
    **{name: _elementary(name) for name in ELEMENTARY if name != "pow"},
}


def emit_cast(f: Function, value: Value, source: DType, target: DType) -> Value:
    """Conversion of a register value, as the op table says: integers wrap, floats saturate, NaN
    becomes 0.
    """
    if source is target:
        return value
    if is_narrow(source):
        value, source = widen(f, value, source), dtypes.float32
    if target is dtypes.bool_:
        return f.fcmp("une", value, 0.0) if source.is_floating else f.icmp("ne", value, 0)
    if is_narrow(target):
        if source is dtypes.float64:
            return narrow(f, _to_odd_float(f, value), target)
        return narrow(f, emit_cast(f, value, source, dtypes.float32), target)
    result = with_element(value.type, register_type(target))
    if source.is_floating and target.is_floating:
        return f.convert("fpext" if target.bits > source.bits else "fptrunc", value, result)
    if source.is_floating:
        return _float_to_integer(f, value, target)
    if target.is_floating:
        return f.convert("sitofp" if source.kind == "signed" else "uitofp", value, result)
    source_bits = 1 if source is dtypes.bool_ else source.bits
    if target.bits == source_bits:
        return value
    if target.bits < source_bits:
        return f.convert("trunc", value, result)
    return f.convert("sext" if source.kind == "signed" else "zext", value, result)


def _to_odd_float(f: Function, value: Value) -> Value:
    """A double as float rounded to odd, so that rounding the float again to 16 bits rounds only
    once (Boldo and Melquiond, IEEE Transactions on Computers 2008).
    """
    nearest = f.convert("fptrunc", value, with_element(value.type, "float"))
    back = f.convert("fpext", nearest, value.type)
    bits = f.bitcast(nearest, with_element(value.type, "i32"))
    too_far = f.fcmp("ogt", f.overloaded("llvm.fabs", back), f.overloaded("llvm.fabs", value))
    towards_zero = f.select(too_far, f.sub(bits, 1), bits)
    odd = f.select(f.fcmp("une", back, value), f.or_(towards_zero, 1), towards_zero)
    return f.bitcast(odd, nearest.type)


def _float_to_integer(f: Function, value: Value, target: DType) -> Value:
    from lazygrad_compiler.llvm.builder import mangle

    if target.bits < 32:
        through, kind = "i32", "fptosi"
    elif target is dtypes.uint32:
        through, kind = "i64", "fptosi"
    else:
        through, kind = f"i{target.bits}", "fptoui" if target.kind == "unsigned" else "fptosi"
    type_ = with_element(value.type, through)
    result = f.intrinsic(f"llvm.{kind}.sat.{mangle(type_)}.{mangle(value.type)}", type_, value)
    if target is dtypes.uint64:
        signed = f.intrinsic(f"llvm.fptosi.sat.{mangle(type_)}.{mangle(value.type)}", type_, value)
        result = f.select(f.fcmp("olt", value, 0.0), signed, result)
    return f.convert("trunc", result, with_element(value.type, register_type(target)))


def emit_op(f: Function, op: str, args: list[Value], dtype: DType, result: DType) -> Value:
    """One op of the op table on register values of `dtype`; the result is of the dtype `result`."""
    if op == "where":
        return f.select(*args)
    if op == "cast":
        return emit_cast(f, args[0], dtype, result)
    if op == "bitcast":
        return f.bitcast(args[0], with_element(args[0].type, register_type(result)))
    if not is_narrow(dtype):
        return RULES[op](f, dtype, args)
    if op == "neg" or op == "abs":
        return _narrow_sign(f, op, args[0], dtype)
    if op == "copysign":
        return _narrow_copysign(f, *args)
    if op == "nextafter":
        return _next_after(f, dtype, args)
    value = RULES[op](f, dtypes.float32, [widen(f, arg, dtype) for arg in args])
    return narrow(f, value, dtype) if result is dtype else value


def _narrow_sign(f: Function, op: str, value: Value, dtype: DType) -> Value:
    bits = f.bitcast(value, with_element(value.type, "i16"))
    changed = f.xor(bits, 0x8000) if op == "neg" else f.and_(bits, 0x7FFF)
    return f.bitcast(changed, value.type)


def philox(f: Function, seed: Value, offset: Value, position: Value) -> Value:
    """Philox 4x32-10 (Salmon et al., SC 2011): word position % 4 of block offset + position // 4,
    key seed; all i64 lanes.
    """
    lanes = lanes_of(position.type)
    block = f.add(f.lshr(position, 2), f.splat(offset, lanes))
    c0, c1, c2, c3 = philox_block(f, seed, block)
    word = f.and_(position, 3)
    low = f.select(f.icmp("eq", word, 0), c0, c1)
    high = f.select(f.icmp("eq", word, 2), c2, c3)
    return f.convert("trunc", f.select(f.icmp("ult", word, 2), low, high), vector_of("i32", lanes))


def philox_block(f: Function, seed: Value, block: Value) -> tuple[Value, Value, Value, Value]:
    """The four words of blocks, in lanes of i64."""
    seed = f.splat(seed, lanes_of(block.type))
    mask = 0xFFFFFFFF
    c0, c1 = f.and_(block, mask), f.lshr(block, 32)
    c2 = c3 = const(block.type, 0)
    k0, k1 = f.and_(seed, mask), f.lshr(seed, 32)
    for number in range(10):
        if number:
            k0, k1 = f.and_(f.add(k0, 0x9E3779B9), mask), f.and_(f.add(k1, 0xBB67AE85), mask)
        p0, p1 = f.mul(c0, 0xD2511F53), f.mul(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = (
            f.xor(f.xor(f.lshr(p1, 32), c1), k0),
            f.and_(p1, mask),
            f.xor(f.xor(f.lshr(p0, 32), c3), k1),
            f.and_(p0, mask),
        )
    return c0, c1, c2, c3
