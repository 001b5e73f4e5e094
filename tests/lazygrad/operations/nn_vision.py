"""Resizing, sampling, padding and rearranging images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .record import REAL_AND_COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

F = "nn.functional."
LOOSE = {"float32": (1e-4, 1e-5)}


def _resize(mode: str, *spaces: tuple[int, ...], **settings: Any) -> Any:
    """To larger and smaller sizes, and by factors."""

    def samples(make: Maker) -> Sequence[Sample]:
        found = []
        for space in spaces:
            x = make(2, 2, *space)
            up = tuple(2 * size + 1 for size in space)
            down = tuple(max(size // 2, 1) for size in space)
            found += [sample(x, up, mode=mode, **settings), sample(x, down, mode=mode, **settings)]
            found.append(sample(x, scale_factor=1.7, mode=mode, **settings))
        return found

    return samples


def _grids(mode: str, padding_mode: str, rank: int) -> Any:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make(2, 2, *(4, 5, 3)[:rank])
        grid = make(2, *(3, 2, 2)[:rank], rank, low=-1.6, high=1.6)
        both = (False, True) if mode == "bilinear" and rank == 2 else (padding_mode == "border",)
        return [sample(x, grid, mode, padding_mode, corners) for corners in both]

    return samples



def _padded(mode: str, value: Any = None) -> Any:
    def samples(make: Maker) -> Sequence[Sample]:
        found = [sample(make(2, 3, 5), (1, 2), mode), sample(make(2, 3, 5), (-1, 2), mode),
                 sample(make(2, 3, 4, 5), (2, 0, 1, 1), mode),
                 sample(make(2, 3, 4, 5), (1, -1, 0, 2), mode),
                 sample(make(1, 2, 3, 4, 3), (1, 0, 1, 2, 0, 1), mode)]
        return found if value is None else [
            Sample(each.arguments, {"value": value}) for each in found]

    return samples


MODES = [("nearest", ((5,), (4, 5), (3, 4, 2)), {}), ("nearest-exact", ((5,), (4, 5)), {}),
         ("area", ((5,), (4, 5), (3, 4, 2)), {}),
         ("linear", ((5,),), {}), ("linear", ((5,),), {"align_corners": True}),
         ("bilinear", ((4, 5),), {}), ("bilinear", ((4, 5),), {"align_corners": True}),
         ("bilinear", ((6, 9),), {"antialias": True}),
         ("bicubic", ((4, 5),), {}), ("bicubic", ((4, 5),), {"align_corners": True}),
         ("bicubic", ((7, 9),), {"antialias": True}),
         ("trilinear", ((3, 4, 2),), {}), ("trilinear", ((3, 4, 2),), {"align_corners": True})]

THREE_AXES = {("bilinear", "zeros"), ("bilinear", "reflection"), ("nearest", "border")}

X = Maker("float32")(2, 3, 4, 5)

RECORDS = [
    *(OperationRecord(f"{F}interpolate", _resize(mode, *spaces, **settings), tolerance=LOOSE,
                      variant="-".join([mode, *settings]))
      for mode, spaces, settings in MODES),
    OperationRecord(f"{F}interpolate", lambda make: [
        sample(make(1, 2, 4, 5), scale_factor=(1.5, 0.7), mode="bilinear",
               recompute_scale_factor=True),
        sample(make(1, 2, 4, 4), scale_factor=2, mode="nearest"),
        sample(make(1, 2, 4, 4), 4, mode="bilinear")], tolerance=LOOSE, variant="settings",
        errors=(
            ErrorInput(sample(X), ValueError, "size and scale_factor"),
            ErrorInput(sample(X, 3, 2.0), ValueError, "not both"),
            ErrorInput(sample(X, 3, mode="linear"), NotImplementedError, "axes"),
            ErrorInput(sample(X, 3, mode="some"), NotImplementedError, "there are"),
            ErrorInput(sample(X, 3, align_corners=True), ValueError, "align_corners"),
            ErrorInput(sample(X, 3, antialias=True), ValueError, "antialias"),
            ErrorInput(sample(X, 0), RuntimeError, "at least 1"))),
    *(OperationRecord(f"{F}grid_sample", _grids(mode, padding_mode, rank), tolerance=LOOSE,
                      variant=f"{mode}-{padding_mode}-{rank}d")
      for mode in ("bilinear", "nearest", "bicubic")
      for padding_mode in ("zeros", "border", "reflection")
      for rank in ((2, 3) if (mode, padding_mode) in THREE_AXES else (2,))),
    OperationRecord(f"{F}grid_sample", lambda make: [
        sample(make(1, 1, 3, 3), make(1, 2, 2, 2, low=-4, high=4))], variant="errors",
        gradients=(), errors=(
            ErrorInput(sample(X, X), RuntimeError, "do not fit"),
            ErrorInput(sample(X, X, "some"), ValueError, "mode"),
            ErrorInput(sample(X, X, padding_mode="some"), ValueError, "padding_mode"))),
    OperationRecord(f"{F}affine_grid", lambda make: [
        sample(make(2, 2, 3), (2, 3, 4, 5)), sample(make(2, 2, 3), (2, 3, 4, 5), True),
        sample(make(2, 3, 4), (2, 1, 2, 3, 4), False), sample(make(1, 2, 3), (1, 1, 1, 3), True)],
        tolerance=LOOSE,
        errors=(ErrorInput(sample(X, (2, 3, 4, 5)), ValueError, "theta"),)),
    *(OperationRecord(f"{F}pad", _padded(mode), variant=mode,
                      dtypes=("float32", "float64", "int64", "complex64"),
                      gradients=REAL_AND_COMPLEX, accepts=("rank up at 0", "arguments empty at 1"),
                      note="Every mode pads any number of last axes; PyTorch has kernels for "
                           "some numbers of them.")
      for mode in ("constant", "reflect", "replicate", "circular")),
    OperationRecord(f"{F}pad", _padded("constant", 1.5), variant="value", errors=(
        ErrorInput(sample(X, (1,)), RuntimeError, "pairs"),
        ErrorInput(sample(X, (5, 1), "reflect"), RuntimeError, "reflect"),
        ErrorInput(sample(X, (6, 1), "circular"), RuntimeError, "circular"),
        ErrorInput(sample(X, (-3, -3)), RuntimeError, "cuts more"),
        ErrorInput(sample(X, (1, 1), "reflect", 2.0), ValueError, "value"),
        ErrorInput(sample(X, (1, 1), "some"), NotImplementedError, "mode"))),
    OperationRecord(f"{F}pixel_shuffle", lambda make: [
        sample(make(2, 8, 3, 2), 2), sample(make(9, 2, 2), 3), sample(make(2, 2, 4, 3, 2), 2)],
        dtypes=("float32", "complex64"), gradients=REAL_AND_COMPLEX,
        errors=(ErrorInput(sample(X, 2), RuntimeError, "pixel_shuffle"),)),
    OperationRecord(f"{F}pixel_unshuffle", lambda make: [
        sample(make(2, 2, 6, 4), 2), sample(make(1, 6, 9), 3)],
        dtypes=("float32", "complex64"), gradients=REAL_AND_COMPLEX,
        errors=(ErrorInput(sample(X, 3), RuntimeError, "pixel_unshuffle"),),
        accepts=("sizes empty",),
        note="Of no elements the shape is that of some; PyTorch returns the input."),
    OperationRecord(f"{F}channel_shuffle", lambda make: [
        sample(make(2, 6, 3, 2), 2), sample(make(2, 6, 3), 3)], gradients=(),
        errors=(ErrorInput(sample(X, 2), RuntimeError, "groups"),)),
]
