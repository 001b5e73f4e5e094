"""The checks that every `OperationRecord` goes through.

A check turns a record into `Case`s: a program over a library, run once with PyTorch and once with
lazygrad.  `problems` records all programs of a check lazily, computes them in one flush (one
compile instead of dozens), and compares.  Where that flush fails, each case runs alone, so that a
failure names its sample.  Checks return texts and keep no tensors: what is alive is pending, and a
broken program must not fail the next flush, too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy

import lazygrad

from . import finite_differences
from .libraries import LAZY, TORCH, Leaf, Library, differences, leaves_of, tensors_in
from .record import FULL_FLOATS, ErrorInput, Maker, OperationRecord, Sample

SENSIBLE = (
    TypeError, ValueError, IndexError, RuntimeError, MemoryError, OverflowError,
    ZeroDivisionError,
)
"""What bad input may raise (NotImplementedError and LinAlgError are among them by inheritance)."""

HALVES = {"float16": numpy.dtype("float16"), "bfloat16": numpy.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class Case:
    """program: library, sample -> nested result, to be the same for both libraries.

    either_raises: where PyTorch raises, ours has to raise, too, instead of the case being wrong.
    """

    label: str
    dtype: str
    sample: Sample
    program: Callable[[Library, Sample], Any]
    either_raises: bool = False


# ---- running cases


def _message(error: BaseException) -> str:
    """The text of an error, which then lets go of the frames (and their tensors)."""
    text = f"{type(error).__name__}: {error}"
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return text


def _attempt(case: Case, library: Library) -> tuple[Any, str]:
    """What the program returns, or the error's text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return case.program(library, case.sample), ""
    except Exception as error:
        return None, _message(error)


def _leaves(result: Any) -> tuple[dict[str, Leaf], str]:
    try:
        return leaves_of(result), ""
    except Exception as error:
        return {}, _message(error)


def _alone(case: Case) -> tuple[dict[str, Leaf], str]:
    result, error = _attempt(case, LAZY)
    return ({}, error) if error else _leaves(result)


def run_lazily(cases: list[Case]) -> list[tuple[dict[str, Leaf], str]]:
    """The results of all cases, computed in one flush where that works, or error texts."""
    recorded = [_attempt(case, LAZY) for case in cases]
    try:
        lazygrad.synchronize()
        broken = False
    except Exception as error:
        _message(error)
        broken = True
    if broken:
        recorded.clear()
        return [_alone(case) for case in cases]
    return [({}, error) if error else _leaves(result) for result, error in recorded]


def _in_float32(sample: Sample, half: numpy.dtype) -> Sample:
    def widen(value: Any) -> Any:
        if isinstance(value, numpy.ndarray):
            return value.astype(numpy.float32) if value.dtype == half else value
        if isinstance(value, (list, tuple)):
            return type(value)(widen(each) for each in value)
        return value

    return Sample(
        tuple(widen(each) for each in sample.arguments),
        {key: widen(value) for key, value in sample.keywords.items()},
        sample.differentiable,
    )


def run_with_torch(case: Case) -> tuple[dict[str, Leaf], str]:
    """PyTorch's result; what it has no half-precision kernel for, computed in float32."""
    result, error = _attempt(case, TORCH)
    if case.dtype in HALVES and re.search(r"not implemented for '(Half|BFloat16)'", error):
        half = HALVES[case.dtype]
        wide = replace(case, sample=_in_float32(case.sample, half))
        result, error = _attempt(wide, TORCH)
        leaves, trouble = _leaves(result)
        rounded = {
            path: Leaf(leaf.kind, case.dtype, leaf.array.astype(half))
            if leaf.kind == "tensor" and leaf.dtype == "float32" else leaf
            for path, leaf in leaves.items()
        }
        return rounded, error or trouble
    return ({}, error) if error else _leaves(result)


def show_sample(sample: Sample) -> str:
    def short(value: Any) -> str:
        if isinstance(value, numpy.ndarray):
            return f"{value.dtype.name}{list(value.shape)}"
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(short, value))}]"
        return repr(value)

    inside = [short(each) for each in sample.arguments]
    inside += [f"{key}={short(value)}" for key, value in sample.keywords.items()]
    return f"({', '.join(inside)})"


def problems(
    record: OperationRecord,
    cases: list[Case],
    expected: Callable[[Case], tuple[dict[str, Leaf], str]] = run_with_torch,
    check_dtype: bool = True,
) -> list[str]:
    """What is wrong with the cases, in words; empty where all is right."""
    if not cases:
        return [f"{record.identity}: no samples"]
    found = []
    for case, (have, error) in zip(cases, run_lazily(cases), strict=True):
        want, refusal = expected(case)
        if refusal and not case.either_raises:
            texts = [f"the comparison itself fails: {refusal}"]
        elif refusal:
            texts = [] if error else [f"PyTorch refuses ({refusal}), lazygrad does not: {have}"]
        elif error:
            texts = [f"lazygrad raises {error}"]
        else:
            texts = differences(have, want, case.dtype, record.tolerance, check_dtype)
        title = f"{record.identity} {case.label} {case.dtype} {show_sample(case.sample)}"
        found += [f"{title}\n{text}" for text in texts]
    return found


# ---- programs


def caller(record: OperationRecord, library: Library) -> Callable[..., Any]:
    """The function under test in a library."""
    if record.call is not None:
        call = record.call
        return lambda *arguments, **keywords: call(library.module, *arguments, **keywords)
    return library.function(record.name)


def plain_program(record: OperationRecord) -> Callable[[Library, Sample], Any]:
    def program(library: Library, sample: Sample) -> Any:
        return caller(record, library)(
            *library.convert(sample.arguments), **library.convert_keywords(sample.keywords)
        )

    return program


def samples_of(record: OperationRecord, dtype: str, seed: int = 0) -> list[Sample]:
    return list(record.samples(Maker(dtype, seed)))


def _cases(
    record: OperationRecord,
    program: Callable[[Library, Sample], Any],
    dtypes: tuple[str, ...],
    label: str = "sample",
    most: int | None = None,
) -> list[Case]:
    return [
        Case(f"{label} {number}", dtype, each, program)
        for dtype in dtypes
        for number, each in enumerate(samples_of(record, dtype)[:most])
    ]


def _main_dtype(record: OperationRecord) -> str:
    return next((name for name in FULL_FLOATS if name in record.dtypes), record.dtypes[0])


def _by_reference(record: OperationRecord) -> Callable[[Case], tuple[dict[str, Leaf], str]]:
    def expected(case: Case) -> tuple[dict[str, Leaf], str]:
        assert record.reference is not None
        try:
            with numpy.errstate(all="ignore"):
                found = record.reference(*case.sample.arguments, **case.sample.keywords)
            return leaves_of(found), ""
        except Exception as error:
            return {}, _message(error)

    return expected


def check_values(record: OperationRecord) -> list[str]:
    """Every sample in every dtype; PyTorch's values, dtypes, shapes and structure."""
    return _compared(record, _cases(record, plain_program(record), record.dtypes))


def _compared(record: OperationRecord, cases: list[Case]) -> list[str]:
    if record.reference is not None:
        return problems(record, cases, _by_reference(record), check_dtype=False)
    return problems(record, cases)


def strided(library: Library, array: numpy.ndarray) -> Any:
    """A tensor of these values whose memory is neither contiguous nor in this order."""
    if array.ndim == 0:
        return library.make_tensor(numpy.stack([array, array]))[1]
    if array.ndim == 1:
        return library.make_tensor(numpy.repeat(array, 2))[::2]
    backwards = tuple(reversed(range(array.ndim)))
    wide = numpy.repeat(numpy.transpose(array, backwards), 2, 0)
    return library.make_tensor(wide)[1::2].permute(*backwards)


def check_strided(record: OperationRecord) -> list[str]:
    """Every sample as views of larger tensors with other strides."""

    def program(library: Library, sample: Sample) -> Any:
        def make(array: numpy.ndarray) -> Any:
            return strided(library, array) if library.is_lazy else library.make_tensor(array)

        return caller(record, library)(
            *library.convert(sample.arguments, make),
            **library.convert_keywords(sample.keywords, make),
        )

    return _compared(record, _cases(record, program, (_main_dtype(record),), "strided"))


_SPECIAL = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-30, 2.5]


def _with_specials(sample: Sample) -> Iterator[Sample]:
    """The sample with special values in its first argument, as often as it takes to try all."""
    first = sample.arguments[0]
    if not isinstance(first, numpy.ndarray) or not first.size:
        return
    for start in range(0, min(len(_SPECIAL), 3 * first.size), first.size):
        with numpy.errstate(all="ignore"):
            values = numpy.resize(_SPECIAL[start:] + _SPECIAL[:start], first.shape)
            yield replace(sample, arguments=(values.astype(first.dtype), *sample.arguments[1:]))


def check_special(record: OperationRecord) -> list[str]:
    """NaN, infinities, signed zeros and huge numbers in the first argument."""
    dtypes = tuple(name for name in (*FULL_FLOATS, *HALVES) if name in record.dtypes)
    cases = [
        Case(f"special {number}", dtype, each, plain_program(record))
        for dtype in dtypes
        for number, plain in enumerate(samples_of(record, dtype)[:2])
        for each in _with_specials(plain)
    ]
    return _compared(record, cases)


def _differentiable(sample: Sample) -> Callable[[int | str], bool]:
    return lambda key: sample.differentiable is None or key in sample.differentiable


def with_leaves(library: Library, sample: Sample) -> tuple[tuple, dict[str, Any], list[Any]]:
    """Arguments and keywords with tensors that require gradients, and a list of these."""
    leaves: list[Any] = []

    def make_leaf(array: numpy.ndarray) -> Any:
        made = library.make_tensor(array)
        if array.dtype.kind in "fcV":
            leaves.append(made.requires_grad_())
        return made

    wanted = _differentiable(sample)
    arguments = tuple(
        library.convert(each, make_leaf if wanted(number) else None)
        for number, each in enumerate(sample.arguments)
    )
    keywords = {
        key: library.convert_keywords({key: value}, make_leaf if wanted(key) else None)[key]
        for key, value in sample.keywords.items()
    }
    return arguments, keywords, leaves


def cotangent(library: Library, tensor: Any, seed: int) -> Any:
    """Random numbers of the tensor's shape and dtype, the same for both libraries."""
    name = str(tensor.dtype).removeprefix("torch.") if not library.is_lazy else tensor.dtype.name
    return library.make_tensor(Maker(name, seed)(*tensor.shape, low=0.5, high=1.5))


def pull_back(
    library: Library, outputs: list[Any], leaves: list[Any], seed: int, more: bool
) -> list[Any]:
    """Gradients of the leaves for random cotangents; zeros where nothing flows."""
    tracked = [(number, each) for number, each in enumerate(outputs) if each.requires_grad]
    if not tracked:
        return [library.module.zeros_like(leaf) for leaf in leaves]
    gradients = library.module.autograd.grad(
        [each for _, each in tracked], leaves,
        [cotangent(library, each, seed + number) for number, each in tracked],
        create_graph=more, allow_unused=True,
    )
    return [library.module.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, gradients, strict=True)]


def gradient_program(record: OperationRecord, second: bool) -> Callable[[Library, Sample], Any]:
    """First or second-order gradients of all tensors that count as differentiable."""

    def program(library: Library, sample: Sample) -> Any:
        arguments, keywords, leaves = with_leaves(library, sample)
        result = caller(record, library)(*arguments, **keywords)
        outputs = list(tensors_in(result))
        if not library.is_lazy and not any(each.requires_grad for each in outputs):
            raise AssertionError("PyTorch has no gradient here; the record says that there is one")
        gradients = pull_back(library, outputs, leaves, 100, more=second)
        if second:
            gradients = pull_back(library, gradients, leaves, 200, more=False)
        return [gradient.detach() for gradient in gradients]

    return program


_NO_DERIVATIVE = re.compile(
    "derivative for .* is not implemented|not implemented.*derivative|"
    "does not support automatic differentiation for outputs with complex dtype")


def _gradients(record: OperationRecord, second: bool) -> list[str]:
    label = "second gradient" if second else "gradient"
    cases = _cases(record, gradient_program(record, second), record.gradients, label)
    if record.reference is not None:
        return finite_differences.problems(record, cases, second)
    lacking: list[Case] = []

    def expected(case: Case) -> tuple[dict[str, Leaf], str]:
        want, error = run_with_torch(case)
        if _NO_DERIVATIVE.search(error):
            lacking.append(case)
        return want, error

    found = problems(record, cases, expected)
    if lacking:
        found = problems(record, [case for case in cases if case not in lacking]) \
            if len(lacking) < len(cases) else []
        found += finite_differences.problems(record, lacking, second)
    return found


def check_gradients(record: OperationRecord) -> list[str]:
    """First gradients, for random cotangents of all outputs."""
    return _gradients(record, second=False)


def check_second_gradients(record: OperationRecord) -> list[str]:
    """Gradients of gradients; by finite differences where PyTorch has no double backward."""
    return _gradients(record, second=True)


def check_method(record: OperationRecord) -> list[str]:
    """`x.name(…)` does what PyTorch's does."""
    name = record.name.rpartition(".")[2]

    def program(library: Library, sample: Sample) -> Any:
        first, *rest = library.convert(sample.arguments)
        return getattr(first, name)(*rest, **library.convert_keywords(sample.keywords))

    return problems(record, _cases(record, program, (_main_dtype(record),), "method"))


def check_inplace(record: OperationRecord) -> list[str]:
    """`x.name_(…)` writes into x: seen by aliases, through views, with the right gradient."""
    name = record.name.rpartition(".")[2] + "_"

    def plain(library: Library, sample: Sample) -> Any:
        first, *rest = library.convert(sample.arguments)
        alias = first.view(first.shape)
        result = getattr(first, name)(*rest, **library.convert_keywords(sample.keywords))
        return {"result": result, "alias": alias, "the tensor itself": result is first}

    def through_a_view(library: Library, sample: Sample) -> Any:
        first, *rest = library.convert(sample.arguments)
        base = library.module.stack([first, first], -1)
        getattr(base[..., 1], name)(*rest, **library.convert_keywords(sample.keywords))
        return base

    def differentiated(library: Library, sample: Sample) -> Any:
        (first, *rest), keywords, leaves = with_leaves(library, sample)
        written = first * 1
        getattr(written, name)(*rest, **keywords)
        return pull_back(library, [written], leaves, 100, more=False)

    cases = _cases(record, plain, record.dtypes, "in place")
    cases += _cases(record, through_a_view, (_main_dtype(record),), "in place through a view", 2)
    cases += _cases(record, differentiated, record.gradients[:1], "in place, gradient", 2)
    return problems(record, [replace(case, either_raises=True) for case in cases])


def check_out(record: OperationRecord) -> list[str]:
    """`out=`: a tensor that fits, a view of one, one without elements, one of a wrong dtype."""

    def call(library: Library, sample: Sample, prepare: Callable[[Any], Any]) -> Any:
        function = caller(record, library)
        arguments = library.convert(sample.arguments)
        keywords = library.convert_keywords(sample.keywords)
        like = function(*arguments, **keywords)
        if isinstance(like, (tuple, list)):
            places = tuple(prepare(each) for each in like)
            result = function(*arguments, **keywords, out=places)
            same = all(a is b for a, b in zip(result, places, strict=True))
            return {"places": list(places), "the places themselves": same}
        place = prepare(like)
        result = function(*arguments, **keywords, out=place)
        return {"place": place, "the place itself": result is place}

    def fitting(library: Library, sample: Sample) -> Any:
        return call(library, sample, library.module.zeros_like)

    def view(library: Library, sample: Sample) -> Any:
        def prepare(like: Any) -> Any:
            return library.module.zeros((*like.shape, 2), dtype=like.dtype)[..., 1]

        return call(library, sample, prepare)

    def empty(library: Library, sample: Sample) -> Any:
        return call(library, sample, lambda like: library.module.empty(0, dtype=like.dtype))

    def wrong(library: Library, sample: Sample) -> Any:
        return call(library, sample, lambda like: library.module.zeros(
            like.shape, dtype=library.module.bool))

    dtype = (_main_dtype(record),)
    cases = [
        case
        for label, program in [("fits", fitting), ("is a view", view), ("has no elements", empty),
                               ("has a wrong dtype", wrong)]
        for case in _cases(record, program, dtype, f"out= {label}", 2)
    ]
    return problems(record, [replace(case, either_raises=True) for case in cases])


def check_view(record: OperationRecord) -> list[str]:
    """The result is a view: writes to it are seen in the argument, and the other way round."""
    plain = plain_program(record)

    def program(library: Library, sample: Sample) -> Any:
        arguments = library.convert(sample.arguments)
        converted = replace(sample, arguments=arguments)
        result = plain(library, converted)
        for number, part in enumerate(tensors_in(result)):
            part.fill_(number % 2)
        again = plain(library, converted)
        arguments[0].logical_not_()
        return arguments[0], result, again

    return problems(record, _cases(record, program, (_main_dtype(record),), "view"))


def check_compiled(record: OperationRecord) -> list[str]:
    """`lazygrad.compile` of the call: recorded with one set of numbers, replayed with another."""
    compiled: dict[int, Any] = {}

    def program(library: Library, sample: Sample) -> Any:
        function = caller(record, library)
        arguments = library.convert(sample.arguments)
        keywords = library.convert_keywords(sample.keywords)
        if not library.is_lazy:
            return function(*arguments, **keywords)
        number = numbers[id(sample)]
        if number not in compiled:
            compiled[number] = lazygrad.compile(function)
        return compiled[number](*arguments, **keywords)

    dtype = _main_dtype(record)
    cases, numbers = [], {}
    for seed in (0, 1):
        for number, each in enumerate(samples_of(record, dtype, seed)[:2]):
            numbers[id(each)] = number
            cases.append(Case(f"compiled {number}, call {seed}", dtype, each, program))
    return _compared(record, cases)


def check_errors(record: OperationRecord) -> list[str]:
    """Each `ErrorInput` raises what it says, when it is called or when its result is looked at."""
    return [text for number, each in enumerate(record.errors)
            for text in _error_problems(record, number, each)]


def _error_problems(record: OperationRecord, number: int, bad: ErrorInput) -> list[str]:
    title = f"{record.identity} error {number} {show_sample(bad.sample)}"
    try:
        result = plain_program(record)(LAZY, bad.sample)
        have = leaves_of(result)
    except Exception as error:
        kind, text = type(error), _message(error)
        if not issubclass(kind, bad.error):
            return [f"{title}\nraises {text}, not {bad.error}"]
        if not re.search(bad.match, text):
            return [f"{title}\nraises {text!r}, which does not match {bad.match!r}"]
        return []
    return [f"{title}\nraises nothing: {have}"]


def check_name(record: OperationRecord) -> list[str]:
    """The name is public in both libraries (in ours alone, where there is a reference)."""
    found = []
    for library in (LAZY,) if record.reference is not None else (TORCH, LAZY):
        try:
            library.function(record.name)
        except AttributeError:
            found.append(f"{record.identity}: {library.name} has no {record.name}")
    return found


CHECKS: dict[str, tuple[Callable[[OperationRecord], list[str]],
                        Callable[[OperationRecord], Any]]] = {
    "name": (check_name, lambda record: True),
    "values": (check_values, lambda record: True),
    "strided": (check_strided, lambda record: True),
    "special": (check_special, lambda record: record.special),
    "gradients": (check_gradients, lambda record: record.gradients),
    "second": (check_second_gradients, lambda record: record.gradients and record.second),
    "method": (check_method, lambda record: record.method),
    "inplace": (check_inplace, lambda record: record.inplace),
    "out": (check_out, lambda record: record.out),
    "view": (check_view, lambda record: record.view),
    "errors": (check_errors, lambda record: record.errors),
    "compiled": (check_compiled, lambda record: record.compile),
}
"""Name -> the check, and for which records it is made."""
