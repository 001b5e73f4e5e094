"""Short-time Fourier transforms: a signal cut into overlapping frames, each transformed."""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, array_of, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional.fourier import c2c, c2r, r2c
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["istft", "stft"]


def _settings(name: str, n_fft: int, hop: int | None, length: int | None) -> tuple[int, int]:
    hop = n_fft // 4 if hop is None else hop
    length = n_fft if length is None else length
    if hop < 1:
        raise fail(name, f"hop_length is at least 1, not {hop}")
    if not 0 < length <= n_fft:
        raise fail(name, f"win_length lies in 1..n_fft ({n_fft}), not {length}")
    return hop, length


def _window(name: str, window: Any, n_fft: int, length: int, example: Node) -> Node:
    """The window padded to n_fft on both sides; ones unless given."""
    if window is None:
        dtype = example.dtype if not example.dtype.is_complex else _real(example)
        node = graph.const(1, dtype, (length,))
    else:
        node = as_node(name, window)
        if node.shape != (length,):
            raise fail(name, f"the window is a vector of win_length ({length}) values, not "
                       f"{listed(node.shape)}")
    left = (n_fft - length) // 2
    return graph.pad(node, [left], [n_fft - length - left])


def _check_cover(window: Tensor | None, length: int, n_fft: int, hop: int, count: int,
                 center: bool, wanted: int | None) -> None:
    """Refuses windows that leave values of the signal without weight, where the window is known.

    The frames overlap alike everywhere but at both ends, so a short signal tells.
    """
    if window is None:
        values = numpy.ones(length)
    elif isinstance(window, Tensor) and node_of(window).payload is not None:
        values = array_of(window).astype(numpy.float64)
    else:
        return
    left = (n_fft - length) // 2
    square = numpy.pad(values, (left, n_fft - length - left)) ** 2
    frames = min(count, 2 * -(-n_fft // hop) + 2)
    weight = numpy.zeros(n_fft + hop * (frames - 1))
    for frame in range(frames):
        weight[frame * hop : frame * hop + n_fft] += square
    start = n_fft // 2 if center else 0
    whole = n_fft + hop * (count - 1)
    # values at the end that are not asked for
    beyond = start if wanted is None else max(whole - start - wanted, 0)
    if beyond < n_fft or frames == count:
        stop = len(weight) - beyond
    else:  # nothing of the end is asked for
        stop = min(whole - beyond, len(weight) - n_fft)
    inside = weight[start : max(stop, start + 1)]
    if inside.size and inside.min() <= 1e-11:
        raise fail("istft", f"windows {hop} apart leave values of the signal without weight "
                   f"(the smallest total is {float(inside.min()):.3g})",
                   "Take a window without zeros, a smaller hop_length, or center=True.")


def _real(node: Node) -> Any:
    from lazygrad.functional._linalg import real_dtype
    return real_dtype(node.dtype)


@method
def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect",
         normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: Any = None) -> Tensor:
    """The transform of frames of n_fft values, hop_length apart: (*, frequencies, frames).

    input: (time,) or (batch, time).  center: the signal is padded by n_fft // 2 on both sides, so
    that frame t is centred at t * hop_length.  onesided (the default for real signals): only the
    first n_fft // 2 + 1 frequencies.  return_complex=False gives real and imaginary part as a last
    axis.
    """
    node = as_node("stft", input)
    if not node.dtype.is_differentiable or node.ndim not in (1, 2):
        raise fail("stft", f"takes a floating signal (time,) or (batch, time), not "
                   f"{node.dtype.name} {listed(node.shape)}")
    if n_fft < 1:
        raise fail("stft", f"n_fft is at least 1, not {n_fft}")
    hop, length = _settings("stft", n_fft, hop_length, win_length)
    taper = _window("stft", window, n_fft, length, node)
    is_complex = node.dtype.is_complex or taper.dtype.is_complex
    onesided = not is_complex if onesided is None else onesided
    if onesided and is_complex:
        raise fail("stft", "a complex signal or window has no half spectrum", "Use onesided=False.")
    if return_complex is None:
        if not is_complex:
            raise fail("stft", "return_complex has to be given for real signals",
                       "Use return_complex=True.")
        return_complex = True
    batch = node.shape[:-1]
    if center:
        node = _padded(node, n_fft // 2, pad_mode)
    if node.shape[-1] < n_fft:
        raise fail("stft", f"n_fft={n_fft} is larger than the {node.shape[-1]} values of the "
                   "signal")
    frames = node_of(wrap(node).unfold(-1, n_fft, hop))  # type: ignore[attr-defined]
    tapered = node_of(wrap(frames) * wrap(taper))
    axes, sizes, norm = (tapered.ndim - 1,), [-1], "ortho" if normalized else None
    spectrum = r2c("stft", tapered, axes, sizes, norm, False) if onesided \
        else c2c("stft", tapered, axes, sizes, norm, False)
    order = (*range(len(batch)), len(batch) + 1, len(batch))
    result = wrap(graph.permute(spectrum, order))
    if return_complex:
        return result
    import lazygrad
    return lazygrad.view_as_real(result)  # type: ignore[attr-defined]


def _padded(node: Node, by: int, mode: str) -> Node:
    """The signal padded on both sides."""
    size = node.shape[-1]
    if mode == "constant":
        zeros = [0] * (node.ndim - 1)
        return graph.pad(node, [*zeros, by], [*zeros, by])
    if mode != "reflect":
        from lazygrad.nn.functional import pad
        batched = wrap(graph.reshape(node, (-(-node.size // max(size, 1)), 1, size)))
        padded = node_of(pad(batched, (by, by), mode))  # type: ignore[attr-defined]
        return graph.reshape(padded, (*node.shape[:-1], size + 2 * by))
    if by >= size:
        raise fail("stft", f"a signal of {size} values cannot be reflected by {by}",
                   "Use a smaller n_fft, center=False or pad_mode='constant'.")
    axis = node.ndim - 1
    if not by:
        return node
    left = graph.make("flip", graph.slice_axis(node, axis, 1, by + 1), attrs=((axis,),))
    right = graph.make("flip", graph.slice_axis(node, axis, size - 1 - by, size - 1),
                       attrs=((axis,),))
    return graph.concat([left, node, right], axis)


def overlap_add(frames: Node, hop: int) -> Node:
    """(batch, frames, n) added up at distances of hop: (batch, (frames - 1) * hop + n).

    Each frame is cut into pieces of hop values, and piece r of all frames is shifted by r places.
    The shifts are a reshape: rows padded by one more than they are read back with.
    """
    batch, count, size = frames.shape
    pieces = math.ceil(size / hop)
    padded = graph.pad(frames, [0, 0, 0], [0, 0, pieces * hop - size])
    padded = graph.reshape(padded, (batch, count, pieces, hop))
    rows = graph.permute(padded, (0, 2, 1, 3))
    rows = graph.pad(rows, [0, 0, 0, 0], [0, 0, pieces, 0])
    flat = graph.reshape(rows, (batch, pieces * (count + pieces), hop))
    flat = graph.slice_axis(flat, 1, 0, pieces * (count + pieces - 1))
    shifted = graph.reshape(flat, (batch, pieces, count + pieces - 1, hop))
    total = graph.reshape(graph.reduce("sum", shifted, (1,)), (batch, (count + pieces - 1) * hop))
    return graph.slice_axis(total, 1, 0, (count - 1) * hop + size)


@method
def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Tensor | None = None, center: bool = True, normalized: bool = False,
          onesided: bool | None = None, length: int | None = None,
          return_complex: bool = False) -> Tensor:
    """The signal of a spectrogram (*, frequencies, frames): the inverse of `stft` (Griffin and Lim
    1984).

    Where the windows of all frames are 0 the signal is not determined: an error, or, with a window
    that is itself not computed yet, infinite or NaN.
    """
    node = as_node("istft", input)
    if not node.dtype.is_complex or node.ndim not in (2, 3):
        raise fail("istft", "takes a complex spectrogram (frequencies, frames), perhaps with a "
                   f"batch, not {node.dtype.name} {listed(node.shape)}")
    hop, window_length = _settings("istft", n_fft, hop_length, win_length)
    if hop > window_length:
        raise fail("istft", f"hop_length {hop} leaves gaps between windows of {window_length}")
    onesided = not return_complex if onesided is None else onesided
    wanted = n_fft // 2 + 1 if onesided else n_fft
    if node.shape[-2] != wanted:
        raise fail("istft", f"n_fft={n_fft} has {wanted} frequencies here, not {node.shape[-2]}")
    if not node.shape[-1]:
        raise fail("istft", "the spectrogram has no frames")
    if return_complex and onesided:
        raise fail("istft", "half a spectrum belongs to a real signal",
                   "Use onesided=False with return_complex=True.")
    taper = _window("istft", window, n_fft, window_length, node)
    _check_cover(window, window_length, n_fft, hop, node.shape[-1], center, length)
    batch = node.shape[:-2]
    node = graph.reshape(node, (math.prod(batch), *node.shape[-2:]))
    node = graph.permute(node, (0, 2, 1))
    norm = "ortho" if normalized else None
    if return_complex:
        frames = c2c("istft", node, (2,), [-1], norm, True)
    else:  # a real signal is told by the first half of its spectrum
        half = graph.slice_axis(node, 2, 0, n_fft // 2 + 1)
        frames = c2r("istft", half, (2,), [n_fft], norm, True)
    count = frames.shape[1]
    signal = overlap_add(node_of(wrap(frames) * wrap(taper)), hop)
    squares = graph.broadcast(graph.mul(taper, taper), (1, count, n_fft))
    weight = overlap_add(squares, hop)
    start = n_fft // 2 if center else 0
    end = signal.shape[1] - start if length is None else start + length
    if end <= start:
        raise fail("istft", f"{signal.shape[1]} values are too few to cut {n_fft // 2} from both "
                   "sides")
    # Cut before the division: windows end in 0, and 0 / 0 would reach the gradient of all frames.
    stop = min(end, signal.shape[1])
    cut = node_of(wrap(graph.slice_axis(signal, 1, start, stop))
                  / wrap(graph.slice_axis(weight, 1, start, stop)))
    cut = graph.pad(cut, [0, 0], [0, end - stop])
    return wrap(graph.reshape(cut, (*batch, cut.shape[1])))
