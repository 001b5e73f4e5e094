"""Losses, in every reduction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .record import REAL_AND_COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

F = "nn.functional."
LOOSE = {"float32": (1e-4, 1e-5)}
MAKE = Maker("float32")
REDUCTIONS = ("mean", "sum", "none")

WRAPS = ("PyTorch wraps negative numbers and sums around in uint8; ours computes in the common "
         "dtype.")
NO_ROWS = ("The mean of no losses is NaN, as in all other losses, and their sum 0; PyTorch gives "
           "0 or leaves the result unwritten.")

Samples = Callable[[Maker], Sequence[Sample]]


def _reduced(samples: Samples) -> Samples:
    """The first sample in every reduction, the others as they are."""

    def all_samples(make: Maker) -> Sequence[Sample]:
        first, *others = samples(make)
        return [*(Sample(first.arguments, {**first.keywords, "reduction": each},
                         first.differentiable) for each in REDUCTIONS), *others]

    return all_samples


def _classes(make: Maker) -> Sequence[Sample]:
    logs = make(4, 3, low=-3, high=0)
    target = make.index(3, 4)
    ignored = target.copy()
    ignored[1] = -100
    first = (0,)
    return [
        Sample((logs, target), {"weight": make(3, low=0.5)}, first),
        Sample((logs, ignored), {}, first),
        Sample((logs, target), {"ignore_index": 1}, first),
        Sample((make(2, 3, 2, 2), make.index(3, 2, 2, 2)), {"weight": make(3, low=0.5)}, first),
        Sample((make(3), make.index(3)), {}, first),
    ]


def _cross_entropy(make: Maker) -> Sequence[Sample]:
    shares = numpy.abs(make(4, 3))
    first = (0,)
    return [
        *_classes(make),
        Sample((make(4, 3), make.index(3, 4)), {"label_smoothing": 0.2}, first),
        Sample((make(4, 3), make.index(3, 4)),
               {"label_smoothing": 0.2, "weight": make(3, low=0.5), "ignore_index": 2}, first),
        Sample((make(4, 3), shares), {}),
        Sample((make(4, 3, 2), make(4, 3, 2, low=0)), {"label_smoothing": 0.1}),
        Sample((make(4, 3), shares), {"weight": make(3, low=0.5), "reduction": "none"}, first),
    ]


def _signs(make: Maker, *shape: int) -> numpy.ndarray:
    return numpy.where(make.mask(*shape), 1.0, -1.0).astype(make(1).dtype)


def _gaussian(make: Maker) -> Sequence[Sample]:
    x, t = make(3, 4), make(3, 4)
    return [sample(x, t, make(3, 4, low=0.5)), sample(x, t, make(3, low=0.5), full=True),
            sample(x, t, make(3, 1, low=0.5)), sample(x, t, 0.7),
            sample(x, t, make(3, 4, low=0.5), eps=1.0)]


def _multilabel(make: Maker) -> Sequence[Sample]:
    target = numpy.array([[3, 0, -1, 1, 2], [-1, 4, 4, 4, 4], [4, 3, 2, 1, 0]])
    return [Sample((make(3, 5), target), {}, (0,)), Sample((make(5), target[0]), {}, (0,))]


def _ctc(make: Maker) -> Sequence[Sample]:
    scores = make(6, 3, 4)
    padded = numpy.array([[1, 2, 2], [3, 1, 0], [2, 0, 0]])
    flat = numpy.array([1, 2, 2, 3, 1, 2])
    frames, lengths = numpy.array([6, 5, 4]), numpy.array([3, 2, 1])
    first = (0,)
    return [
        Sample((scores, padded, frames, lengths), {}, first),
        Sample((scores, flat, (6, 5, 4), (3, 2, 1)), {}, first),
        Sample((scores, padded, frames, numpy.array([3, 0, 1])), {}, first),
        Sample((scores, numpy.array([[0, 2, 2], [3, 0, 0], [2, 0, 0]]), frames, lengths),
               {"blank": 1, "reduction": "sum"}, first),
        # the first target does not fit into its frames: infinite, counted as 0
        Sample((scores, padded, numpy.array([3, 5, 4]), lengths),
               {"zero_infinity": True, "reduction": "none"}, first),
        Sample((make(5, 4), numpy.array([1, 2]), 5, 2), {}, first),
    ]


def _of_logits(library: Any, scores: Any, *arguments: Any, **keywords: Any) -> Any:
    functional = library.nn.functional
    convert = [tuple(each) if isinstance(each, list) else each for each in arguments]
    convert = [library.tensor(each) if isinstance(each, int) else each for each in convert]
    return functional.ctc_loss(functional.log_softmax(scores, -1), *convert, **keywords)


def _cube(library: Any, a: Any, b: Any) -> Any:
    return ((a - b).abs() ** 3).sum(-1)


def _with_distance(library: Any, *arguments: Any, **keywords: Any) -> Any:
    return library.nn.functional.triplet_margin_with_distance_loss(
        *arguments, distance_function=lambda a, b: _cube(library, a, b), **keywords)


def _old_arguments(library: Any, a: Any, b: Any, size_average: Any, reduce: Any) -> Any:
    return library.nn.functional.mse_loss(a, b, size_average, reduce)


def _record(name: str, samples: Samples, errors: tuple[ErrorInput, ...] = (),
            **settings: Any) -> OperationRecord:
    return OperationRecord(F + name, _reduced(samples), tolerance=LOOSE, errors=errors, **settings)


def _pairs(**settings: Any) -> Samples:
    return lambda make: [sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(3, 4), **settings)]


RECORDS = [
    _record("mse_loss", _pairs(weight=numpy.full((3, 4), 1.5)), (
        ErrorInput(sample(MAKE(3), MAKE(3), reduction="some"), ValueError, "reduction"),
        ErrorInput(sample(MAKE(3), MAKE(4)), RuntimeError, "broadcast"),
        ErrorInput(sample(MAKE(3), MAKE(3), weight=MAKE(4)), ValueError, "weight")),
        dtypes=("float64",)),
    _record("l1_loss", _pairs(), gradients=REAL_AND_COMPLEX),
    _record("smooth_l1_loss", lambda make: [
        sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(3, 4), beta=0.5),
        sample(make(3, 4), make(3, 4), beta=0)]),
    _record("huber_loss", lambda make: [
        sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(3, 4), delta=0.5),
        Sample((make(3, 4), make(3, 4)), {"weight": make(3, 4)})], (
            ErrorInput(sample(MAKE(3), MAKE(3), delta=0.0), RuntimeError, "delta"),)),
    OperationRecord(f"{F}mse_loss", lambda make: [
        sample(make(3), make(3), *each) for each in ((None, True), (False, None), (True, False),
                                                     (False, True))],
        variant="old arguments", call=_old_arguments, gradients=()),
    _record("nll_loss", _classes, (
        ErrorInput(sample(MAKE(4, 3), numpy.array([0, 1])), RuntimeError, "expected"),
        ErrorInput(sample(MAKE(2, 3), MAKE(2)), RuntimeError, "whole"),
        ErrorInput(sample(MAKE(2, 3), numpy.array([0, 3])), IndexError, "3"),
        ErrorInput(sample(MAKE(2, 3), numpy.array([0, 1]), MAKE(2)), RuntimeError, "weight"))),
    _record("cross_entropy", _cross_entropy, (
        ErrorInput(sample(MAKE(4, 3), numpy.array([0, 1])), RuntimeError, "expected"),
        ErrorInput(sample(MAKE(4, 3), MAKE(4, 2)), RuntimeError, "differ"),
        ErrorInput(sample(MAKE(4, 3), MAKE(4, 3), label_smoothing=2.0), RuntimeError,
                   "label_smoothing")), compile=True),
    _record("binary_cross_entropy", lambda make: [
        sample(make(3, 4, low=0.1, high=0.9), make(3, 4, low=0, high=1)),
        Sample((make(3, 4, low=0.1, high=0.9), make(3, 4, low=0, high=1)), {"weight": make(4)},
               (0, 1))],
        (ErrorInput(sample(MAKE(3), MAKE(4)), RuntimeError, "differ"),)),
    _record("binary_cross_entropy_with_logits", lambda make: [
        sample(make(3, 4), make(3, 4, low=0, high=1)),
        Sample((make(3, 4), make(3, 4, low=0, high=1)),
               {"weight": make(4), "pos_weight": make(4, low=0.5)}, (0, 1))],
        (ErrorInput(sample(MAKE(3), MAKE(4)), RuntimeError, "differ"),)),
    _record("kl_div", lambda make: [
        sample(make(3, 4), make(3, 4, low=0.1)),
        sample(make(3, 4), make(3, 4), reduction="batchmean", log_target=True)]),
    _record("poisson_nll_loss", lambda make: [
        sample(make(3, 4), make(3, 4, low=0.1, high=3)),
        sample(make(3, 4, low=0.1), make(3, 4, low=0.1, high=3), log_input=False, full=True)]),
    _record("gaussian_nll_loss", _gaussian, (
        ErrorInput(sample(MAKE(3, 4), MAKE(3, 4), MAKE(2)), ValueError, "var"),)),
    _record("soft_margin_loss", lambda make: [Sample((make(3, 4), _signs(make, 3, 4)), {}, (0,))],
            accepts=("dtype uint8 at 1",), note=WRAPS),
    _record("hinge_embedding_loss", lambda make: [
        Sample((make(3, 4), _signs(make, 3, 4)), {}, (0,)),
        Sample((make(3, 4), make(3, 4)), {"margin": 0.5}, (0,))],
        accepts=("dtype uint8 at 1", "dtype u?int.* at 0"),
        note=WRAPS + "  Of integers and a floating target it makes floats; PyTorch makes integers "
             "by reduction 'sum' and floats by 'mean'."),
    _record("margin_ranking_loss", lambda make: [
        Sample((make(5), make(5), _signs(make, 5)), {}, (0, 1)),
        Sample((make(5), make(5), _signs(make, 5)), {"margin": 0.5}, (0, 1))],
        (ErrorInput(sample(MAKE(5), MAKE(5), MAKE(1, 5)), RuntimeError, "axes"),),
        accepts=("dtype uint8 at 2",), note=WRAPS),
    _record("cosine_embedding_loss", lambda make: [
        Sample((make(5, 3), make(5, 3), _signs(make, 5)), {"margin": 0.2}, (0, 1)),
        Sample((make(3), make(3), _signs(make)), {}, (0, 1))],
        (ErrorInput(sample(MAKE(5, 3), MAKE(5, 3), MAKE(5, 3)), RuntimeError, "do not fit"),),
        accepts=("dtype uint8 at [01]",), note=WRAPS),
    _record("triplet_margin_loss", lambda make: [
        sample(make(5, 3), make(5, 3), make(5, 3)),
        sample(make(5, 3), make(5, 3), make(5, 3), margin=2.0, p=1.0, swap=True)],
        (ErrorInput(sample(MAKE(5), MAKE(5), MAKE(5), margin=0.0), ValueError, "margin"),),
        gradients=REAL_AND_COMPLEX),
    _record("triplet_margin_with_distance_loss", lambda make: [
        sample(make(5, 3), make(5, 3), make(5, 3), swap=True)], call=_with_distance,
        gradients=REAL_AND_COMPLEX),
    _record("multi_margin_loss", lambda make: [
        Sample((make(4, 3), make.index(3, 4)), {"weight": make(3, low=0.5)}, (0,)),
        Sample((make(4, 3), make.index(3, 4)), {"p": 2, "margin": 0.5}, (0,)),
        Sample((make(3), make.index(3, 1)), {}, (0,))],
        (ErrorInput(sample(MAKE(4, 3), numpy.array([0, 1, 2, 1]), 3), ValueError, "p = 1"),),
        accepts=("sizes all empty",), note=NO_ROWS),
    _record("multilabel_margin_loss", _multilabel, accepts=("sizes all empty",), note=NO_ROWS),
    _record("multilabel_soft_margin_loss", lambda make: [
        Sample((make(3, 4), make(3, 4, low=0, high=1)), {}, (0,)),
        Sample((make(3, 4), make(3, 4, low=0, high=1)), {"weight": make(4, low=0.5)}, (0,))]),
    _record("ctc_loss", _ctc, (
        ErrorInput(sample(MAKE(6, 3, 4), numpy.array([[1], [2]]), (6, 6), (1, 1)), RuntimeError,
                   "targets"),
        ErrorInput(sample(MAKE(6, 2, 4), numpy.array([[1], [2]]), (7, 6), (1, 1)), RuntimeError,
                   "input_lengths"),
        ErrorInput(sample(MAKE(6, 2, 4), numpy.array([[1], [2]]), (6, 6), (1, 1), 4),
                   RuntimeError, "blank")), call=_of_logits, second=False),
    _record("linear_cross_entropy", lambda make: [
        Sample((make(4, 3), make(5, 3), make.index(5, 4)), {"linear_bias": make(5)}),
        Sample((make(4, 3), make(5, 2, 3), make.index(5, 4, 2)), {})]),
]
