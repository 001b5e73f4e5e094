"""The elementary functions, written once for scalars and vectors of f32 and f64.

In: a function under construction and its argument values.  Out: the value of exp, log, sin, pow,
... Each is range reduction and a polynomial, made of arithmetic, fma, sqrt, integer operations
and selects only: no libm, no `llvm.exp`, so the same text serves x86, AArch64 and PTX, and gives
the same bits on all of them and in any number of lanes.  Errors stay below 2 ulp, subnormals
included; special values are those of C99 Annex F.

The body of a function is emitted once a module, as `@lg.<name>.<type>`, and called.  A module may
carry `function_attributes` (appended to the body's) and `target_features` (LLVM's list with
commas: given +avx512f, powers of two are applied by one instruction, to the same bits).
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.llvm import elementary_error as error_functions
from lazygrad_compiler.llvm import elementary_exponential as exponential
from lazygrad_compiler.llvm import elementary_gamma as gamma
from lazygrad_compiler.llvm import elementary_logarithm as logarithm
from lazygrad_compiler.llvm import elementary_series as series
from lazygrad_compiler.llvm import elementary_trigonometric as trigonometric
from lazygrad_compiler.llvm.builder import BuilderError, Function, Value, element_of, mangle
from lazygrad_compiler.llvm.elementary_lanes import FORMATS, Lanes

Rule = Callable[..., Lanes]

ELEMENTARY: dict[str, Rule] = {
    "exp": exponential.exp, "exp2": exponential.exp2, "expm1": exponential.expm1,
    "log": logarithm.log, "log2": logarithm.log2, "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "sin": trigonometric.sin, "cos": trigonometric.cos, "tan": trigonometric.tan,
    "asin": trigonometric.asin, "acos": trigonometric.acos, "atan": trigonometric.atan,
    "sinh": exponential.sinh, "cosh": exponential.cosh, "tanh": exponential.tanh,
    "asinh": logarithm.asinh, "acosh": logarithm.acosh, "atanh": logarithm.atanh,
    "erf": error_functions.erf, "erfc": error_functions.erfc,
    "sigmoid": exponential.sigmoid,
    "pow": logarithm.pow, "atan2": trigonometric.atan2,
}

SPECIAL: dict[str, Rule] = {
    "lgamma": gamma.lgamma, "digamma": gamma.digamma, "erfinv": gamma.erfinv, "zeta": gamma.zeta,
    "zeta_positive": gamma.zeta_positive,
    "gammainc": series.gammainc, "gammaincc": series.gammaincc,
    "poisson_quantile": series.poisson_quantile,
    **series.ORTHOGONAL,
}
"""Computed in double precision whatever the format; their errors stand where they are written."""

ELEMENTARY |= SPECIAL

ARITY = dict.fromkeys(ELEMENTARY, 1) | dict.fromkeys(
    ("pow", "atan2", "zeta", "zeta_positive", "gammainc", "gammaincc", "poisson_quantile",
     *series.ORTHOGONAL), 2)

# Long bodies: a call costs little beside them, and code does not grow with each use.
OUT_OF_LINE = frozenset({
    ("pow", "float"), ("pow", "double"), ("erfc", "float"), ("erfc", "double"), ("erf", "double"),
    ("atan2", "float"), ("atan2", "double"), ("asinh", "float"), ("asinh", "double"),
    ("acosh", "float"), ("acosh", "double"), ("atanh", "double"),
    ("sin", "double"), ("cos", "double"), ("tan", "double"), ("tan", "float"),
    *((name, element) for name in SPECIAL for element in ("float", "double")),
})


def emit_elementary(name: str, function: Function, *arguments: Value) -> Value:
    """The value of an elementary function at the arguments: float, double or vectors of them.

    Raises BuilderError where the name, the number of arguments or their types do not fit.
    """
    if name not in ELEMENTARY:
        raise BuilderError(f"elementary: no function named {name}; there are {sorted(ELEMENTARY)}")
    types = [argument.type for argument in arguments]
    if len(arguments) != ARITY[name]:
        raise BuilderError(f"elementary {name}: {ARITY[name]} arguments expected, got {types}")
    type_ = types[0]
    if element_of(type_) not in FORMATS or types.count(type_) != len(types):
        raise BuilderError(
            f"elementary {name}: arguments of type {types}, expected float or double")
    symbol = f"lg.{name}.{mangle(type_)}"
    if function.module.once(symbol):
        _define(name, symbol, type_, function)
    return function.call(symbol, type_, *arguments)


def _define(name: str, symbol: str, type_: str, caller: Function) -> None:
    module = caller.module
    # PTX has calls, but a kernel keeps its registers only without them.
    out_of_line = (name, element_of(type_)) in OUT_OF_LINE and not module.triple.startswith("nvptx")
    attributes = ["noinline" if out_of_line else "alwaysinline", "nounwind", "willreturn",
                  "memory(none)", getattr(module, "function_attributes", "")]
    labels = ["x", "y"][: ARITY[name]]
    body = module.function(symbol, type_, [(type_, label) for label in labels],
                           " ".join(filter(None, attributes)), "internal")
    parameters = [Lanes(body, parameter) for parameter in body.parameters]
    body.ret(ELEMENTARY[name](*parameters).value)
