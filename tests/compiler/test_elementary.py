"""Elementary functions: accuracy against longer arithmetic, special values, lane counts, PTX.

Every function is compiled with the host's features in a loop over vectors and in one over
scalars.  Truth for f32 is f64 NumPy or torch, for f64 it is mpmath at 60 digits.  Errors are in
units in the last place of the format, which below the smallest normal number is the subnormal
spacing.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from mpmath import mp, mpf

from lazygrad_compiler.llvm import builder, elementary_fit
from lazygrad_compiler.llvm.elementary import ARITY, ELEMENTARY, SPECIAL, emit_elementary
from lazygrad_compiler.llvm.elementary_coefficients import CONSTANTS, POLYNOMIALS

NAMES = sorted(set(ELEMENTARY) - set(SPECIAL))  # those: test_elementary_special.py
UNARY = [name for name in NAMES if ARITY[name] == 1]
DTYPES = {"float": np.float32, "double": np.float64}
VECTOR = {"float": 16, "double": 8}
MAX_ULP = 2.0
INF, NAN = math.inf, math.nan


# ---- compiling and running


class Compiled:
    """All elementary functions of one element type and lane count, as loops over arrays."""

    def __init__(self, element: str, lanes: int, target_features: str = "") -> None:
        self.element, self.lanes = element, lanes
        module = builder.Module()
        module.target_features = target_features
        type_ = builder.vector_of(element, lanes)
        for name in NAMES:
            pointers = [("ptr", label) for label in ("out", "x", "y")[: 1 + ARITY[name]]]
            function = module.function(f"loop_{name}", "void", [*pointers, ("i64", "count")])
            out, *inputs, count = function.parameters
            with function.loop(0, count, lanes) as loop:
                values = [function.load(type_, function.offset(pointer, loop.index, element), 4)
                          for pointer in inputs]
                result = emit_elementary(name, function, *values)
                function.store(result, function.offset(out, loop.index, element), 4)
            function.ret()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        parsed = llvm.parse_assembly(module.text())
        parsed.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(),
            opt=2, jit=True)
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()

    def __call__(self, name: str, *arrays: np.ndarray) -> np.ndarray:
        dtype = DTYPES[self.element]
        count = arrays[0].size
        padded = -(-count // self.lanes) * self.lanes
        inputs = [np.ascontiguousarray(np.resize(array.astype(dtype), padded)) for array in arrays]
        out = np.empty(padded, dtype)
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (1 + len(arrays)), ctypes.c_int64)
        run = signature(self._engine.get_function_address(f"loop_{name}"))
        run(out.ctypes.data, *[array.ctypes.data for array in inputs], padded)
        return out[:count]


_compiled: dict[tuple[str, int], Compiled] = {}


def compiled(element: str, lanes: int) -> Compiled:
    if (element, lanes) not in _compiled:
        _compiled[element, lanes] = Compiled(element, lanes)
    return _compiled[element, lanes]


def same_values(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal bits, except that every NaN is one value."""
    bits = np.uint32 if left.dtype == np.float32 else np.uint64
    return bool(np.all((left.view(bits) == right.view(bits)) | (np.isnan(left) & np.isnan(right))))


# ---- f32 against f64


def by_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., np.ndarray]:
    return lambda x: function(torch.from_numpy(x)).numpy()


TRUTH_F32: dict[str, Callable[..., np.ndarray]] = {
    **{name: getattr(np, name) for name in
       ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh",
        "cosh", "tanh")},
    **{name: getattr(np, "arc" + name[1:]) for name in
       ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    "erf": by_torch(torch.special.erf), "erfc": by_torch(torch.special.erfc),
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1.0) / (1.0 + np.exp(-np.abs(x))),
    "pow": np.power,
}


def ulp_errors(got: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors of f32 results; infinite where NaN, an infinity or the sign of a zero is wrong."""
    with np.errstate(all="ignore"):
        rounded = truth.astype(np.float32)
        spacing = np.spacing(np.maximum(np.abs(rounded), np.float32(2.0**-126)))
        errors = np.abs(got.astype(np.float64) - truth) / spacing
    errors = np.where(np.isinf(rounded) | np.isinf(got), INF, errors)
    largest = np.finfo(np.float32).max
    # Next to the overflow threshold the largest number and infinity are one ulp apart.
    borderline = (np.abs(truth) < 2.0**128 * (1 + 2.0**-24)) & (np.abs(truth) >= largest)
    borderline &= (np.abs(got) >= largest) & (np.signbit(got) == np.signbit(truth))
    errors = np.where(borderline, 1.0, errors)
    errors = np.where(got == rounded, np.where(np.isinf(got), 0.0, np.fmin(errors, 1.0)), errors)
    errors = np.where(np.isnan(got) | np.isnan(rounded), INF, errors)
    errors = np.where(np.isnan(got) & np.isnan(rounded), 0.0, errors)
    wrong_sign = (got == 0) & (rounded == 0) & (np.signbit(got) != np.signbit(truth))
    return np.where(wrong_sign, INF, errors)


def samples_f32(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Bit patterns of all kinds, and regions where a reduction or a cancellation is at work."""
    random = np.random.default_rng(seed)

    def uniform(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, count).astype(np.float32)

    def patterns() -> np.ndarray:
        return random.integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)

    if name == "pow":
        return [np.abs(np.concatenate([patterns(), uniform(0.9, 1.1), uniform(0, 10), patterns(),
                                       uniform(0, 100)])),
                np.concatenate([patterns(), uniform(-1000, 1000), uniform(-40, 40),
                                uniform(-3, 3), uniform(-20, 20)])]
    if name == "atan2":
        return [np.concatenate([patterns(), uniform(-10, 10), uniform(-1, 1)]),
                np.concatenate([patterns(), uniform(-10, 10), uniform(-3, 3)])]
    quarter_turns = (random.integers(0, 1 << 17, count) * (math.pi / 2)).astype(np.float32)
    return [np.concatenate([patterns(), uniform(-1, 1), uniform(-10, 10), uniform(-104, 90),
                            1 + uniform(-0.1, 0.1), uniform(-2e5, 2e5), quarter_turns])]


def assert_accurate_f32(name: str, inputs: list[np.ndarray], got: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        truth = TRUTH_F32[name](*[array.astype(np.float64) for array in inputs])
    errors = ulp_errors(got, truth)
    worst = int(np.argmax(errors))
    assert errors[worst] <= MAX_ULP, (
        f"{name}{tuple(float(array[worst]) for array in inputs)} = {got[worst]!r}, "
        f"expected {truth[worst]!r}: {errors[worst]:.2f} ulp")


@pytest.mark.parametrize("name", NAMES)
def test_f32_accuracy_and_same_bits_in_any_lane_count(name: str) -> None:
    inputs = samples_f32(name, 40_000)
    got = compiled("float", 16)(name, *inputs)
    assert same_values(got, compiled("float", 1)(name, *inputs))
    assert_accurate_f32(name, inputs, got)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNARY)
def test_f32_accuracy_over_the_whole_format(name: str) -> None:
    """Every 17th bit pattern; the sweep of all of them takes some minutes a function."""
    for start in range(0, 1 << 32, 1 << 28):
        patterns = np.arange(start + start // (1 << 28), start + (1 << 28), 17, dtype=np.uint32)
        inputs = [patterns.view(np.float32)]
        assert_accurate_f32(name, inputs, compiled("float", 16)(name, *inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_f32_accuracy_of_two_arguments_on_many_points(name: str) -> None:
    for seed in range(1, 20):
        inputs = samples_f32(name, 1 << 20, seed)
        assert_accurate_f32(name, inputs, compiled("float", 16)(name, *inputs))


# ---- f64 against mpmath


def beyond(limit: float, function: Callable, below: object, above: object) -> Callable:
    """The function, with its limits where mpmath would make huge numbers."""
    return lambda x: below if x < -limit else above if x > limit else function(x)


def inside(low: float, high: float, function: Callable) -> Callable:
    return lambda x: function(x) if low <= x <= high else mp.nan


def power(x: object, y: object) -> object:
    exponent = y * mp.log(x) if x > 0 else -INF * y
    return beyond(1e5, mp.exp, mpf(0), mp.inf)(exponent)


TRUTH_F64: dict[str, Callable] = {
    "exp": beyond(1e4, mp.exp, mpf(0), mp.inf),
    "exp2": beyond(1e4, lambda x: mp.power(2, x), mpf(0), mp.inf),
    "expm1": beyond(1e4, mp.expm1, mpf(-1), mp.inf),
    "log": inside(0, INF, mp.log), "log2": inside(0, INF, lambda x: mp.log(x, 2)),
    "log10": inside(0, INF, mp.log10), "log1p": inside(-1, INF, mp.log1p),
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan,
    "asin": inside(-1, 1, mp.asin), "acos": inside(-1, 1, mp.acos), "atan": mp.atan,
    "sinh": beyond(1e4, mp.sinh, -mp.inf, mp.inf), "cosh": beyond(1e4, mp.cosh, mp.inf, mp.inf),
    "tanh": beyond(1e3, mp.tanh, mpf(-1), mpf(1)),
    "asinh": mp.asinh, "acosh": inside(1, INF, mp.acosh), "atanh": inside(-1, 1, mp.atanh),
    "erf": beyond(100, mp.erf, mpf(-1), mpf(1)), "erfc": beyond(100, mp.erfc, mpf(2), mpf(0)),
    "sigmoid": beyond(1e4, lambda x: 1 / (1 + mp.exp(-x)), mpf(0), mpf(1)),
    "pow": power, "atan2": mp.atan2,
}

# Where mpmath itself cancels: asinh(x) = log(x + sqrt(x*x + 1)) and the like.
NEED_MORE_DIGITS = {"asinh", "atan"}


def ulp_error_f64(got: float, truth: object) -> float:
    if mp.isnan(truth) or math.isnan(got):
        return 0.0 if mp.isnan(truth) and math.isnan(got) else INF
    magnitude = max(abs(truth), mpf(2) ** -1022)
    threshold = mpf(2) ** 1024 * (1 - mpf(2) ** -54)
    if math.isinf(got) or magnitude >= threshold:
        near = abs(magnitude / threshold - 1) < mpf(2) ** -53
        overflows = math.isinf(got) and magnitude >= threshold
        return 0.0 if (got > 0) == (truth > 0) and (near or overflows) else INF
    return float(abs(mpf(got) - truth) / mpf(2) ** (mp.frexp(magnitude)[1] - 53))


def samples_f64(name: str, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)

    def uniform(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, count)

    def patterns() -> np.ndarray:
        bits = random.integers(0, 0x7FF0 << 48, count, dtype=np.uint64).view(np.float64)
        return bits * random.choice([-1.0, 1.0], count)

    if name == "pow":
        return [np.concatenate([abs(patterns()), uniform(0.9, 1.1), uniform(0, 10),
                                np.exp2(uniform(-1022, 1023)), 1 + uniform(-1e-6, 1e-6)]),
                np.concatenate([uniform(-1, 1), uniform(-4000, 4000), uniform(-300, 300),
                                uniform(-1.1, 1.1), uniform(-7e8, 7e8)])]
    if name == "atan2":
        return [np.concatenate([patterns(), uniform(-1, 1), uniform(-3, 3), patterns()]),
                np.concatenate([patterns(), uniform(-1, 1), uniform(-1, 1), patterns()])]
    logarithmic = np.exp2(uniform(-60, 10)) * random.choice([-1.0, 1.0], count)
    regions = [patterns(), logarithmic, uniform(-1, 1), uniform(-3, 3), uniform(-40, 40)]
    if name in ("exp", "exp2", "expm1", "sinh", "cosh", "sigmoid"):
        regions.append(uniform(-1075, 1025) if name == "exp2" else uniform(-746, 711))
    elif name in ("sin", "cos", "tan"):
        # The last is the double nearest to a multiple of pi/2 (Muller 2006, table 11.1).
        regions += [random.integers(0, 1 << 40, count) * (math.pi / 2), uniform(-1e6, 1e6),
                    uniform(-(2.0**28), 2.0**28), np.array([6381956970095103.0 * 2.0**797])]
    elif name in ("log", "log2", "log10", "acosh"):
        regions += [np.abs(patterns()), 1 + uniform(-0.3, 0.5), 1 + np.abs(logarithmic)]
    elif name in ("erf", "erfc"):
        regions += [uniform(0, 27.3), uniform(0.4, 2), uniform(0.45, 0.6)]
    return [np.concatenate(regions)]


@pytest.mark.parametrize("name", NAMES)
def test_f64_accuracy_and_same_bits_in_any_lane_count(name: str) -> None:
    inputs = samples_f64(name, 500)
    got = compiled("double", 8)(name, *inputs)
    assert same_values(got, compiled("double", 1)(name, *inputs))
    worst = (0.0, "")
    for result, *point in zip(got.tolist(), *[array.tolist() for array in inputs]):
        extreme = any(abs(x) > 1e15 or abs(x) < 1e-15 for x in point)
        with mp.workdps(700 if name in NEED_MORE_DIGITS and extreme else 60):
            truth = TRUTH_F64[name](*map(mpf, point))
            error = ulp_error_f64(result, truth)
        if error > worst[0]:
            worst = (error, f"{name}{tuple(point)} = {result!r}, expected {mp.nstr(truth, 20)}")
    assert worst[0] <= MAX_ULP, worst


@pytest.mark.parametrize("element", DTYPES)
def test_avx512_scaling_gives_the_same_bits(element: str) -> None:
    if not llvm.get_host_cpu_features().get("avx512f"):
        pytest.skip("this machine has no AVX-512")
    lanes = VECTOR[element]
    scaling = Compiled(element, lanes, "+avx2,+avx512f")
    samples = samples_f32 if element == "float" else samples_f64
    for name in ("exp", "exp2", "sinh", "cosh", "erfc", "sigmoid", "pow"):
        inputs = samples(name, 20_000)
        assert same_values(scaling(name, *inputs), compiled(element, lanes)(name, *inputs)), name


# ---- special values


def specials(dtype: type) -> list[float]:
    info = np.finfo(dtype)
    positive = [0.0, float(info.smallest_subnormal), float(info.tiny), 0.5, 1.0,
                float(np.nextafter(dtype(1), dtype(2))), float(info.max), INF]
    return [*positive, *[-x for x in positive], NAN]


def assert_same_special_values(name: str, element: str, inputs: list[np.ndarray]) -> None:
    dtype = DTYPES[element]
    with np.errstate(all="ignore"):
        truth = TRUTH_F32[name](*[array.astype(np.float64) for array in inputs]).astype(dtype)
    for lanes in (1, VECTOR[element]):
        got = compiled(element, lanes)(name, *inputs)
        for index, (result, expected) in enumerate(zip(got.tolist(), truth.tolist())):
            where = (name, lanes, [float(array[index]) for array in inputs], result, expected)
            if math.isnan(expected):
                assert math.isnan(result), where
            elif expected == 0 or math.isinf(expected):
                assert result == expected, where
                assert math.copysign(1, result) == math.copysign(1, expected), where
            else:
                # Twice the ulp asked for elsewhere: the truth in f64 has errors of its own.
                spacing = float(np.spacing(dtype(abs(expected) / 2)))
                assert abs(result - expected) <= 4 * spacing, where


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, element: str) -> None:
    assert_same_special_values(name, element, [np.array(specials(DTYPES[element]))])


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_special_values_of_two_arguments(name: str, element: str) -> None:
    odd = 2.0 ** (24 if element == "float" else 53) - 1
    values = [*specials(DTYPES[element]), 2.0, -2.0, 3.0, -3.0, 2.5, -2.5, odd, -odd, odd + 1]
    grid = np.array([(x, y) for x in values for y in values])
    assert_same_special_values(name, element, [grid[:, 0], grid[:, 1]])


@pytest.mark.parametrize("element", DTYPES)
def test_pow_agrees_with_annex_f(element: str) -> None:
    table = [(NAN, 0.0, 1.0), (INF, -0.0, 1.0), (1.0, NAN, 1.0), (1.0, INF, 1.0), (-1.0, -INF, 1.0),
             (-0.0, -3.0, -INF), (-0.0, -2.0, INF), (0.0, -0.5, INF), (-0.0, 3.0, -0.0),
             (-0.0, 0.5, 0.0), (-8.0, 1.0 / 3.0, NAN), (-2.0, 3.0, -8.0), (-2.0, -2.0, 0.25),
             (-INF, 3.0, -INF), (-INF, -3.0, -0.0), (-INF, 0.5, INF), (0.5, INF, 0.0),
             (0.5, -INF, INF), (2.0, INF, INF), (2.0, -INF, 0.0), (NAN, 1.0, NAN), (2.0, NAN, NAN)]
    x, y, expected = (np.array(column, DTYPES[element]) for column in zip(*table))
    assert same_values(compiled(element, VECTOR[element])("pow", x, y), expected)


@pytest.mark.parametrize("element", DTYPES)
def test_exact_results_stay_exact(element: str) -> None:
    run = compiled(element, VECTOR[element])
    powers = np.arange(-140, 128, dtype=DTYPES[element])
    assert same_values(run("exp2", powers), np.ldexp(DTYPES[element](1), powers.astype(int)))
    assert same_values(run("log2", np.ldexp(DTYPES[element](1), powers.astype(int))), powers)
    integers = np.arange(-20, 21, dtype=DTYPES[element])
    assert same_values(run("pow", integers, np.full_like(integers, 2)), integers * integers)
    assert same_values(run("pow", integers, np.full_like(integers, 3)), integers**3)
    assert run("exp", np.zeros(1))[0] == 1 and run("cos", np.zeros(1))[0] == 1


# ---- the polynomials, the emitted text, the other target


@pytest.mark.parametrize("fit", elementary_fit.fits(), ids=lambda fit: f"{fit.name}-{fit.low}")
def test_polynomials_fit_what_they_are_named_after(fit: elementary_fit.Fit) -> None:
    for element in fit.degrees:
        coefficients = [mpf(c) for c in POLYNOMIALS[fit.name, element][::-1]]
        low, high = mpf(fit.low), mpf((fit.high_of or {}).get(element, fit.high))
        bound = {"float": mpf(2) ** -26.5, "double": mpf(2) ** -56}[element]
        with mp.workdps(50):
            for step in range(50):
                t = low + (high - low) * (step + mpf(1) / 3) / 50
                error = fit.weight(t) * abs(fit.function(t) - mp.polyval(coefficients, t))
                assert error < bound, (element, t)


def test_constants_are_split_as_the_fitting_script_splits_them() -> None:
    with mp.workdps(120):
        for name, value in elementary_fit.constants().items():
            for element in DTYPES:
                assert tuple(elementary_fit.split(element, value, 3)) == CONSTANTS[name, element]


def emit_all(element: str, lanes: int, triple: str = "") -> builder.Module:
    module = builder.Module(triple)
    type_ = builder.vector_of(element, lanes)
    for name in NAMES:
        parameters = [(type_, label) for label in ("x", "y")[: ARITY[name]]]
        function = module.function(f"use_{name}", type_, parameters)
        function.ret(emit_elementary(name, function, *function.parameters))
    return module


@pytest.mark.parametrize("element", DTYPES)
def test_only_intrinsics_that_every_target_has(element: str) -> None:
    text = emit_all(element, VECTOR[element]).text()
    declared = set(re.findall(r"^declare .*@llvm\.([a-z.]+?)\.v?\d*[a-z]*\d", text, re.MULTILINE))
    assert "fma" in declared
    assert declared <= {"fma", "fabs", "copysign", "sqrt", "trunc", "vector.reduce.or",
                        "masked.gather"}
    assert not re.search(r"\b(fast|contract|afn|reassoc)\b", text)


@pytest.mark.parametrize("element", DTYPES)
def test_ptx_without_calls(element: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "nvptx64-nvidia-cuda"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu="sm_80", opt=3)
    parsed = llvm.parse_assembly(emit_all(element, 1, triple).text())
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes.getModulePassManager().run(parsed, passes)
    ptx = machine.emit_assembly(parsed)
    assert "use_pow" in ptx
    assert not re.search(r"^\s*call", ptx, re.MULTILINE)


def test_a_body_is_emitted_once() -> None:
    module = builder.Module()
    function = module.function("f", "float", [("float", "x")])
    once = emit_elementary("exp", function, *function.parameters)
    function.ret(emit_elementary("exp", function, once))
    assert module.text().count("define internal float @lg.exp.f32") == 1


def test_wrong_arguments_are_named() -> None:
    parameters = [("i32", "i"), ("float", "x"), ("double", "y")]
    function = builder.Module().function("f", "void", parameters)
    i, x, y = function.parameters
    with pytest.raises(builder.BuilderError, match="no function named exq"):
        emit_elementary("exq", function, x)
    with pytest.raises(builder.BuilderError, match="2 arguments expected"):
        emit_elementary("pow", function, x)
    with pytest.raises(builder.BuilderError, match="expected float or double"):
        emit_elementary("exp", function, i)
    with pytest.raises(builder.BuilderError, match="expected float or double"):
        emit_elementary("pow", function, x, y)
