"""Gradients of library calls, by call: matrix calculus written as nodes.

Convention as PyTorch's: for a real loss, dL = Re tr(gA^H dA).  Each result of a call is a node of
its own, so a rule sees the cotangent of one part; gradients are linear in the cotangents, and
those of the parts are added.

Sources: Giles, "An extended collection of matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008); Seeger et al., "Auto-differentiating linear algebra" (2017);
Townsend, "Differentiating the singular value decomposition" (2016); Golub and Pereyra (1973) for
the pseudo-inverse; Najfeld and Havel (1995) for the exponential.
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.autodiff.matrices import Matrices
from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import IRError, Node

CallRule = Callable[[Matrices, Node, Node, Needed], Gradients]


def library(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    rule = CALL_RULES.get(forward.attrs[0])
    if rule is None:
        raise IRError(f"[{forward.attrs[0]}] has no gradient")
    return rule(Matrices(at), forward, g, needed)


def part(forward: Node, number: int, m: Matrices) -> Node:
    """Another result of the same call."""
    name, options, _ = forward.attrs
    return m.call(name, *forward.inputs, options=options, part=number)


# ---- inverses and solutions


def inverse(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    turned = m.adjoint(forward)
    return (m.at.neg(m.product(turned, g, turned)),)


def solve(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    a, _ = forward.inputs
    of_b = m.call("linalg.solve", m.adjoint(a), g)
    of_a = m.at.neg(m.product(of_b, m.adjoint(forward))) if needed[0] else None
    return of_a, of_b


def solve_triangular(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    a, _ = forward.inputs
    upper, unit = forward.attrs[1]
    of_b = m.call("linalg.solve_triangular", m.adjoint(a), g, options=(1 - upper, unit))
    if not needed[0]:
        return None, of_b
    of_a = m.at.neg(m.product(of_b, m.adjoint(forward)))
    triangle = m.upper if upper else m.lower
    return triangle(of_a, bool(unit)), of_b


def pinv_gradient(m: Matrices, a: Node, p: Node, g: Node) -> Node:
    """Golub and Pereyra: dP = -P dA P + P P^H dA^H (1 - A P) + (1 - P A) dA^H P^H P."""
    at = m.at
    turned, g_turned = m.adjoint(p), m.adjoint(g)
    outside = at.sub(m.identity(a, a.shape[-2]), m.product(a, p))
    inside = at.sub(m.identity(a, a.shape[-1]), m.product(p, a))
    first = m.product(turned, g, turned)
    second = m.product(m.product(outside, g_turned), m.product(p, turned))
    third = m.product(m.product(turned, p), m.product(g_turned, inside))
    return at.sub(at.add(second, third), first)


def pinv(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    a, atol, rtol = forward.inputs
    of_a = pinv_gradient(m, a, forward, g) if needed[0] else None
    # where the rank jumps there is no derivative; elsewhere tolerances do not matter
    return of_a, m.at.zeros(atol), m.at.zeros(rtol)


def lstsq(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    a, b = forward.inputs
    if forward.attrs[2] == 2:
        return singular_values(m, a, g), m.at.zeros(b)
    real = m.real(a).dtype
    batch = a.shape[:-2]
    limits = m.at.const(0, real, batch), m.at.const(forward.attrs[1][0], real, batch)
    p = m.call("linalg.pinv", a, *limits)
    of_a = pinv_gradient(m, a, p, m.product(g, m.adjoint(b))) if needed[0] else None
    return of_a, m.product(m.adjoint(p), g) if needed[1] else None


# ---- determinants


def det(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    cofactors = m.call("linalg.cofactor", forward.inputs[0])
    return (m.scaled(m.at.conj(cofactors), g),)


def cofactor(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """C = det(A) A^-T, where A is invertible."""
    at = m.at
    (a,) = forward.inputs
    x = m.call("linalg.inv", a)
    determinant = at.conj(m.call("linalg.det", a))
    turned = m.adjoint(x)
    overlap = at.sum(at.mul(turned, g), (g.ndim - 2, g.ndim - 1))
    first = m.scaled(at.conj(forward), overlap)
    return (at.sub(first, m.scaled(m.product(turned, m.transpose(g), turned), determinant)),)


def slogdet(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    at = m.at
    (a,) = forward.inputs
    turned = m.adjoint(m.call("linalg.inv_ex", a))
    if forward.attrs[2] == 1:
        return (m.scaled(turned, g),)
    if not a.dtype.is_complex:
        return (at.zeros(a),)
    # d sign = i sign Im tr(A^-1 dA)
    turn = at.cast(m.imaginary(at.mul(at.conj(g), forward)), a.dtype)
    return (m.scaled(turned, at.scale(turn, -1j)),)


# ---- factorizations


def cholesky(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Hermitian, as PyTorch has it, though one triangle of A is read."""
    turned = m.adjoint(forward)
    phi = m.half_diagonal(m.lower(m.product(turned, g)))
    options = (1, 0)
    left = m.call("linalg.solve_triangular", turned, phi, options=options)
    both = m.call("linalg.solve_triangular", turned, m.adjoint(left), options=options)
    return (m.at.scale(m.at.add(both, m.adjoint(both)), 0.5),)


def qr(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    (a,) = forward.inputs
    rows, columns = a.shape[-2:]
    if forward.attrs[1][0] == "complete" and rows > columns:
        raise IRError(
            f"[linalg.qr] mode 'complete' has no gradient for {rows} rows and {columns} columns: "
            "the added columns of Q are arbitrary. Use mode 'reduced'."
        )
    at = m.at
    q, r = part(forward, 0, m), part(forward, 1, m)
    of_q, of_r = (g, None) if forward.attrs[2] == 0 else (None, g)
    if rows >= columns:
        return (_qr_tall(m, q, r, of_q, of_r),)
    # A = (A1 A2) with A1 = Q R1 square and R2 = Q^H A2
    rest = None
    r1 = m.block(r, (0, rows), (0, rows))
    if of_r is not None:
        of_r2 = m.block(of_r, (0, rows), (rows, columns))
        rest = m.product(q, of_r2)
        a2 = m.block(a, (0, rows), (rows, columns))
        of_q = m.product(a2, m.adjoint(of_r2))
        of_r = m.block(of_r, (0, rows), (0, rows))
    first = _qr_tall(m, q, r1, of_q, of_r)
    axis = a.ndim - 1
    if rest is None:
        return (at.pad_axis(first, axis, 0, columns - rows),)
    return (at.concat([first, rest], axis),)


def _qr_tall(m: Matrices, q: Node, r: Node, of_q: Node | None, of_r: Node | None) -> Node:
    """(gQ + Q copy(triu(gR R^H - Q^H gQ))) R^-H, where copy makes the triangle Hermitian."""
    at = m.at
    inner = None
    if of_r is not None:
        inner = m.product(of_r, m.adjoint(r))
    if of_q is not None:
        turned = m.product(m.adjoint(q), of_q)
        inner = at.neg(turned) if inner is None else at.sub(inner, turned)
    assert inner is not None
    inner = m.half_diagonal(m.upper(inner))
    total = m.product(q, at.add(inner, m.adjoint(inner)))
    if of_q is not None:
        total = at.add(of_q, total)
    solved = m.call("linalg.solve_triangular", r, m.adjoint(total), options=(1, 0))
    return m.adjoint(solved)


def singular_values(m: Matrices, a: Node, g: Node) -> Node:
    u, vh = (m.call("linalg.svd", a, options=(0,), part=number) for number in (0, 2))
    return m.product(m.of_columns(u, g), vh)


def svdvals(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (singular_values(m, forward.inputs[0], g),)


def svd(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    (a,) = forward.inputs
    number = forward.attrs[2]
    if number == 1:
        return (singular_values(m, a, g),)
    if number == 0:
        return (_svd_left(m, *_thin(m, forward), g, True),)
    # V^H of A is the left factor of A^H, conjugated and transposed
    u, s, vh = _thin(m, forward)
    return (m.adjoint(_svd_left(m, m.adjoint(vh), s, m.adjoint(u), m.adjoint(g), False)),)


def _thin(m: Matrices, forward: Node) -> tuple[Node, Node, Node]:
    """The factors of the same call; further columns of a full one are arbitrary and cut off."""
    u, s, vh = (part(forward, number, m) for number in range(3))
    count = s.shape[-1]
    return (m.at.slice_axis(u, u.ndim - 1, 0, count), s,
            m.at.slice_axis(vh, vh.ndim - 2, 0, count))


def _svd_left(m: Matrices, u: Node, s: Node, vh: Node, g: Node, phases: bool) -> Node:
    """The gradient of A from that of U in A = U S V^H.

    U's columns have arbitrary phases, in common with those of V; `phases` says whether the part of
    the gradient that turns them belongs here (once for both factors).
    """
    at = m.at
    rows, count = u.shape[-2:]
    g = at.slice_axis(g, g.ndim - 1, 0, count)
    turned = m.product(m.adjoint(u), g)
    skew = at.sub(turned, m.adjoint(turned))
    apart = m.like(m.differences(at.square(s)), u.dtype)
    inner = m.of_columns(m.off_diagonal(at.div(skew, apart)), s)
    if u.dtype.is_complex and phases:
        phase = at.div(m.diagonal(skew), m.like(at.scale(s, 2), u.dtype))
        inner = at.add(inner, m.diagonal_matrix(phase))
    result = m.product(u, inner, vh)
    if rows > count:
        outside = at.sub(g, m.product(u, turned))
        inverse_s = at.div(at.like(s, 1), s)
        result = at.add(result, m.product(m.of_columns(outside, inverse_s), vh))
    return result


def eigh(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    vectors = part(forward, 1, m)
    turned = m.adjoint(vectors)
    if forward.attrs[2] == 0:
        return (m.product(m.of_columns(vectors, g), turned),)
    apart = m.like(m.differences(part(forward, 0, m)), vectors.dtype)
    inner = m.off_diagonal(m.at.div(m.product(turned, g), apart))
    return (m.product(vectors, inner, turned),)


def eig(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """V^-H (diag(gL) + (V^H gV - V^H V diag(Re V^H gV)) / conj(E)) V^H, with eigenvectors of
    length 1.
    """
    at = m.at
    (a,) = forward.inputs
    vectors = part(forward, 1, m)
    turned = m.adjoint(vectors)
    if forward.attrs[2] == 0:
        inner = m.diagonal_matrix(g)
    else:
        along = m.product(turned, g)
        lengths = m.real(m.diagonal(along))
        along = at.sub(along, m.of_columns(m.product(turned, vectors), lengths))
        apart = at.conj(m.differences(part(forward, 0, m)))
        inner = m.off_diagonal(at.div(along, apart))
    result = m.call("linalg.solve", turned, m.product(inner, turned))
    return (result if a.dtype.is_complex else m.real(result),)


def lu_factor(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """From A[order] = L U: L^-H (tril(L^H gL, -1) + triu(gU U^H)) U^-H, with the rows or columns
    beyond the square part eliminated first.
    """
    at = m.at
    (a,) = forward.inputs
    rows, columns = a.shape[-2:]
    count = min(rows, columns)
    square = ((0, count), (0, count))
    lu, g_square = m.block(forward, *square), m.block(g, *square)
    left, right = lu, m.adjoint(m.upper(lu))  # what is above the diagonal of `left` is not read
    of_l, of_u = m.lower(g_square, strict=True), m.upper(g_square)
    unit_lower = m.at.add(m.lower(lu, strict=True), m.identity(a, count))
    rest = None
    if rows > columns:
        low = ((columns, rows), (0, columns))
        l2, of_l2 = m.block(forward, *low), m.block(g, *low)
        rest = m.adjoint(m.call("linalg.solve_triangular", m.adjoint(right), m.adjoint(of_l2),
                                options=(1, 0)))
        of_u = at.sub(of_u, m.product(m.adjoint(l2), rest))
    elif columns > rows:
        wide = ((0, rows), (rows, columns))
        u2, of_u2 = m.block(forward, *wide), m.block(g, *wide)
        rest = m.call("linalg.solve_triangular", m.adjoint(left), of_u2, options=(1, 1))
        of_l = at.sub(of_l, m.product(rest, m.adjoint(u2)))
    inner = at.add(m.lower(m.product(m.adjoint(unit_lower), of_l), strict=True),
                   m.upper(m.product(of_u, right)))
    inner = m.call("linalg.solve_triangular", m.adjoint(unit_lower), inner, options=(1, 1))
    solved = m.adjoint(m.call("linalg.solve_triangular", m.adjoint(right), m.adjoint(inner),
                              options=(1, 0)))
    if rest is not None:
        solved = at.concat([solved, rest], a.ndim - (2 if rows > columns else 1))
    order = part(forward, 3, m)
    shape = (*a.shape[:-2], rows, rows)
    chosen = at.expand(at.reshape(order, (*order.shape, 1)), shape)
    position = at.op("iota", attrs=(len(shape) - 1, dtypes.int64, shape))
    swap = at.cast(at.op("eq", chosen, position), a.dtype)
    return (m.product(m.transpose(swap), solved),)


# ---- functions of matrices


def matrix_exp(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The upper right block of exp((A^H G; 0 A^H))."""
    at = m.at
    (a,) = forward.inputs
    size = a.shape[-1]
    turned = m.adjoint(a)
    upper = at.concat([turned, g], a.ndim - 1)
    lower = at.concat([at.zeros(turned), turned], a.ndim - 1)
    double = m.call("linalg.matrix_exp", at.concat([upper, lower], a.ndim - 2))
    return (m.block(double, (0, size), (size, 2 * size)),)


# ---- Fourier transforms: linear, so the gradient is the adjoint


def c2c(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    axes, scale, backwards = forward.attrs[1]
    result = m.call("fft.c2c", g, options=(axes, scale, 1 - backwards))
    return (result if forward.inputs[0].dtype.is_complex else m.real(result),)


def r2c(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The half spectrum filled up with zeros, transformed back, its real part."""
    axes, scale = forward.attrs[1]
    last = axes[-1]
    missing = forward.inputs[0].shape[last] - g.shape[last]
    whole = m.at.pad_axis(g, last, 0, missing)
    return (m.real(m.call("fft.c2c", whole, options=(axes, scale, 1))),)


def c2r(m: Matrices, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The transform, with the frequencies doubled that stand for a conjugate pair."""
    at = m.at
    (x,) = forward.inputs
    axes, scale, size = forward.attrs[1]
    result = m.call("fft.r2c", g, options=(axes, scale))
    axis = axes[-1]
    line = at.op("iota", attrs=(axis, dtypes.int64, x.shape))
    paired = at.op(
        "and",
        at.compare("lt", at.zeros(line), line),
        at.compare("lt", line, size - x.shape[axis] + 1),
    )
    result = at.where(paired, at.scale(result, 2), result)
    return (result if x.dtype.is_complex else m.real(result),)


CALL_RULES: dict[str, CallRule] = {
    "linalg.inv": inverse,
    "linalg.inv_ex": inverse,
    "linalg.solve": solve,
    "linalg.solve_ex": solve,
    "linalg.solve_triangular": solve_triangular,
    "linalg.pinv": pinv,
    "linalg.lstsq": lstsq,
    "linalg.det": det,
    "linalg.cofactor": cofactor,
    "linalg.slogdet": slogdet,
    "linalg.cholesky": cholesky,
    "linalg.cholesky_ex": cholesky,
    "linalg.qr": qr,
    "linalg.svd": svd,
    "linalg.svdvals": svdvals,
    "linalg.eigh": eigh,
    "linalg.eig": eig,
    "linalg.lu_factor": lu_factor,
    "linalg.matrix_exp": matrix_exp,
    "fft.c2c": c2c,
    "fft.r2c": r2c,
    "fft.c2r": c2r,
}

RULES: dict[str, Rule] = {"library": library}
