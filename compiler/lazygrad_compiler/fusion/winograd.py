"""Large 3x3 convolutions by Winograd's algorithm: fewer multiplications, more bytes.

In: a graph before `prepare`.  Out: each float32 convolution of stride 1 with a 3x3 kernel, and each
gradient of such a one's weights, for which it is faster by our count as maps before and after a
product with a batch of 36 (`ir/winograd.py`).  The weights are mapped by a node of their own.  All
else stays a `conv`.
"""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological
from lazygrad_compiler.ir.winograd import POINTS, TAPS, tiles_along

CHANNELS = 16
"""Channels come in multiples of it: whole vectors of any target."""

# Cycles on Zen 5.  Products of 16 lanes come two a cycle, less what edges and loads cost; maps are
# those of a tile of one channel, or of a pair of channels; bytes go out and come back, far ones
# through memory.
DIRECT_PRODUCT, TILE_PRODUCT = 1 / 32 / 0.85, 1 / 32 / 0.8
MAP_WINDOW, MAP_IMAGE, MAP_WEIGHTS = 300 / 16, 250 / 16, 350 / 16
NEAR_BYTE, FAR_BYTE, NEAR_BYTES = 1 / 16, 1 / 4, 1 << 24
LAUNCHES = 400_000
"""Of both threads, for three launches more, each short of work at its end."""
GAIN = 0.85
"""Part of the direct convolution's cycles that Winograd's may take, to be worth its rounding."""


def with_winograd(graph: Graph) -> Graph:
    """The graph with the convolutions that gain rewritten."""
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        result[current] = _rewritten(made) if made.op == "conv" else made
    return Graph(tuple(result[output] for output in graph.outputs))


def _rewritten(conv: Node) -> Node:
    strides, padding, left_dilation, right_dilation, groups = conv.attrs
    ones = (1, 1)
    if (
        conv.dtype is not dtypes.float32
        or conv.ndim != 4
        or groups != 1
        or not conv.size
        or not strides == left_dilation == right_dilation == ones
        or min(min(pair) for pair in padding) < 0
    ):
        return conv
    if conv.inputs[1].shape[2:] == (TAPS, TAPS):
        return _forward(conv)
    if conv.shape[2:] == (TAPS, TAPS):
        return _of_weights(conv)
    return conv


def gains(count: int, into: int, out: int, height: int, width: int, of_weights: bool) -> bool:
    """Whether a convolution to height x width results is worth it, or the gradient of its weights.

    Measured, direct and so, in ms on two cores: 16x64x56x56 to 64 channels 10.2 and 4.6, with its
    gradients 30.1 and 12.8; 32x256x8x8 to 256 with gradients 16.5 and 6.7; 32x512x4x4 to 512 with
    gradients 18.0 and 12; on about one core 4x32x64x64 to 32 with gradients 4.4 and 1.6.
    """
    if into % CHANNELS or out % CHANNELS or not count * height * width * into * out:
        return False
    tiles = count * tiles_along(height) * tiles_along(width)
    direct = count * height * width * into * out * TAPS * TAPS * DIRECT_PRODUCT
    cycles = POINTS * tiles * into * out * TILE_PRODUCT
    cycles += tiles * (into * MAP_WINDOW + out * (MAP_WINDOW if of_weights else MAP_IMAGE))
    cycles += into * out * MAP_WEIGHTS
    nbytes = POINTS * 4 * (tiles * (into + out) + into * out)
    cycles += nbytes * (NEAR_BYTE if nbytes <= NEAR_BYTES else FAR_BYTE)
    return cycles + LAUNCHES < GAIN * direct


def _part(value: Node, part: str, *geometry: int, where: Node) -> Node:
    return node("winograd", value, part=part, geometry=geometry, location=where.location)


def _product(left: Node, right: Node, over: tuple[int, int], where: Node) -> Node:
    return node(
        "dot", left, right, left_batch=(0,), right_batch=(0,), left_contract=over[:1],
        right_contract=over[1:], location=where.location,
    )  # fmt: skip


def _rows(tiles: int) -> int:
    """An odd number, so that what belongs to one tile does not fall on one set of the caches."""
    return tiles | 1


def _forward(conv: Node) -> Node:
    value, weight = conv.inputs
    (top, _), (left, _) = conv.attrs[1]
    count, out, height, width = conv.shape
    if not gains(count, value.shape[1], out, height, width, of_weights=False):
        return conv
    down, across = tiles_along(height), tiles_along(width)
    rows = _rows(count * down * across)
    windows = _part(value, "windows", top, left, down, across, rows, where=conv)
    plain = _turned_back(weight)
    weights = _part(plain or weight, "weights", int(plain is not None), where=conv)
    products = _product(windows, weights, (2, 1), conv)
    return _part(products, "image", count, height, width, where=conv)


def _turned_back(weight: Node) -> Node | None:
    """The weights of which these are the transposed ones, taps in reverse order; None where they
    are not, or where that is one number.
    """
    steps = {"flip": ((2, 3),), "permute": ((1, 0, 2, 3),)}
    seen = set()
    while weight.op in steps and weight.op not in seen and weight.attrs == steps[weight.op]:
        seen.add(weight.op)
        weight = weight.inputs[0]
    return weight if len(seen) == 2 else None


def _of_weights(conv: Node) -> Node:
    """The sum over images (whose axis is that of channels here) and positions."""
    value, cotangent = (_first_two_exchanged(operand) for operand in conv.inputs)
    (top, _), (left, _) = conv.attrs[1]
    count, out, height, width = cotangent.shape
    into = value.shape[1]
    if not gains(count, into, out, height, width, of_weights=True):
        return conv
    down, across = tiles_along(height), tiles_along(width)
    rows = _rows(count * down * across)
    windows = _part(value, "windows", top, left, down, across, rows, where=conv)
    tiles = _part(cotangent, "tiles", 0, 0, down, across, rows, where=conv)
    products = _product(tiles, windows, (1, 1), conv)
    return _first_two_exchanged(_part(products, "taps", where=conv))


def _first_two_exchanged(value: Node) -> Node:
    order = (1, 0, 2, 3)
    if value.op == "permute" and value.attrs == (order,):
        return value.inputs[0]
    return node("permute", value, order=order, location=value.location)


