"""Integer functions that take more than an instruction."""

from __future__ import annotations

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Function, Value, const, lanes_of, mangle, with_element


def _count(f: Function, name: str, value: Value) -> Value:
    """Leading or trailing zeros; the width for 0."""
    return f.intrinsic(f"llvm.{name}.{mangle(value.type)}", value.type, value,
                       Value("i1", "false"))


def emit_gcd(f: Function, dtype: DType, args: list[Value]) -> Value:
    """The greatest common divisor by subtraction and shifts (J. Stein, "Computational problems
    associated with Racah algebra", 1967).

    Each step takes at least one bit from one of the two numbers, so the bits that both have bound
    the steps; lanes that are done subtract zero.
    """
    x, y = args
    zero = const(x.type, 0)
    if dtype.kind == "signed":
        x = f.select(f.icmp("slt", x, 0), f.sub(zero, x), x)
        y = f.select(f.icmp("slt", y, 0), f.sub(zero, y), y)
    either = f.or_(x, y)
    is_zero = f.icmp("eq", either, 0)
    shift = f.select(is_zero, zero, _count(f, "cttz", either))
    bits = f.sub(const(x.type, 2 * dtype.bits if dtype.bits > 8 else 16),
                 f.add(_count(f, "ctlz", x), _count(f, "ctlz", y)))
    wide = f.convert("zext", bits, with_element(x.type, "i64")) if dtype.bits < 64 else bits
    lanes = lanes_of(x.type)
    steps = wide if lanes == 1 else f.intrinsic(f"llvm.vector.reduce.umax.v{lanes}i64", "i64", wide)

    def without_twos(value: Value) -> Value:
        empty = f.icmp("eq", value, 0)
        return f.lshr(value, f.select(empty, zero, _count(f, "cttz", value)))

    with f.loop(const("i64", 0), steps, 1, [x, y], "gcd") as loop:
        a, b = (without_twos(value) for value in loop.carried)
        # where one is zero the other is the answer, and stays
        below = f.icmp("ult", a, b)
        larger, smaller = f.select(below, b, a), f.select(below, a, b)
        done = f.icmp("eq", smaller, 0)
        loop.next = [f.select(done, zero, f.sub(larger, smaller)), f.select(done, larger, smaller)]
    a, b = loop.results
    return f.shl(f.or_(without_twos(a), without_twos(b)), shift)
