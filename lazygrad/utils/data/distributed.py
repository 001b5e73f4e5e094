"""Sharing a dataset out among processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lazygrad as lg
from lazygrad.utils.data.randomness import numpy_generator
from lazygrad.utils.data.sampler import Sampler


class DistributedSampler(Sampler[int]):
    """Every num_replicas-th index, from rank on, of an order that all processes draw alike.

    All get equally many: the first indices come twice, or with drop_last the last ones not at all.
    shuffle: another order for each epoch, told by set_epoch() and seed.
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None,
                 shuffle: bool = True, seed: int = 0, drop_last: bool = False) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError("DistributedSampler: there is no process group to ask; pass "
                               "num_replicas, the number of processes, and rank, this one's number")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval "
                             f"[0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.seed = seed
        total = len(dataset)
        self.num_samples = total // num_replicas if drop_last else -(-total // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        total = len(self.dataset)
        if self.shuffle:
            generator = lg.Generator().manual_seed(self.seed + self.epoch)
            order = numpy_generator(generator).permutation(total).tolist()
        else:
            order = list(range(total))
        return iter([order[position % total]
                     for position in range(self.rank, self.total_size, self.num_replicas)])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next, so that each has an order of its own."""
        self.epoch = epoch
