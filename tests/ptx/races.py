"""Races on shared memory: two threads, one of them writing, with no barrier between them.

Each byte of shared memory carries a tag of its last write and one of its last read: the block's
epoch (counted by `bar.sync`), the warp's epoch (counted by warp-wide synchronisation) and the
thread. A tag of the current block epoch by another thread is a race, unless both are of one warp
and that warp synchronised since.  Several readers of a byte leave a tag that stands for all of
them. Kernels with `mbarrier` or partial barriers order accesses in ways these tags do not follow;
they run without the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.memory import MemoryFault

_SEVERAL = 1023 << 1 | 1  # the low bits of a tag: thread << 1 | "others of the warp too"
_NOBODY = np.int64(-1)


class Races:
    """Tags: block epoch << 40 | warp epoch << 16 | thread << 1 | several;
    -2 - epoch stands for readers of several warps.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.block_epoch = np.zeros(batch.blocks, np.int64)
        self.warp_epoch = np.zeros(batch.lanes // 32, np.int64)
        size = batch.shared.data.size
        self._writes = np.full(size, _NOBODY)
        self._reads = np.full(size, _NOBODY)

    def barrier(self, blocks: np.ndarray) -> None:
        self.block_epoch[blocks] += 1

    def warp(self, lanes: np.ndarray) -> None:
        self.warp_epoch[np.unique(lanes // 32)] += 1

    def _tags(self, lanes: np.ndarray) -> np.ndarray:
        epochs = self.block_epoch[self._batch.lane_block[lanes]] << 40
        return epochs | self.warp_epoch[lanes // 32] << 16 | self._batch.lane_thread[lanes] << 1

    def _conflict(self, old: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """Whether an access tagged `old` is not ordered before one tagged `mine`."""
        epoch = mine >> 40
        several_warps = old == -2 - epoch
        same_epoch = (old >= 0) & (old >> 40 == epoch)
        old_thread, thread = (old >> 1) & 0x3FF, (mine >> 1) & 0x3FF
        same_warp = old_thread >> 5 == thread >> 5
        unordered = ~same_warp | ((old >> 16) & 0xFFFFFF == (mine >> 16) & 0xFFFFFF)
        other = (old_thread != thread) | (old & 1 == 1)
        return several_warps | (same_epoch & other & unordered)

    def _check(self, lanes: np.ndarray, old: np.ndarray, mine: np.ndarray, what: str) -> None:
        conflict = self._conflict(old, mine[:, None])
        if conflict.any():
            element, byte = (int(value) for value in np.argwhere(conflict)[0])
            tag = int(old[element, byte])
            who = f"thread {(tag >> 1) & 0x3FF}" if tag >= 0 else "threads of other warps"
            raise MemoryFault(
                f"race on shared memory: {what} by {who} (linear) with no barrier between",
                int(lanes[element]),
            )

    def write(self, lanes: np.ndarray, index: np.ndarray, size: int) -> None:
        mine = self._tags(lanes)
        reads, writes = self._reads.reshape(-1, size), self._writes.reshape(-1, size)
        at = index // size
        self._check(lanes, writes[at], mine, "this write follows a write")
        self._check(lanes, reads[at], mine, "this write follows a read")
        writes[at] = mine[:, None]

    def read(self, lanes: np.ndarray, index: np.ndarray, size: int) -> None:
        mine = self._tags(lanes)
        reads, writes = self._reads.reshape(-1, size), self._writes.reshape(-1, size)
        at = index // size
        self._check(lanes, writes[at], mine, "this read follows a write")
        old = reads[at]
        tag = mine[:, None]
        current = (old >= 0) & (old >> 40 == tag >> 40)
        same_warp = (old >> 6) & 0x1F == (tag >> 6) & 0x1F
        new = np.where(current & same_warp & (old >> 1 & 0x3FF != tag >> 1 & 0x3FF), tag | 1, tag)
        several = (current & ~same_warp) | (old == -2 - (tag >> 40))
        reads[at] = np.where(several, -2 - (tag >> 40), new)
        # Two lanes of one instruction that read the same byte: the last one's tag stays, for both.
        lost = reads[at] != np.where(several, -2 - (tag >> 40), new)
        if lost.any():
            rows, columns = np.nonzero(lost)
            kept = reads[at[rows], columns]
            both = tag[rows, 0]
            one_warp = (kept >= 0) & ((kept >> 6) & 0x1F == (both >> 6) & 0x1F)
            reads[at[rows], columns] = np.where(one_warp, kept | 1, -2 - (both >> 40))
