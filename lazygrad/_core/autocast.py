"""Which operations compute in another dtype within `autocast`, and how their operands get there.

`context.operation` wraps the functions named in `POLICY`, and only those, so that other operations
pay nothing for it.  What is not named computes in the dtype of its operands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

LOWER, FULL = "lower", "full"

POLICY: dict[str, str] = {
    **dict.fromkeys((
        "addbmm", "addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_tbc",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "einsum", "linear", "matmul",
        "mm", "scaled_dot_product_attention", "vecdot"), LOWER),
    **dict.fromkeys((
        "avg_pool3d", "binary_cross_entropy", "cdist", "cholesky", "cosine_embedding_loss",
        "cross_entropy", "ctc_loss", "binary_cross_entropy_with_logits",
        "det", "eigh", "eigvalsh", "fft", "grid_sample", "hinge_embedding_loss", "huber_loss",
        "interpolate", "inv", "kl_div", "l1_loss", "lstsq", "margin_ranking_loss", "mse_loss",
        "multi_margin_loss", "nanquantile", "nll_loss", "pinv", "prod", "qr", "quantile", "slogdet",
        "smooth_l1_loss", "solve", "stft", "svd", "svdvals", "trace", "triplet_margin_loss"),
        FULL),
}
"""name -> LOWER: float32 operands are taken in the dtype of autocast; FULL: 16-bit operands in
float32.  PyTorch's lists for the CPU."""


def casting(function: Any, policy: str, now: Any) -> Callable[..., Any]:
    """A function of `POLICY` whose tensors are converted while `now.autocast` names a dtype."""
    from lazygrad_compiler.ir.dtypes import float32

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        wanted = now.autocast
        if wanted is None:
            return function(*arguments, **keywords)
        target = wanted if policy == LOWER else float32

        def convert(value: Any) -> Any:
            if not hasattr(value, "_cell"):
                return value
            kind = value.dtype
            return value.to(target) if kind.is_floating and kind.bits <= 32 else value

        return function(*map(convert, arguments),
                        **{name: convert(value) for name, value in keywords.items()})

    return call
