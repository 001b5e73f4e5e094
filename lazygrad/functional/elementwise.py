"""Elementwise arithmetic: operators, comparisons, bits, elementary functions."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from operator import index as whole_number
from typing import Any

import numpy

from lazygrad._core import context, graph, placement
from lazygrad._core.context import (
    METHODS,
    TensorTypeError,
    fail,
    here,
    method,
    now,
    operation,
    refused,
)
from lazygrad._core.folding import folded
from lazygrad._core.recipes import remember
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap
from lazygrad.functional._operands import as_node, floating, pair
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.node import IRError, Node, build
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, OPS

placing = False
"""Whether another device than the CPU is in use (`placement.start`)."""

abs_of = builtins.abs  # this module's own abs is that of tensors
_NUMBERS = (Tensor, int, float, complex, numpy.generic, numpy.ndarray)

INPLACE: list[str] = []
"""Names of methods that also come as `name_`, written into the tensor."""


# ---- binary operations: node functions first, then everything public made from them


def _add(a: Node, b: Node) -> Node:
    return graph.make("or" if a.dtype is dtypes.bool_ else "add", a, b)


def _mul(a: Node, b: Node) -> Node:
    return graph.make("and" if a.dtype is dtypes.bool_ else "mul", a, b)


def _sub(a: Node, b: Node) -> Node:
    if a.dtype is dtypes.bool_:
        raise fail("sub", "bools are not subtracted", "Use a ^ b, or convert with .int().")
    return graph.make("sub", a, b)


def _true_divide(a: Node, b: Node) -> Node:
    return graph.make("div", floating(a), floating(b))


def _bool_as_int(a: Node) -> Node:
    return graph.cast(a, dtypes.int64) if a.dtype is dtypes.bool_ else a


def _divisor(name: str, b: Node) -> Node:
    """The divisor; an integer that is 0 is an error once values are computed."""
    if not b.dtype.is_integer or (b.op == "const" and b.attrs[0]):
        return b
    now.operation = name
    return graph.required(b, (graph.binary("ne", b, 0), requirements.DIVISORS))


def _remainder(a: Node, b: Node) -> Node:
    """The remainder with the divisor's sign."""
    a, b = _bool_as_int(a), _divisor("remainder", _bool_as_int(b))
    rest = graph.make("rem", a, b)
    if a.dtype.kind == "unsigned":
        return rest
    zero = graph.const(0, a.dtype, a.shape)
    differs = graph.make("ne", graph.make("lt", rest, zero), graph.make("lt", b, zero))
    wrong = graph.make("and", differs, graph.make("ne", rest, zero))
    return graph.where(wrong, graph.make("add", rest, b), rest)


def _floor_divide(a: Node, b: Node) -> Node:
    """The quotient rounded down."""
    a, b = _bool_as_int(a), _divisor("floor_divide", _bool_as_int(b))
    if a.dtype.is_floating:
        rest = graph.make("rem", a, b)
        quotient = graph.make("div", graph.make("sub", a, rest), b)
        zero = graph.const(0, a.dtype, a.shape)
        differs = graph.make("ne", graph.make("lt", b, zero), graph.make("lt", rest, zero))
        below = graph.make("and", graph.make("ne", rest, zero), differs)
        quotient = graph.where(below, graph.sub(quotient, 1), quotient)
        rounded = graph.unary("floor", quotient)
        up = graph.make("lt", graph.const(0.5, a.dtype, a.shape), graph.sub(quotient, rounded))
        rounded = graph.where(up, graph.add(rounded, 1), rounded)
        by_zero = graph.make("eq", b, zero)
        return graph.where(by_zero, graph.make("div", a, b), rounded)
    quotient = graph.make("idiv", a, b)
    if a.dtype.kind == "unsigned":
        return quotient
    rest = graph.make("rem", a, b)
    zero = graph.const(0, a.dtype, a.shape)
    differs = graph.make("ne", graph.make("lt", rest, zero), graph.make("lt", b, zero))
    below = graph.make("and", differs, graph.make("ne", rest, zero))
    return graph.where(below, graph.sub(quotient, 1), quotient)


def _power(a: Node, b: Node) -> Node:
    a, b = _bool_as_int(a), _bool_as_int(b)
    return graph.make("pow", a, b)


def _plain(name: str) -> Callable[[Node, Node], Node]:
    definition = OPS[name]
    return lambda a, b: build(definition, (a, b), (), now.location)


def _swapped(name: str) -> Callable[[Node, Node], Node]:
    definition = OPS[name]
    return lambda a, b: build(definition, (b, a), (), now.location)


def _logical(name: str) -> Callable[[Node, Node], Node]:
    return lambda a, b: graph.make(name, graph.cast(a, dtypes.bool_), graph.cast(b, dtypes.bool_))


def _hypot(a: Node, b: Node) -> Node:
    """The root of a² + b²: in float64 after scaling by powers of two, else by way of float64, so
    that squares neither overflow nor vanish; infinite where either is, even beside NaN.
    """
    if a.dtype.is_complex:
        raise fail("hypot", f"is not defined for {a.dtype.name}", "Take .abs() of the operands.",
                   TensorTypeError)
    dtype = a.dtype
    a, b = graph.cast(a, dtypes.float64), graph.cast(b, dtypes.float64)
    sizes = [graph.unary("abs", graph.stop_gradient(x)) for x in (a, b)]
    infinite = graph.make("or", *(graph.binary("eq", size, math.inf) for size in sizes))
    if dtype is not dtypes.float64:
        root = graph.unary("sqrt", graph.add(graph.mul(a, a), graph.mul(b, b)))
        return graph.cast(graph.where(infinite, math.inf, root), dtype)
    size = graph.make("maximum", *sizes)
    large = graph.binary("lt", graph.like(1e150, size), size)
    small = graph.binary("lt", size, 1e-150)
    shrink = graph.where(large, graph.like(2.0**-600, size), 1.0)
    shrink = graph.where(small, 2.0**600, shrink)
    grow = graph.where(small, 2.0**-600, graph.where(large, graph.like(2.0**600, size), 1.0))
    a, b = graph.mul(a, shrink), graph.mul(b, shrink)
    root = graph.mul(graph.unary("sqrt", graph.add(graph.mul(a, a), graph.mul(b, b))), grow)
    return graph.where(infinite, math.inf, root)


def log_of_sum(exponential: str, unit: float) -> Callable[[Node, Node], Node]:
    """The logarithm of the sum of two powers: the larger exponent, and what the gap adds; of
    complex ones, that of the larger real part.

    Either exponent may stand for the larger one where they are equal, since the formula is smooth
    there: so all derivatives are right at ties, too.
    """
    def compute(a: Node, b: Node) -> Node:
        real_a, real_b = (graph.unary("real", x) if x.dtype.is_complex else x for x in (a, b))
        first = graph.make("or", graph.make("le", real_b, real_a),
                           graph.make("ne", real_a, real_a))
        top, bottom = graph.where(first, a, b), graph.where(first, b, a)
        infinite = graph.make("eq", graph.unary("abs", real_a), graph.like(math.inf, real_a))
        same = graph.make("and", infinite, graph.make("eq", real_a, real_b))
        gap = graph.where(same, 0.0, graph.sub(bottom, top))
        rest = graph.unary("log1p", graph.unary(exponential, gap))
        return graph.add(top, rest if unit == 1 else graph.mul(rest, unit))
    return compute


def _fmax(larger: bool) -> Callable[[Node, Node], Node]:
    """The larger (smaller) of two numbers, the other one where one is NaN."""
    def compute(a: Node, b: Node) -> Node:
        first = graph.make("le", b, a) if larger else graph.make("le", a, b)
        return graph.where(graph.make("or", first, graph.make("ne", b, b)), a, b)
    return compute


BINARY: dict[str, Callable[[Node, Node], Node]] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _true_divide, "remainder": _remainder,
    "floor_divide": _floor_divide, "pow": _power,
    "fmod": lambda a, b: graph.make("rem", _bool_as_int(a), _divisor("fmod", _bool_as_int(b))),
    "maximum": _plain("maximum"), "minimum": _plain("minimum"),
    "fmax": _fmax(larger=True), "fmin": _fmax(larger=False),
    "eq": _plain("eq"), "ne": _plain("ne"), "lt": _plain("lt"), "le": _plain("le"),
    "gt": _swapped("lt"), "ge": _swapped("le"),
    "bitwise_and": _plain("and"), "bitwise_or": _plain("or"), "bitwise_xor": _plain("xor"),
    "bitwise_left_shift": _plain("shl"), "bitwise_right_shift": _plain("shr"),
    "logical_and": _logical("and"), "logical_or": _logical("or"), "logical_xor": _logical("xor"),
    "atan2": lambda a, b: graph.make("atan2", floating(a), floating(b)),
    "hypot": _hypot, "logaddexp": log_of_sum("exp", 1.0),
    "logaddexp2": log_of_sum("exp2", 1 / math.log(2.0)),
}
"""Node functions of two operands of one dtype and shape."""


def _check_exponent(base: Any, exponent: Any) -> None:
    """Whole numbers have no whole reciprocals."""
    if isinstance(exponent, int) and exponent < 0 and isinstance(base, Tensor) \
            and (base.dtype.is_integer or base.dtype.kind == "bool"):
        raise fail("pow", f"whole numbers to the power of {exponent} are no whole numbers",
                   f"Convert with .float(), or raise to the power of {exponent}.0.")


_CHECKS: dict[str, Callable[[Any, Any], None]] = {"pow": _check_exponent}
"""What operands, as the user gives them, have to fulfil beyond having a common dtype and shape."""


def _operator(name: str, reflected: bool = False) -> Callable[..., Any]:
    """The dunder method: the shortest way from two operands to a recorded node."""
    compute = BINARY[name]
    check = None if reflected else _CHECKS.get(name)

    @folded
    def broadcast(left: Tensor, right: Tensor) -> Tensor:
        return wrap(compute(*pair(name, left, right)))

    recipes: list[Any] = []

    def apply(left: Any, right: Any) -> Any:
        outermost = not now.location
        if outermost:
            now.location = here()
        try:
            if not isinstance(right, _NUMBERS):
                return NotImplemented
            if check is not None:
                check(left, right)
            if placing:
                left, right = placement.operands(name, left, right)
            if right.__class__ is Tensor and shape_of(left) != shape_of(right):
                result = broadcast(left, right)
                if outermost and not placing and not next(context.calls) % context.SAMPLED:
                    remember(recipes, name, (left, right), result)
                return result
            a, b = pair(name, right, left) if reflected else pair(name, left, right)
            result = wrap(compute(a, b))
            if outermost and not placing and not next(context.calls) % context.SAMPLED:
                remember(recipes, name, (left, right), result)
            return result
        except IRError as error:
            raise refused(error, str(error)) from None
        finally:
            if outermost:
                now.location = ()

    apply.recipes = recipes  # type: ignore[attr-defined]
    return apply


def _named(name: str) -> Callable[..., Any]:
    compute = BINARY[name]
    check = _CHECKS.get(name)

    def apply(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        if check is not None:
            check(input, other)
        return wrap(compute(*pair(name, input, other)))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Elementwise {name.replace('_', ' ')} of tensors or numbers; broadcasts."
    return apply


for _name in BINARY:
    if _name not in ("add", "sub", "div"):
        globals()[_name] = method(_named(_name))
        INPLACE.append(_name)
INPLACE += ["add", "sub", "div"]


@method
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input + alpha * other."""
    if alpha != 1:
        other = globals()["mul"](other, alpha)
    return wrap(_add(*pair("add", input, other)))


@method
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input - alpha * other."""
    if alpha != 1:
        other = globals()["mul"](other, alpha)
    return wrap(_sub(*pair("sub", input, other)))


@method
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; rounding_mode "floor" or "trunc" rounds the quotient."""
    a, b = pair("div", input, other)
    if rounding_mode == "floor":
        return wrap(_floor_divide(a, b))
    if rounding_mode == "trunc":
        return wrap(graph.unary("trunc", graph.make("div", a, b)) if a.dtype.is_floating
                    else graph.make("idiv", _bool_as_int(a), _divisor("div", _bool_as_int(b))))
    if rounding_mode is not None:
        raise fail("div", f"rounding_mode {rounding_mode!r}; there are None, 'floor' and 'trunc'")
    return wrap(_true_divide(a, b))


@operation
def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


OPERATORS: dict[str, Callable[..., Any]] = {
    f"__{python}__": _operator(name) for python, name in [
        ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"),
        ("floordiv", "floor_divide"), ("mod", "remainder"), ("pow", "pow"),
        ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"),
        ("lshift", "bitwise_left_shift"), ("rshift", "bitwise_right_shift"),
        ("eq", "eq"), ("ne", "ne"), ("lt", "lt"), ("le", "le"), ("gt", "gt"), ("ge", "ge")]
} | {
    f"__r{python}__": _operator(name, reflected=True) for python, name in [
        ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"),
        ("floordiv", "floor_divide"), ("mod", "remainder"), ("pow", "pow"),
        ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"),
        ("lshift", "bitwise_left_shift"), ("rshift", "bitwise_right_shift")]
}


# ---- unary operations


def sigmoid_node(x: Node) -> Node:
    """1 / (1 + exp(-x)), with the exponential of -|x| only: nothing overflows either way."""
    if x.dtype.is_complex:
        power = graph.unary("exp", graph.unary("neg", x))
        return graph.div(graph.like(1, x), graph.add(power, 1))
    return graph.unary("sigmoid", x)


def _frac(x: Node) -> Node:
    return graph.sub(x, graph.unary("trunc", x))


def _whole(name: str) -> Callable[[Node], Node]:
    return lambda x: graph.unary(name, x) if x.dtype.is_differentiable else x


def _abs(x: Node) -> Node:
    return x if x.dtype.kind in ("bool", "unsigned") else graph.unary("abs", x)


def _sign(x: Node) -> Node:
    if x.dtype.is_complex:
        raise fail("sign", f"is not defined for {x.dtype.name}", "Use sgn, which is x / |x|.",
                   TensorTypeError)
    if x.dtype is dtypes.bool_:
        return x
    result = graph.unary("sign", x)
    # PyTorch's sign of NaN is 0; that of the op is NaN
    return graph.where(graph.make("ne", x, x), 0, result) if x.dtype.is_floating else result


def _neg(x: Node) -> Node:
    if x.dtype is dtypes.bool_:
        raise fail("neg", "bools are not negated", "Use ~x.")
    return graph.unary("neg", x)


def _same(x: Node) -> Node:
    return x


_ANY: dict[str, Callable[[Node], Node]] = {
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "floor": _whole("floor"),
    "ceil": _whole("ceil"),
    "trunc": _whole("trunc"),
    "square": lambda x: (
        _power(x, graph.const(2, _bool_as_int(x).dtype, x.shape))
        if not x.dtype.is_differentiable
        else graph.mul(x, x)
    ),
    "frac": _frac,
    "positive": _same,
    "bitwise_not": lambda x: graph.unary("not", x),
    "logical_not": lambda x: graph.unary("not", graph.cast(x, dtypes.bool_)),
    "isnan": lambda x: graph.make("ne", x, x),
}
_FLOAT: dict[str, Callable[[Node], Node]] = {
    name: (lambda op: lambda x: graph.unary(op, x))(name) for name in (*ELEMENTARY_UNARY, "sqrt")
} | {
    "sigmoid": sigmoid_node,
    "rsqrt": lambda x: graph.div(graph.const(1, x.dtype, x.shape), graph.unary("sqrt", x)),
    "reciprocal": lambda x: graph.div(graph.const(1, x.dtype, x.shape), x),
    "deg2rad": lambda x: graph.mul(x, math.pi / 180),
    "rad2deg": lambda x: graph.mul(x, 180 / math.pi),
}
ALIASES = {
    "neg": "negative", "abs": "absolute", "trunc": "fix", "asin": "arcsin", "acos": "arccos",
    "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "atan2": "arctan2",
    "sub": "subtract", "mul": "multiply", "gt": "greater", "ge": "greater_equal",
    "lt": "less", "le": "less_equal", "ne": "not_equal",
}


def _unary(name: str, compute: Callable[[Node], Node], as_float: bool) -> Callable[..., Any]:
    def apply(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        node = as_node(name, input)
        return wrap(compute(floating(node) if as_float else node))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Elementwise {name.replace('_', ' ')}."
    return apply


for _name, _compute in _ANY.items():
    globals()[_name] = method(_unary(_name, _compute, False))
    INPLACE.append(_name)
for _name, _compute in _FLOAT.items():
    globals()[_name] = method(_unary(_name, _compute, True))
    INPLACE.append(_name)
for _name, _alias in ALIASES.items():
    globals()[_alias] = METHODS[_alias] = globals()[_name]
    INPLACE.append(_alias)
INPLACE.remove("isnan")
METHODS["true_divide"] = METHODS["divide"] = true_divide = divide = div
INPLACE += ["true_divide", "divide"]


@method
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest whole number (or decimal), ties to even."""
    node = as_node("round", input)
    if not node.dtype.is_differentiable:
        return wrap(node)
    if whole_number(decimals):
        scale = 10.0 ** abs_of(decimals)
        if decimals < 0:
            return wrap(graph.mul(graph.unary("round", graph.div(node, scale)), scale))
        return wrap(graph.div(graph.unary("round", graph.mul(node, scale)), scale))
    return wrap(graph.unary("round", node))


def parts(node: Node) -> tuple[Node, Node]:
    """Real and imaginary part of a complex node."""
    return graph.unary("real", node), graph.unary("imag", node)


@method
def isinf(input: Tensor) -> Tensor:
    """Where values are infinite."""
    node = as_node("isinf", input)
    if node.dtype.is_complex:
        return wrap(graph.make("or", *(graph.binary("eq", graph.unary("abs", part), math.inf)
                                       for part in parts(node))))
    if not node.dtype.is_floating:
        return wrap(graph.const(False, dtypes.bool_, node.shape))
    return wrap(graph.binary("eq", graph.unary("abs", node), math.inf))


@method
def isfinite(input: Tensor) -> Tensor:
    """Where values are neither infinite nor NaN."""
    node = as_node("isfinite", input)
    if node.dtype.is_complex:
        return wrap(graph.make("and", *(graph.binary("lt", graph.unary("abs", part), math.inf)
                                        for part in parts(node))))
    if not node.dtype.is_floating:
        return wrap(graph.const(True, dtypes.bool_, node.shape))
    return wrap(graph.binary("lt", graph.unary("abs", node), math.inf))


@method
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced, by default with 0 and the largest finite numbers."""
    from lazygrad._core.types import finfo
    node = as_node("nan_to_num", input)
    if node.dtype.is_complex:
        clean = (node_of(nan_to_num(wrap(part), nan, posinf, neginf)) for part in parts(node))
        return wrap(graph.make("complex", *clean))
    if not node.dtype.is_floating:
        return wrap(node)
    limits = finfo(node.dtype)
    node = graph.where(graph.make("ne", node, node), nan, node)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    node = graph.where(graph.binary("eq", node, math.inf), high, node)
    return wrap(graph.where(graph.binary("eq", node, -math.inf), low, node))


INPLACE += ["round", "nan_to_num"]

PUBLIC = [*BINARY, *_ANY, *_FLOAT, *ALIASES.values(), "rsub", "round", "isinf", "isfinite",
          "nan_to_num", "true_divide", "divide"]
__all__ = list(dict.fromkeys(PUBLIC))
