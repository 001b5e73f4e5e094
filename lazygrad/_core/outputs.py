"""`out=`: results written into tensors that are there.

`operation` (context.py) calls `run` where an `out` was given to one of `NAMES`; the functions
themselves know nothing of it.  The result is recorded as always and then written, so `out` may be a
view, of another dtype (if the result's may be put into it), or overlap the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, here, now, warn
from lazygrad._core.types import CATEGORY
from lazygrad_compiler.ir.ops import listed

NAMES = frozenset("""
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr airy_ai alias_copy all
    amax amin aminmax angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh
    argmax argmin argsort as_strided_copy asin asinh atan atan2 atanh avg_pool2d avg_pool3d
    baddbmm bernoulli bessel_j0 bessel_j1 bessel_y0 bessel_y1 bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm bucketize cat ceil chain_matmul
    chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
    cholesky cholesky_ex cholesky_inverse cholesky_solve clamp clamp_max clamp_min clip
    column_stack complex concat concatenate cond conj_physical copysign cos cosh cross cummax
    cummin cumprod cumsum deg2rad det detach_copy diag diagonal_copy diff digamma div divide
    dot dstack eig eigh eigvals eigvalsh empty empty_permuted entr eq erf erfc erfcx erfinv exp
    exp2 expand_copy expit expm1 eye fft fft2 fftfreq fftn fix float_power floor floor_divide
    fmax fmin fmod frac frexp frobenius_norm full gammainc gammaincc gammaln gather gcd ge gelu
    geqrf ger greater greater_equal gt hardshrink heaviside hermite_polynomial_h
    hermite_polynomial_he hfft hfft2 hfftn histc histogram histogramdd householder_product
    hspmm hstack hypot i0 i0e i1 i1e ifft ifft2 ifftn igamma igammac ihfft ihfft2 ihfftn
    index_add index_copy index_reduce index_select inner inv inv_ex inverse irfft irfft2 irfftn
    isin isneginf isposinf kron kthvalue laguerre_polynomial_l lcm ldexp ldl_factor
    ldl_factor_ex ldl_solve le legendre_polynomial_p lerp less less_equal lgamma linear
    linspace log log10 log1p log2 log_ndtr log_softmax logaddexp logaddexp2 logcumsumexp
    logical_and logical_not logical_or logical_xor logit logsigmoid logspace logsumexp lt lu
    lu_factor lu_factor_ex lu_solve lu_unpack masked_select matmul matrix_norm matrix_power
    matrix_rank max maximum mean median min minimum mm mode modified_bessel_i0
    modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 msort mul multi_dot multigammaln
    multinomial multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum
    narrow_copy ndtr ndtri ne neg negative nextafter nonzero nonzero_static norm normal
    normalize not_equal nuclear_norm ones ones_like orgqr ormqr outer permute_copy pinv polar
    polygamma pow prod psi qr quantile rad2deg rand randint randn randperm range reciprocal
    remainder renorm rfft rfft2 rfftfreq rfftn round row_stack rsqrt scaled_modified_bessel_k0
    scaled_modified_bessel_k1 scatter scatter_add scatter_reduce searchsorted select_copy sgn
    shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
    shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w sigmoid sign signbit sin sinc
    sinh slice_copy slice_scatter slogdet softmax softplus softshrink solve solve_ex
    solve_triangular sort spherical_bessel_j0 split_copy split_with_sizes_copy sqrt square
    squeeze_copy sspaddmm stack std std_mean sub subtract sum svd svdvals t_copy take
    take_along_dim tan tanh tensordot tensorinv tensorsolve topk transpose_copy
    triangular_solve tril triu true_divide trunc unbind_copy unfold_copy unsqueeze_copy var
    var_mean vdot vecdot vector_norm view_copy vstack where xlog1py xlogy zeros zeros_like zeta
""".split())  # noqa: SIM905 - a name to a line would be four hundred lines
"""Functions that take `out=` in PyTorch, whatever namespace they are in."""

_TYPED_BY_OUT = frozenset((
    "arange", "empty", "empty_permuted", "eye", "fftfreq", "full", "linspace", "logspace", "ones",
    "ones_like", "rand", "randint", "randn", "randperm", "range", "rfftfreq", "zeros",
    "zeros_like"))
"""Creation functions: the dtype is that of `out` unless one is given."""


def run(call: Callable[..., Any], name: str, arguments: tuple, keywords: dict[str, Any]) -> Any:
    """Calls with `out` taken from the keywords, writes the results there and gives `out` back."""
    out = keywords.pop("out")
    if out is None:
        return call(*arguments, **keywords)
    places = tuple(out) if isinstance(out, (tuple, list)) else (out,)
    for place in places:
        _check(name, place)
    if name in _TYPED_BY_OUT and keywords.get("dtype") is None:
        keywords["dtype"] = places[0].dtype
    result = call(*arguments, **keywords)
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(places):
        raise fail(name, f"{len(results)} results for {len(places)} tensors in out",
                   "Give out a tensor, or a tuple of as many as there are results.", TypeError)
    outer, now.location = now.location, now.location or here()
    try:
        for place, value in zip(places, results, strict=True):
            _put(name, place, value)
    finally:
        now.location = outer
    if not isinstance(result, tuple):
        return out
    return type(result)(*places) if hasattr(result, "_fields") else places


def _check(name: str, place: Any) -> None:
    from lazygrad._core.tensor import Tensor
    if not isinstance(place, Tensor):
        raise fail(name, f"out is a tensor, not {type(place).__name__}", kind=TypeError)
    if now.grad and place.requires_grad:
        raise fail(name, "out requires gradients, and what is written there has none",
                   "Use the result, or write within `with lazygrad.no_grad():`.")


def _put(name: str, place: Any, value: Any) -> None:
    from lazygrad._core.tensor import node_of, shape_of, write
    if now.grad and value.requires_grad:
        raise fail(name, "results written to out carry no gradients, and an argument requires them",
                   "Use the result, or detach the arguments.")
    node = node_of(value)
    dtype = place.dtype
    if CATEGORY[node.dtype] > CATEGORY[dtype]:
        raise fail(name, f"a {node.dtype.name} result cannot be put into a {dtype.name} out",
                   "Give an out of that dtype.")
    node = graph.cast(node, dtype)
    if node.shape == shape_of(place):
        write(place, name, node)
        return
    if place.numel():
        warn(
            f"[{name}] out of shape {listed(shape_of(place))} is resized to {listed(node.shape)}; "
            "give an empty tensor, or one of the right shape")
    if place._view is not None:
        raise fail(name, f"out is a view of shape {listed(shape_of(place))} and cannot become "
                   f"{listed(node.shape)}", "Give an out of the result's shape.")
    place._cell.set(node, False)
