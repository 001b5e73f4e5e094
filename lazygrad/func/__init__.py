"""Function transforms, as in torch.func: grad, vjp, jvp, jacrev, jacfwd, hessian, vmap.

Each takes a function of tensors (or of nests of them) and gives another.  They work on the graph
that the function records, so they compose with one another, with autograd, and with
`lazygrad.compile`.
"""

from __future__ import annotations

from lazygrad.func.batch_norm import replace_all_batch_norm_modules_
from lazygrad.func.derivatives import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
)
from lazygrad.func.stateless import functional_call, stack_module_state
from lazygrad.func.vectorize import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]
