"""Fetching one batch: from an indexed dataset by indices, from a stream by count."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from lazygrad.utils.data.collate import Handed, collate_arrays, default_collate
from lazygrad.utils.data.dataset import IterableDataset, TensorDataset, items_at


class Fetcher:
    """Makes batches.  `batched`: whether the request is a list of indices or a single one.

    What comes out holds `Handed` arrays where the default collation makes tensors.  StopIteration:
    the stream is at its end.
    """

    def __init__(self, dataset: Any, batched: bool, collate_fn: Callable[[Any], Any],
                 drop_last: bool) -> None:
        self.dataset = dataset
        self.batched = batched
        self.collate = collate_arrays if collate_fn is default_collate else collate_fn
        self.drop_last = drop_last
        self.stream = iter(dataset) if isinstance(dataset, IterableDataset) else None

    def fetch(self, request: Any) -> Any:
        if self.stream is not None:
            return self._from_stream(request)
        if not self.batched:
            return self.collate(self.dataset[request])
        if type(self.dataset) is TensorDataset and self.collate is collate_arrays:
            return [Handed(rows) for rows in self.dataset.rows(request)]
        return self.collate(items_at(self.dataset, request))

    def _from_stream(self, request: Any) -> Any:
        assert self.stream is not None
        if not self.batched:
            return self.collate(next(self.stream))
        items = list(islice(self.stream, len(request)))
        if not items or (self.drop_last and len(items) < len(request)):
            raise StopIteration
        return self.collate(items)
