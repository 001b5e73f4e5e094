"""Lowering of a large concatenation that nothing else is fused with: a launch for each piece.

Pulled like any other movement op, a concat asks at each element which piece it lies in, and loads
from all of them under masks.  A launch of its own for a piece asks nothing: it computes the piece,
with all that is fused into it, and stores at a constant distance.  Two float32 vectors of 16M
elements took 21 ms as one kernel and take 4 to 6 ms as two (two cores; 256 MB moved).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lazygrad_compiler.ir.node import Node, node
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.lower import Group, is_woven, lower_rows

LARGE_PIECE = 1 << 16
"""Elements of a piece from which on a launch is worth its start and its compilation."""
MOST_PIECES = 8


def comes_in_pieces(group: Group) -> bool:
    """Whether the group is a concatenation alone, of a few large pieces."""
    if group.kind != "loops" or len(group.roots) != 1:
        return False
    root = group.roots[0]
    if root.op != "concat" or is_woven(root):
        return False
    sizes = [piece.size for piece in root.inputs if piece.size]
    return 1 < len(sizes) <= MOST_PIECES and min(sizes) >= LARGE_PIECE


def lower_pieces(group: Group, stored: Callable[[Node], bool]) -> list[Launch]:
    """Each piece into its part of the result."""
    (root,) = group.roots
    axis, start = root.attrs[0], 0
    launches = []
    for piece in root.inputs:
        if piece.size:
            # a marker, since optimised graphs have none: the piece may be stored elsewhere, too
            copy = node("stop_gradient", piece, location=root.location)
            alone = Group("loops", [copy], {copy}, rows=piece.size,
                          placed={copy: (root, axis, start)})
            launches.append(replace(lower_rows(alone, stored), about="concat piece"))
        start += piece.shape[axis]
    return launches
