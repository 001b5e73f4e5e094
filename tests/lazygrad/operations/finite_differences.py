"""Gradients against differences of values, for what PyTorch cannot differentiate (twice).

With cotangents c the scalar S = Re sum(conj(c) * f(x)) changes along a direction d by
Re sum(conj(gradient) * d); that has to be the central difference of S.  A second gradient is
checked alike, with the first gradient in place of f.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy

from .libraries import LAZY, array_of, tensors_in
from .record import Maker, OperationRecord, Sample

STEP = 1e-6
RELATIVE, ABSOLUTE = 2e-5, 2e-6


def _outputs(record: OperationRecord, sample: Sample, second: bool) -> list[Any]:
    """The tensors whose gradient is in question."""
    from .checks import caller, gradient_program
    if second:
        return list(gradient_program(record, False)(LAZY, sample))
    result = caller(record, LAZY)(
        *LAZY.convert(sample.arguments), **LAZY.convert_keywords(sample.keywords)
    )
    return list(tensors_in(result))


def _scalar(record: OperationRecord, sample: Sample, second: bool) -> float:
    """S, with the cotangents that the gradient programs use."""
    total = 0.0
    for number, output in enumerate(_outputs(record, sample, second)):
        if output.dtype.is_differentiable:
            seed = (200 if second else 100) + number
            weights = Maker(output.dtype.name, seed)(*output.shape, low=0.5, high=1.5)
            total += float(numpy.sum(numpy.conj(weights) * array_of(output)).real)
    return total


def _directions(sample: Sample, seed: int) -> tuple[dict[Any, numpy.ndarray], list[numpy.ndarray]]:
    """One random direction for each leaf: by place, and in the order of the gradients."""
    random = numpy.random.default_rng(seed)
    wanted = sample.differentiable
    placed: dict[Any, numpy.ndarray] = {}
    order = []

    def visit(place: tuple, value: Any) -> None:
        if isinstance(value, numpy.ndarray) and value.dtype.kind in "fc":
            direction = random.uniform(-1, 1, value.shape)
            if value.dtype.kind == "c":
                direction = direction + 1j * random.uniform(-1, 1, value.shape)
            placed[place] = direction
            order.append(direction)
        elif isinstance(value, (list, tuple)):
            for number, each in enumerate(value):
                visit((*place, number), each)

    for number, value in enumerate(sample.arguments):
        if wanted is None or number in wanted:
            visit((number,), value)
    for key, value in sample.keywords.items():
        if wanted is None or key in wanted:
            visit((key,), value)
    return placed, order


def _moved(sample: Sample, placed: dict[Any, numpy.ndarray], step: float) -> Sample:
    def move(place: tuple, value: Any) -> Any:
        if place in placed:
            return numpy.asarray(value + step * placed[place]).astype(value.dtype)
        if isinstance(value, (list, tuple)):
            return type(value)(move((*place, number), each) for number, each in enumerate(value))
        return value

    return replace(
        sample,
        arguments=tuple(move((number,), each) for number, each in enumerate(sample.arguments)),
        keywords={key: move((key,), each) for key, each in sample.keywords.items()},
    )


def problems(record: OperationRecord, cases: list[Any], second: bool) -> list[str]:
    """What differs, in words. Only float64 and complex128 are worth a difference."""
    found = []
    for case in cases:
        if case.dtype not in ("float64", "complex128"):
            continue
        title = f"{record.identity} {case.label} {case.dtype}, by finite differences"
        try:
            gradients = [array_of(each) for each in case.program(LAZY, case.sample)]
            for seed in (1, 2):
                placed, order = _directions(case.sample, seed)
                up, down = (
                    _scalar(record, _moved(case.sample, placed, step), second)
                    for step in (STEP, -STEP)
                )
                want = (up - down) / (2 * STEP)
                have = sum(
                    float(numpy.sum(numpy.conj(gradient) * direction).real)
                    for gradient, direction in zip(gradients, order, strict=True)
                )
                if not abs(have - want) <= ABSOLUTE + RELATIVE * abs(want):
                    found.append(f"{title}\nalong a direction: {have}, not {want}")
        except Exception as error:
            error.__traceback__ = None
            found.append(f"{title}\nraises {type(error).__name__}: {error}")
    return found
