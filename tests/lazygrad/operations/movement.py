"""Records: movement and joining, views, and copies with a view overwritten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .record import REAL_AND_COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

ANY = ("float32", "int64", "bool", "complex64", "bfloat16")

Samples = Callable[[Maker], Sequence[Sample]]


def on(*shape: int, calls: Sequence[tuple[tuple, dict[str, Any]]]) -> Samples:
    """Samples of one array and several argument lists."""
    return lambda make: [sample(make(*shape), *arguments, **keywords)
                         for arguments, keywords in calls]


def args(*arguments: Any, **keywords: Any) -> tuple[tuple, dict[str, Any]]:
    return arguments, keywords


def bad(error: Any, match: str, *arguments: Any, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(numpy.arange(6.0).reshape(2, 3), *arguments, **keywords), error, match)


def moves(name: str, samples: Samples, **more: Any) -> OperationRecord:
    """A record with what most movement has in common."""
    return OperationRecord(name, samples, **{"dtypes": ANY, "gradients": REAL_AND_COMPLEX,
                                             "method": True, **more})


def several(name: str, samples: Samples, **more: Any) -> OperationRecord:
    """Functions that take more than one tensor first, and are no methods."""
    return OperationRecord(name, samples, **{"dtypes": ANY, "gradients": REAL_AND_COMPLEX, **more})


def contiguous(name: str) -> Callable[..., Any]:
    """The method of the tensor laid out row by row: what it gives depends on the layout."""
    return lambda library, first, *arguments: getattr(first.contiguous(), name)(*arguments)


def contiguous_first(name: str) -> Callable[..., Any]:
    """The `_copy` function of the tensor laid out row by row."""
    return lambda library, first, *arguments: getattr(library, f"{name}_copy")(
        first.contiguous(), *arguments)


VIEWS = [
    moves("diagonal", on(3, 4, 2, calls=[args(), args(1), args(-1, 2, 0), args(7)]), view=True,
          errors=(bad(RuntimeError, r"\[diagonal\]", 0, 1, 1),)),
    moves("Tensor.unfold", on(2, 5, calls=[args(1, 2, 2), args(0, 1, 1), args(1, 5, 1)]),
          view=True,
          errors=(bad(RuntimeError, r"windows of 4 every 1", 1, 4, 1),
                  bad(RuntimeError, "unfold", 1, 2, 0))),
    moves("as_strided", on(3, 4, calls=[args((2, 2), (4, 1), 1), args((2, 3), (1, 4))]), view=True,
          call=contiguous("as_strided"),
          errors=(bad(RuntimeError, "reach element 8", (3, 3), (3, 1), 0),
                  bad(RuntimeError, "negative", (2,), (-1,)))),
    moves("as_strided", on(3, 4, calls=[args((3, 3), (1, 1)), args((2, 2), (0, 1), 3), args((), ())]
                           ), variant="overlapping", call=contiguous("as_strided")),
    moves("movedim", on(2, 3, 4, calls=[args(0, 2), args((0, 1), (2, 0))]), view=True,
          errors=(bad(RuntimeError, "each once", (0, 0), (0, 1)),)),
    moves("moveaxis", on(2, 3, calls=[args(0, -1)]), view=True),
    moves("swapaxes", on(2, 3, calls=[args(0, 1)]), view=True,
          errors=(bad(IndexError, "dim 5", 0, 5),)),
    moves("swapdims", on(2, 3, calls=[args(0, 1)]), view=True),
    moves("transpose", on(2, 3, 2, calls=[args(0, 2)]), view=True),
    moves("permute", on(2, 3, 2, calls=[args((2, 0, 1))]), view=True,
          errors=(bad(RuntimeError, "not an order", (0, 0)),)),
    moves("t", on(2, 3, calls=[args()]), view=True),
    moves("adjoint", on(2, 3, calls=[args()])),
    moves("Tensor.expand", lambda make: [sample(make(1, 3), 2, 3), sample(make(3), 2, -1)],
          errors=(bad(RuntimeError, "only axes of size 1", 4, 3),)),
    moves("Tensor.expand_as", lambda make: [sample(make(1, 3), make(2, 3))]),
    moves("broadcast_to", lambda make: [sample(make(3), (2, 3))]),
    moves("narrow", on(2, 5, calls=[args(1, 1, 3), args(1, -2, 2)]), view=True,
          errors=(bad(IndexError, "does not lie within", 1, 2, 2),)),
    moves("select", on(2, 5, calls=[args(1, -1)]), view=True,
          errors=(bad(IndexError, "out of range", 1, 3),)),
    moves("squeeze", lambda make: [sample(make(1, 2, 1)), sample(make(1, 2, 1), (0, 1)),
                                   sample(make(1, 2, 1), -1)], view=True,
          errors=(bad(RuntimeError, "twice", (0, 0)),)),
    moves("unsqueeze", on(2, 3, calls=[args(0), args(-1)]), view=True,
          errors=(bad(IndexError, "dim 3", 3),)),
    moves("unflatten", on(2, 6, calls=[args(1, (2, -1))]), view=True,
          errors=(bad(RuntimeError, "elements", 1, (2, 2)),)),
    moves("flatten", on(2, 3, 2, calls=[args(), args(1), args(0, 1)]), view=True,
          errors=(bad(RuntimeError, "comes after", 1, 0),)),
    moves("ravel", on(2, 3, calls=[args()]), view=True),
    moves("Tensor.view", on(2, 6, calls=[args(3, 4), args(-1)]), view=True, call=contiguous("view"),
          errors=(bad(RuntimeError, "-1", -1, -1),)),
    moves("Tensor.reshape_as", lambda make: [sample(make(2, 6), make(3, 4))], view=True),
    moves("Tensor.view_as", lambda make: [sample(make(2, 6), make(3, 4))], view=True,
          call=contiguous("view_as")),
    moves("split", on(5, 2, calls=[args(2), args([1, 4]), args(2, 1)]), view=True,
          errors=(bad(RuntimeError, "add up to", [1, 2], 0), bad(RuntimeError, "size -1", -1))),
    moves("split_with_sizes", on(5, 2, calls=[args([1, 4])]), view=True),
    moves("tensor_split", on(2, 5, calls=[args(3, 1), args((1, 4), 1)]), view=True,
          errors=(bad(RuntimeError, "at least one", 0),)),
    moves("hsplit", on(2, 4, calls=[args(2), args([1])]), view=True,
          errors=(bad(RuntimeError, "evenly", 2),)),
    moves("vsplit", on(4, 2, calls=[args(2)]), view=True),
    moves("dsplit", on(1, 2, 4, calls=[args([1, 3])]), view=True,
          errors=(bad(RuntimeError, "at least 3 axes", 1),)),
    moves("chunk", on(5, 2, calls=[args(2), args(9)]), view=True,
          errors=(bad(RuntimeError, "at least one", 0),)),
    moves("unsafe_chunk", on(5, 2, calls=[args(2)])),
    moves("unsafe_split", on(5, 2, calls=[args(2)])),
    moves("unbind", on(2, 3, calls=[args(), args(1)]), view=True),
    moves("diagonal_copy", on(3, 4, calls=[args(1)]), method=False),
    moves("narrow_copy", on(2, 5, calls=[args(1, 1, 3)])),
    *(moves(f"{name}_copy", on(2, 4, calls=[call]), method=False) for name, call in (
        ("alias", args()), ("expand", args((3, 2, 4))), ("permute", args((1, 0))),
        ("select", args(1, 2)), ("slice", args(1, 0, 4, 2)), ("split", args(3, 1)),
        ("split_with_sizes", args([1, 3], 1)), ("squeeze", args()), ("t", args()),
        ("transpose", args(0, 1)), ("unbind", args(1)), ("unfold", args(1, 2, 1)),
        ("unsqueeze", args(1)))),
    *(moves(f"{name}_copy", on(2, 4, calls=[call]), method=False, call=contiguous_first(name))
      for name, call in (("view", args((8,))), ("as_strided", args((2, 2), (2, 1), 1)))),
    moves("reshape", on(2, 6, calls=[args((3, 4)), args((-1,))]), view=True,
          errors=(bad(RuntimeError, "elements", (4, 2)),)),
    moves("clone", on(2, 3, calls=[args()])),
]

BITS = [
    OperationRecord(
        "Tensor.view", lambda make, kind=kind: [sample(make(2, 8), kind)],
        variant=f"to {kind.__name__}",
        dtypes=dtypes, gradients=(), view=view)
    for kind, dtypes, view in (
        (numpy.int32, ("float32",), False),
        (numpy.int16, ("float16", "bfloat16", "float64"), False),
        (numpy.float64, ("int64", "int32", "int8"), False),
        (numpy.uint8, ("bool", "int64"), False),
    )
]

COPIES = [
    moves("roll", on(2, 3, calls=[args(1), args((1, 2), (0, 1)), args(-4, 1)]), compile=True,
          errors=(bad(RuntimeError, "shifts for", (1, 2), (0,)), bad(IndexError, "dim 5", 1, 5))),
    moves("flip", on(2, 3, calls=[args((0, 1)), args((1,))]),
          errors=(bad(RuntimeError, r"\[flip\]", (0, 0)),)),
    moves("fliplr", on(2, 3, calls=[args()])),
    moves("flipud", on(2, 3, calls=[args()])),
    moves("rot90", on(2, 3, 2, calls=[args(), args(-1, (1, 2)), args(2)]),
          errors=(bad(RuntimeError, "both 0", 1, (0, 0)),)),
    moves("tile", on(2, 3, calls=[args((2,)), args((2, 1, 2))])),
    moves("Tensor.repeat", on(2, 3, calls=[args(2, 1), args(2, 1, 2)]),
          errors=(bad(RuntimeError, "counts", 2),)),
    moves("repeat_interleave", lambda make: [
        sample(make(2, 3), 2), sample(make(2, 3), 2, 1),
        sample(make(2, 3), numpy.array([1, 0, 2]), 1)],
          errors=(bad(RuntimeError, "at least 0", -1),
                  bad(RuntimeError, "one for each", numpy.array([1, 2, 3]), 0))),
    moves("diag", lambda make: [sample(make(3)), sample(make(3), -1), sample(make(3, 4), 1)],
          out=True),
    moves("diag_embed", on(2, 3, calls=[args(), args(1), args(-1, 0, 2)])),
    moves("diagflat", on(2, 2, calls=[args(), args(-1)])),
    moves("tril", on(2, 3, 4, calls=[args(), args(1), args(-2)]), inplace=True, out=True),
    moves("triu", on(3, 4, calls=[args(), args(1), args(-2)]), inplace=True, out=True),
    moves("trace", on(3, 4, calls=[args()]), dtypes=("float32", "int64")),
    moves("diagonal_scatter", lambda make: [sample(make(3, 4), make(3)),
                                            sample(make(3, 4), make(2), -1)]),
    moves("select_scatter", lambda make: [sample(make(2, 3), make(2), 1, 2)],
          errors=(bad(RuntimeError, "same shape", numpy.ones(3), 1, 2),)),
    moves("slice_scatter", lambda make: [sample(make(2, 5), make(2, 2), 1, 0, 4, 2)]),
    several("as_strided_scatter", lambda make: [sample(make(3, 4), make(2, 2), (2, 2), (4, 1), 1)],
            method=True, gradients=(), note="PyTorch's gradient of elements that stay is wrong"),
]

JOINING = [
    several("cat", lambda make: [sample([make(2, 3), make(1, 3)]),
                                 sample([make(2, 3), make(0), make(2, 1)], 1)], out=True,
            compile=True,
            errors=(ErrorInput(sample([]), RuntimeError, "at least one"),
                    ErrorInput(sample([numpy.ones((2, 3)), numpy.ones((2, 4))]), RuntimeError,
                               "differ off axis 0"))),
    several("cat", lambda make: [sample([make(2), make(2, dtype="int64")]),
                                 sample([make(2, dtype="bool"), make(2)])],
            variant="mixed dtypes", dtypes=("float32", "int32", "bfloat16"), gradients=()),
    several("concat", lambda make: [sample([make(2), make(3)])]),
    several("concatenate", lambda make: [sample([make(2), make(3)])]),
    several("stack", lambda make: [sample([make(2, 3), make(2, 3)]),
                                   sample([make(2), make(2)], -1)], out=True,
            errors=(ErrorInput(sample([numpy.ones(2), numpy.ones(3)]), RuntimeError, "differ"),)),
    *(several(name, lambda make: [sample([make(3), make(3)]), sample([make(2, 3), make(2, 3)])],
              out=True) for name in ("hstack", "vstack", "dstack", "column_stack", "row_stack")),
    several("block_diag", lambda make: [sample(make(2, 3), make(2), make())]),
    several("cartesian_prod", lambda make: [sample(make(2), make(3)), sample(make(2))]),
    several("combinations", lambda make: [sample(make(4)), sample(make(3), 2, True),
                                          sample(make(3), 5)]),
    several("meshgrid", lambda make: [sample(make(2), make(3), indexing="ij"),
                                      sample(make(2), make(3), make(2), indexing="xy")],
            errors=(ErrorInput(sample(numpy.ones(2), indexing="ab"), RuntimeError, "'ij' or 'xy'"),)
            ),
    several("broadcast_tensors", lambda make: [sample(make(3), make(2, 1))]),
    several("broadcast_shapes", lambda make: [sample((2, 1), (3,)), sample(2, (3, 1))],
            dtypes=("float32",), gradients=(),
            call=lambda library, *shapes: tuple(library.broadcast_shapes(*shapes)),
            errors=(ErrorInput(sample((2,), (3,)), RuntimeError, "do not broadcast"),)),
    *(several(name, lambda make: [sample(make()), sample(make(2)), sample(make(2, 3))])
      for name in ("atleast_1d", "atleast_2d", "atleast_3d")),
    several("unravel_index", lambda make: [sample(numpy.array([3, 11]), (3, 4))],
            dtypes=("float32",), gradients=()),
    several("Tensor.sum_to_size", lambda make: [sample(make(2, 3), 1, 3), sample(make(2, 3), 3)],
            dtypes=("float32", "int64")),
]

RECORDS = [*VIEWS, *BITS, *COPIES, *JOINING]
