"""Winograd's convolution (Lavin and Gray 2016, arXiv:1509.09308), F(4x4, 3x3): the op `winograd`.

A 3x3 convolution of stride 1 is computed a tile of 4x4 results at a time: 36 products for each pair
of channels instead of 144.  The op has the linear maps around those products, which are a `dot`
with a batch of 36; attribute `part` says which, `geometry` is of that part:

  windows  (N, C, H, W) -> (36, rows, C): 6x6 windows, four apart, seen through INPUT on both sides;
           geometry (top, left, tiles down, tiles across, rows): padding, tiles of one image, rows
  tiles    (N, C, H, W) -> (36, rows, C): 4x4 tiles seen through OUTPUT transposed; for the
           gradient of the weights; geometry as of windows, without padding
  weights  (O, I, 3, 3) -> (36, I, O): seen through WEIGHTS; geometry (turned,): whether the array
           is (I, O, 3, 3) and its taps are in reverse order, as for the gradient of the input
  image    (36, rows, C) -> (N, C, H, W): 4x4 results of each tile; geometry (N, H, W)
  taps     (36, O, I) -> (O, I, 3, 3): for the gradient of the weights; geometry ()

A row is a tile: images in order, tiles of one row by row.  Rows beyond the last tile are zeros.
Outside of an image there are zeros.

The interpolation points are 0, 1, -1, 2, -2 and infinity.  Rounding errors are some ten times those
of a direct sum in float32 (measured: root mean square 1.5e-6 of that of the results for 64
channels, against 2.6e-7), and one infinity or NaN reaches all results of the tiles that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.dtypes import DType, float32
from lazygrad_compiler.ir.inference import OpDef, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

Matrix = tuple[tuple[float, ...], ...]

TILE = 4
"""Results along an axis of a tile."""
SIDE = 6
"""Of a window, and of a tile's products."""
POINTS = SIDE * SIDE
TAPS = 3

INPUT: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHTS: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT: Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


MATRICES: dict[str, Matrix] = {
    "windows": INPUT,
    "tiles": transposed(OUTPUT),
    "weights": WEIGHTS,
    "image": OUTPUT,
    "taps": transposed(WEIGHTS),
}
"""By part: what both axes are multiplied by."""


def infer_winograd(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    (value,), (part, geometry) = inputs, attrs
    if part not in MATRICES:
        raise fail(definition, f"has the parts {', '.join(MATRICES)}, not {part!r}")
    if value.dtype is not float32:
        raise fail(definition, f"is defined for float32, not {value.dtype.name}")
    shape = _fitting(value.shape, part, geometry)
    if shape is None:
        raise fail(definition, f"{part} of {listed(value.shape)} does not fit {geometry}")
    return value.dtype, shape


def _fitting(shape: Shape, part: str, geometry: tuple[int, ...]) -> Shape | None:
    """The result's shape; None where the operand does not fit."""
    if len(shape) != (3 if part in ("image", "taps") else 4):
        return None
    if part in ("windows", "tiles"):
        top, left, down, across, rows = geometry
        over = SIDE - TILE if part == "windows" else 0
        count, channels, height, width = shape
        fits = (
            min(top, left) >= 0
            and top + height <= TILE * down + over
            and left + width <= TILE * across + over
            and rows >= count * down * across
        )
        return (POINTS, rows, channels) if fits else None
    if part == "weights":
        into, out = shape[:2] if geometry[0] else shape[1::-1]
        return (POINTS, into, out) if shape[2:] == (TAPS, TAPS) else None
    if part == "taps":
        return (*shape[1:], TAPS, TAPS) if shape[0] == POINTS else None
    count, height, width = geometry
    tiles = count * tiles_along(height) * tiles_along(width)
    return (count, shape[2], height, width) if shape[0] == POINTS and shape[1] >= tiles else None


def tiles_along(length: int) -> int:
    return -(-length // TILE)


# ---- the meaning, in NumPy


def _seen(matrix: Matrix, value: numpy.ndarray) -> numpy.ndarray:
    """Both last axes multiplied by the matrix, as the two first axes of the result, joined."""
    m = numpy.array(matrix, value.dtype)
    made = numpy.matmul(numpy.matmul(m, value), m.T)
    return numpy.moveaxis(made.reshape(*made.shape[:-2], -1), -1, 0)


def reference(node: Node, inputs: Sequence[numpy.ndarray]) -> numpy.ndarray:
    part, geometry = node.attrs
    value, matrix = inputs[0], MATRICES[part]
    if part in ("windows", "tiles"):
        return _windows(value, matrix, geometry)
    if part == "weights":
        if geometry[0]:
            value = numpy.flip(value.swapaxes(0, 1), (2, 3))
        return _seen(matrix, value.swapaxes(0, 1))
    square = numpy.moveaxis(value, 0, -1).reshape(*value.shape[1:], SIDE, SIDE)
    made = _seen(matrix, square)
    side = len(matrix)
    if part == "taps":
        return numpy.moveaxis(made, 0, -1).reshape(*value.shape[1:], side, side)
    count, height, width = geometry
    down, across = tiles_along(height), tiles_along(width)
    made = made[:, : count * down * across].reshape(side, side, count, down, across, -1)
    whole = made.transpose(2, 5, 3, 0, 4, 1).reshape(count, -1, down * side, across * side)
    return whole[:, :, :height, :width]


def _windows(value: numpy.ndarray, matrix: Matrix, geometry: Any) -> numpy.ndarray:
    top, left, down, across, rows = geometry
    count, channels, height, width = value.shape
    side = len(matrix[0])
    over = side - TILE
    padded = numpy.zeros(
        (count, channels, down * TILE + over, across * TILE + over), value.dtype
    )
    padded[:, :, top : top + height, left : left + width] = value
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, (side, side), (2, 3))
    seen = _seen(matrix, windows[:, :, ::TILE, ::TILE])
    result = numpy.zeros((POINTS, rows, channels), value.dtype)
    tiles = count * down * across
    result[:, :tiles] = seen.transpose(0, 1, 3, 4, 2).reshape(POINTS, tiles, channels)
    return result
