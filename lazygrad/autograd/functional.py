"""`lazygrad.autograd.functional`: Jacobians, Hessians and their products, with PyTorch's older
interface over the transforms of `lazygrad.func`.

`inputs` is a tensor or a tuple of tensors, and results are nested likewise.  Results are detached
unless create_graph is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad import func as transforms
from lazygrad._core.context import fail
from lazygrad._core.nests import replace
from lazygrad._core.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _taken(name: str, inputs: Any) -> tuple[tuple[Tensor, ...], bool]:
    """The inputs as a tuple, and whether they came as one."""
    several = isinstance(inputs, tuple)
    given = inputs if several else (inputs,)
    for each in given:
        if not isinstance(each, Tensor):
            raise fail(name, f"inputs are tensors, not {type(each).__name__}", kind=TypeError)
    return given, several


def _result(nest: Any, create_graph: bool) -> Any:
    return nest if create_graph else replace(nest, lambda tensor: tensor.detach())


def _scalar(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose one result must have one element."""
    def checked(*arguments: Any) -> Any:
        value = function(*arguments)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise fail(name, "the function must return one tensor with one element",
                       kind=RuntimeError)
        return value.reshape(())
    return checked


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
             strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Any:
    """The Jacobian of each output for each input: output shape + input shape.

    strategy: "reverse-mode" or "forward-mode".  Always vectorised; `vectorize` is accepted.
    """
    given, several = _taken("jacobian", inputs)
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f"[jacobian] strategy is reverse-mode or forward-mode, not {strategy!r}")
    if strict:
        _check_dependence("jacobian", func, given)
    transform = transforms.jacrev if strategy == "reverse-mode" else transforms.jacfwd
    argnums = tuple(range(len(given))) if several else 0
    return _result(transform(func, argnums)(*given), create_graph)


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
            strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """Second derivatives of a function with one element."""
    given, several = _taken("hessian", inputs)
    checked = _scalar("hessian", func)
    if strict:
        _check_dependence("hessian", checked, given)
    argnums = tuple(range(len(given))) if several else 0
    outer = transforms.jacrev if outer_jacobian_strategy == "reverse-mode" else transforms.jacfwd
    return _result(outer(transforms.jacrev(checked, argnums), argnums)(*given), create_graph)


def _check_dependence(name: str, func: Callable[..., Any], given: tuple[Tensor, ...]) -> None:
    """strict=True: every output depends on an input."""
    from lazygrad._core.nests import tensors_in
    marked = tuple(each.detach().requires_grad_() for each in given)
    for number, output in enumerate(tensors_in(func(*marked))):
        if not output.requires_grad:
            raise fail(name, f"output {number} does not depend on the inputs (strict=True)",
                       kind=RuntimeError)


def _vectors(name: str, vectors: Any, like: Any) -> Any:
    if vectors is None:
        if not isinstance(like, Tensor) or like.numel() != 1:
            raise fail(name, "v is needed where the function does not return one element",
                       kind=RuntimeError)
        from lazygrad.functional.creation import ones_like
        return ones_like(like)
    return vectors


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(outputs, v^T J)."""
    given, several = _taken("vjp", inputs)
    if strict:
        _check_dependence("vjp", func, given)
    value, pull_back = transforms.vjp(func, *given)
    gradients = pull_back(_vectors("vjp", v, value))
    gradients = gradients if several else gradients[0]
    return _result(value, create_graph), _result(gradients, create_graph)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(outputs, J v)."""
    given, _ = _taken("jvp", inputs)
    if v is None and (len(given) != 1 or given[0].numel() != 1):
        raise fail("jvp", "v is needed where the input does not have one element",
                   kind=RuntimeError)
    vectors = _vectors("jvp", v, given[0])
    if strict:
        _check_dependence("jvp", func, given)
    vectors = vectors if isinstance(vectors, tuple) else (vectors,)
    value, derivative = transforms.jvp(func, given, vectors)
    return _result(value, create_graph), _result(derivative, create_graph)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(value, v^T H) of a function with one element."""
    given, several = _taken("vhp", inputs)
    checked = _scalar("vhp", func)
    argnums = tuple(range(len(given)))
    _, pull_back = transforms.vjp(transforms.grad(checked, argnums), *given)
    vectors = _vectors("vhp", v, given[0])
    products = pull_back(vectors if isinstance(vectors, tuple) else (vectors,))
    value = func(*given)
    return (_result(value, create_graph),
            _result(products if several else products[0], create_graph))


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(value, H v) of a function with one element; `vhp` is as good, since H is symmetric."""
    given, several = _taken("hvp", inputs)
    checked = _scalar("hvp", func)
    argnums = tuple(range(len(given)))
    vectors = _vectors("hvp", v, given[0])
    vectors = vectors if isinstance(vectors, tuple) else (vectors,)
    _, products = transforms.jvp(transforms.grad(checked, argnums), given, vectors)
    value = func(*given)
    return (_result(value, create_graph),
            _result(products if several else products[0], create_graph))
