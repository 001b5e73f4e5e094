"""Records: matrix products in all forms, einsum, distances, covariances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .record import REAL_AND_COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

NUMBERS = ("float32", "int64", "complex64", "bfloat16")
FLOATING = ("float32", "float64", "complex64")
# 16-bit products of several factors are rounded in another order.
HALF = {"bfloat16": (5e-2, 5e-2)}

Samples = Callable[[Maker], Sequence[Sample]]


def product(name: str, *shapes: tuple[tuple[int, ...], ...], **more: Any) -> OperationRecord:
    """A record whose samples are tensors of the shapes given."""
    keywords = more.pop("keywords", {})
    return OperationRecord(
        name, lambda make: [sample(*(make(*shape) for shape in each), **keywords)
                            for each in shapes],
        **{"dtypes": NUMBERS, "gradients": REAL_AND_COMPLEX, "method": True,
           "tolerance": HALF, **more})


def ones(*shape: int) -> numpy.ndarray:
    return numpy.ones(shape, numpy.float32)


def refused(match: str, *arguments: Any, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(*arguments, **keywords), RuntimeError, match)


def einsum(equation: str, *shapes: tuple[int, ...]) -> Callable[[Maker], Sample]:
    return lambda make: sample(equation, *(make(*shape) for shape in shapes))


EQUATIONS = [
    einsum("ij,jk->ik", (2, 3), (3, 4)), einsum("ij,jk", (2, 3), (3, 4)),
    einsum("bij,bjk->bik", (2, 2, 3), (2, 3, 2)), einsum("...ij,jk->...ik", (2, 2, 3), (3, 2)),
    einsum("ii->i", (3, 3)), einsum("ii", (3, 3)), einsum("...ii->...i", (2, 3, 3)),
    einsum("ij->ji", (2, 3)), einsum("ij->", (2, 3)), einsum("i,j->ij", (2,), (3,)),
    einsum("bi,bi->b", (2, 3), (2, 3)), einsum("bij,jk,k->b", (2, 2, 3), (3, 2), (2,)),
    einsum("...i->...", (2, 3)), einsum("i...->...i", (2, 3, 2)), einsum(",->", (), ()),
    einsum(" Ba , ac ", (2, 3), (3, 2)), einsum("iij->j", (2, 2, 3)),
    einsum("ij,jk->ik", (2, 1), (3, 2)), einsum("i...,i...->...", (3, 2, 2), (3, 2, 2)),
]

RECORDS = [
    product("matmul", ((2, 3), (3, 4)), ((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,)),
            ((2, 2, 3), (3, 2)), ((2, 3), (2, 3, 2)), ((2, 1, 2, 3), (3, 3, 2)), ((3,), (2, 3, 2)),
            ((2, 0), (0, 3)), out=True, compile=True,
            errors=(refused("inner sizes 3 and 2", ones(2, 3), ones(2, 3)),
                    refused("at least one axis", ones(), ones(3)),
                    refused("dtypes differ", ones(2, 2), ones(2, 2).astype("float64")))),
    product("mm", ((2, 3), (3, 4)), out=True, errors=(refused("2 and 2 axes", ones(2), ones(2)),)),
    product("bmm", ((2, 2, 3), (2, 3, 4)), out=True,
            errors=(refused("batch sizes", ones(2, 2, 3), ones(3, 3, 4)),)),
    product("mv", ((2, 3), (3,)), out=True),
    product("dot", ((3,), (3,)), out=True, errors=(refused("axes", ones(2, 2), ones(2, 2)),)),
    product("vdot", ((3,), (3,)), out=True),
    product("inner", ((2, 3), (4, 3)), ((), (3,)), ((3,), (3,)), out=True),
    product("outer", ((3,), (2,)), out=True, errors=(refused("vectors", ones(2, 2), ones(2)),)),
    product("ger", ((3,), (2,))),
    product("addmm", ((2, 4), (2, 3), (3, 4)), ((4,), (2, 3), (3, 4)), inplace=True, out=True,
            errors=(refused("do not broadcast", ones(3), ones(2, 3), ones(3, 4)),)),
    product("addmm", ((2, 4), (2, 3), (3, 4)), keywords={"beta": 2, "alpha": 3}, variant="scaled"),
    OperationRecord("addmm", lambda make: [sample(make(2, 2) * numpy.float32("nan"), make(2, 3),
                                                  make(3, 2), beta=0)],
                    variant="beta 0", dtypes=("float32",), gradients=()),
    product("addmv", ((2,), (2, 3), (3,)), ((), (2, 3), (3,)), inplace=True, out=True,
            accepts=("empty",), note="PyTorch forgets to broadcast where a matrix is empty."),
    product("addr", ((2, 3), (2,), (3,)), keywords={"beta": 2, "alpha": 3}, inplace=True, out=True),
    product("baddbmm", ((2, 2, 2), (2, 2, 3), (2, 3, 2)), keywords={"alpha": 2}, inplace=True,
            out=True),
    product("addbmm", ((2, 2), (3, 2, 3), (3, 3, 2)), keywords={"beta": 2}, inplace=True, out=True,
            errors=(refused("batch sizes", ones(2, 2), ones(3, 2, 3), ones(2, 3, 2)),)),
    product("kron", ((2, 3), (2, 2)), ((3,), (2, 2)), ((), (2,)), out=True),
    product("cross", ((2, 3), (2, 3)), ((3,), (3,)), keywords={"dim": -1}, out=True,
            errors=(refused("no 3 elements", ones(2, 2), ones(2, 2), dim=-1),)),
    product("tensordot", ((2, 3, 4), (3, 4, 2)), method=False, out=True,
            errors=(refused("differ in size", ones(2, 3), ones(4, 2), dims=1),
                    refused("at most the number of axes", ones(2), ones(2), dims=2))),
    OperationRecord("tensordot", lambda make: [
        sample(make(2, 3, 4), make(4, 2, 5), ([0, 2], [1, 0])), sample(make(2), make(3), 0),
        sample(make(2, 3), make(1, 2), ([-1], [0]))], variant="axes", dtypes=NUMBERS,
        tolerance=HALF, gradients=REAL_AND_COMPLEX),
    OperationRecord("einsum", lambda make: [each(make) for each in EQUATIONS],
                    dtypes=("float32", "int64", "complex64"), gradients=REAL_AND_COMPLEX,
                    errors=(refused("sizes 3 and 4", "ij,jk->ik", ones(2, 3), ones(4, 2)),
                            refused("names 1 operands", "ij", ones(2), ones(2)),
                            refused("does not name", "ijk", ones(2, 2)),
                            refused("names no axis", "i1->i", ones(2, 2)),
                            refused("in no operand", "ij->k", ones(2, 2)),
                            refused("twice", "ij->ii", ones(2, 2)),
                            refused("repeated", "ii", ones(2, 3)))),
    OperationRecord("einsum", lambda make: [
        sample(make(2, 3), [0, 1], make(3, 4), [1, 2], [0, 2]),
        sample(make(2, 2, 3), [..., 0, 1], make(3, 2), [1, 2], [..., 0, 2])], variant="sublists",
        dtypes=("float32", "complex64"), gradients=REAL_AND_COMPLEX),
    OperationRecord("chain_matmul", lambda make: [sample(make(2, 3), make(3, 2), make(2, 4))],
                    dtypes=("float32", "complex64"), gradients=REAL_AND_COMPLEX),
    *(OperationRecord(
        "cdist", lambda make, p=p: [sample(make(2, 3), make(4, 3), p),
                                    sample(make(2, 2, 3), make(2, 3), p)],
        variant=f"p {p}", dtypes=("float32", "float64"),
        errors=(refused("rows of 3 and of 2", ones(2, 3), ones(2, 2)),
                refused("p is -1", ones(2, 3), ones(2, 3), -1)),
        accepts=("dtype complex64",), note="Distances of complex rows are real.")
      for p in (0.0, 1.0, 2.0, 3.5, math.inf)),
    OperationRecord("pdist", lambda make: [sample(make(4, 3)), sample(make(3, 2), 1.0)],
                    dtypes=("float32",), errors=(refused("matrix of rows", ones(3)),),
                    accepts=("dtype complex64",), note="Distances of complex rows are real."),
    OperationRecord("vander", lambda make: [sample(make(3)), sample(make(3), 4, increasing=True),
                                            sample(make(2), 0)],
                    dtypes=("float32", "int64", "complex64"), gradients=()),
    OperationRecord("vander", lambda make: [sample(make(3))], variant="gradient",
                    dtypes=("float64",), reference=lambda x: numpy.vander(x),
                    note="PyTorch's own gradient fails: it writes in place"),
    product("cov", ((3, 4),), ((4,),), dtypes=FLOATING,
            errors=(refused("at most 2 axes", ones(2, 2, 2)),
                    refused("weights", ones(2, 3), fweights=numpy.array([1, 2])))),
    OperationRecord("cov", lambda make: [
        sample(make(2, 4), fweights=numpy.array([1, 2, 3, 1]),
               aweights=numpy.array([0.5, 1, 2, 1])),
        sample(make(2, 4), correction=0, aweights=numpy.array([0.5, 1, 2, 1]))],
        variant="weights", dtypes=("float32", "float64"), gradients=(),
        accepts=("index -99 at fweights",), note="Values of weights are not looked at."),
    product("corrcoef", ((3, 4),), ((4,),), dtypes=FLOATING),
]
