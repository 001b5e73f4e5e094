"""`gradcheck` and `gradgradcheck`: derived gradients against finite differences.

The derivative of a real function along each coordinate is (f(x + h) - f(x - h)) / 2h.  For complex
numbers both the real and the imaginary direction are tried, and combined as PyTorch defines the
gradient: for a real loss L, dL/dRe(z) + i dL/dIm(z).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad._core.engine import grad
from lazygrad._core.modes import no_grad
from lazygrad._core.nests import tensors_in
from lazygrad._core.tensor import Tensor
from lazygrad.functional.creation import from_numpy

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """Derived and measured gradients differ."""


def _outputs(func: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    return [each for each in tensors_in(func(*inputs)) if each.dtype.is_differentiable]


def _losses(outputs: Sequence[Tensor], weights: Sequence[numpy.ndarray]) -> list[float]:
    """Re <weight, output> for each output."""
    return [float(numpy.real(numpy.vdot(weight, output.detach().numpy())))
            for output, weight in zip(outputs, weights, strict=True)]


def gradcheck(func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5,
              rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
              check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
              check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
              check_forward_ad: bool = False, check_backward_ad: bool = True,
              fast_mode: bool = False, masked: bool | None = None) -> bool:
    """Whether the gradients of every output for every input that requires them equal finite
    differences within atol + rtol * |difference|.

    inputs: a tensor or a tuple; those to check are float64 or complex128 leaves with
    requires_grad.  The result is checked against random cotangents, every coordinate of the input
    by itself.  check_forward_ad: forward mode as well.

    Raises GradcheckError saying where they differ (or gives False, without raise_exception), and
    ValueError where no input requires gradients.
    """
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    checked = [k for k, each in enumerate(given)
               if isinstance(each, Tensor) and each.requires_grad]
    if not checked:
        raise ValueError("[gradcheck] no input requires gradients: make one with "
                         "requires_grad=True")
    try:
        _check(func, given, checked, eps, atol, rtol, nondet_tol, check_grad_dtypes,
               check_forward_ad, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(func: Callable[..., Any], given: Sequence[Any], checked: Sequence[int], eps: float,
           atol: float, rtol: float, nondet_tol: float, check_dtypes: bool, forward: bool,
           undefined: bool) -> None:
    random = numpy.random.default_rng(0)
    outputs = _outputs(func, given)
    if not any(output.requires_grad for output in outputs):
        raise GradcheckError("no output requires gradients: nothing to differentiate")
    weights = []
    for output in outputs:
        weight = random.standard_normal(tuple(output.shape))
        if output.dtype.is_complex:
            weight = weight + 1j * random.standard_normal(tuple(output.shape))
        weights.append(numpy.asarray(weight, output.dtype.numpy))
    targets = [given[k] for k in checked]
    for number, (output, weight) in enumerate(zip(outputs, weights, strict=True)):
        if not output.requires_grad:
            continue
        derived = grad(output, targets, from_numpy(weight.copy()), retain_graph=True,
                       allow_unused=True, materialize_grads=True)
        again = grad(output, targets, from_numpy(weight.copy()), retain_graph=True,
                     allow_unused=True, materialize_grads=True)
        for k, gradient, second in zip(checked, derived, again, strict=True):
            if check_dtypes and gradient.dtype is not given[k].dtype:
                raise GradcheckError(f"the gradient of input {k} is {gradient.dtype}, the input "
                                     f"{given[k].dtype}")
            difference = numpy.abs(gradient.numpy() - second.numpy()).max(initial=0.0)
            if difference > nondet_tol:
                raise GradcheckError(f"two backward passes for input {k} differ by {difference}")
            measured = _measured(func, given, k, number, weight, eps)
            _compare(f"output {number}, input {k}", gradient.detach().numpy(), measured, atol, rtol)
    if forward:
        _check_forward(func, given, checked, outputs, eps, atol, rtol)


def _measured(func: Callable[..., Any], given: Sequence[Any], k: int, number: int,
              weight: numpy.ndarray, eps: float) -> numpy.ndarray:
    """The gradient of Re <weight, output> for input k, by central differences."""
    base = given[k].detach().numpy().copy()
    result = numpy.zeros_like(base)

    def loss(values: numpy.ndarray) -> float:
        replaced = [from_numpy(values.copy()) if position == k else
                    (each.detach() if isinstance(each, Tensor) else each)
                    for position, each in enumerate(given)]
        with no_grad():
            output = _outputs(func, replaced)[number]
        return _losses([output], [weight])[0]

    directions = [1.0, 1j] if numpy.iscomplexobj(base) else [1.0]
    for place in numpy.ndindex(*base.shape):
        for direction in directions:
            up, down = base.copy(), base.copy()
            up[place] += eps * direction
            down[place] -= eps * direction
            result[place] += (loss(up) - loss(down)) / (2 * eps) * direction
    return result


def _check_forward(func: Callable[..., Any], given: Sequence[Any], checked: Sequence[int],
                   outputs: Sequence[Tensor], eps: float, atol: float, rtol: float) -> None:
    """Forward mode along one random direction against a central difference."""
    from lazygrad.func import jvp

    random = numpy.random.default_rng(1)
    tangents = []
    for k in checked:
        tangent = random.standard_normal(tuple(given[k].shape))
        if given[k].dtype.is_complex:
            tangent = tangent + 1j * random.standard_normal(tuple(given[k].shape))
        tangents.append(numpy.asarray(tangent, given[k].dtype.numpy))

    def of_checked(*values: Any) -> Any:
        replaced = list(given)
        for k, value in zip(checked, values, strict=True):
            replaced[k] = value
        return tuple(_outputs(func, replaced))

    bases = [given[k].detach() for k in checked]
    _, derived = jvp(of_checked, tuple(bases), tuple(from_numpy(each.copy()) for each in tangents))
    with no_grad():
        up, down = (of_checked(*[from_numpy(base.numpy() + sign * eps * tangent)
                                 for base, tangent in zip(bases, tangents, strict=True)])
                    for sign in (1, -1))
    for number, output in enumerate(outputs):
        measured = (up[number].numpy() - down[number].numpy()) / (2 * eps)
        _compare(f"output {number}, forward mode", derived[number].detach().numpy(), measured,
                 atol, rtol)
        assert tuple(measured.shape) == tuple(output.shape)


def _compare(what: str, derived: numpy.ndarray, measured: numpy.ndarray, atol: float,
             rtol: float) -> None:
    close = numpy.isclose(derived, measured, rtol=rtol, atol=atol, equal_nan=True)
    if not close.all():
        place = tuple(int(k) for k in numpy.argwhere(~close)[0])
        raise GradcheckError(
            f"{what}: {int((~close).sum())} of {close.size} derivatives differ; at {place} the "
            f"derived one is {derived[place]}, the measured one {measured[place]}")


def gradgradcheck(func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *,
                  eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False,
                  check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
                  fast_mode: bool = False, masked: bool = False) -> bool:
    """`gradcheck` of the function's own gradient: second derivatives."""
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    outputs = [output for output in _outputs(func, given) if output.requires_grad]
    random = numpy.random.default_rng(2)
    if grad_outputs is None:
        vectors = []
        for output in outputs:
            vector = random.standard_normal(tuple(output.shape))
            if output.dtype.is_complex:
                vector = vector + 1j * random.standard_normal(tuple(output.shape))
            vectors.append(from_numpy(numpy.asarray(vector, output.dtype.numpy)).requires_grad_())
    else:
        vectors = list(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else [grad_outputs]

    def gradient(*arguments: Any) -> Any:
        values, cotangents = arguments[: len(given)], arguments[len(given):]
        marked = [each.clone() if isinstance(each, Tensor) and each.requires_grad else each
                  for each in values]
        targets = [each for each in marked if isinstance(each, Tensor) and each.requires_grad]
        if not targets:  # called for its value only
            marked = [each.detach().requires_grad_() if isinstance(each, Tensor)
                      and isinstance(given[k], Tensor) and given[k].requires_grad else each
                      for k, each in enumerate(values)]
            targets = [each for each in marked if isinstance(each, Tensor) and each.requires_grad]
        from lazygrad._core.modes import enable_grad
        with enable_grad():
            made = _outputs(func, marked)
            made = [output for output in made if output.requires_grad]
            return tuple(grad(made, targets, list(cotangents), create_graph=True,
                              allow_unused=True, materialize_grads=True))

    return gradcheck(gradient, (*given, *vectors), eps=eps, atol=atol, rtol=rtol,
                     raise_exception=raise_exception, nondet_tol=nondet_tol,
                     check_grad_dtypes=check_grad_dtypes)
