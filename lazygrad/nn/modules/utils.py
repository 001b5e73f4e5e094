"""`_single`, `_pair`, `_triple`: a number for each axis, as layers take their sizes; and names of
parameters without a wrapper's prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def _ntuple(n: int) -> Callable[[Any], tuple[Any, ...]]:
    def parse(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, Iterable) else (value,) * n
    return parse


_single, _pair, _triple, _quadruple = _ntuple(1), _ntuple(2), _ntuple(3), _ntuple(4)


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Takes the prefix, such as the "module." of `DataParallel`, off all names that have it."""
    metadata = getattr(state_dict, "_metadata", {})
    for table in (state_dict, metadata):
        for name in [name for name in table if name.startswith(prefix)]:
            table[name[len(prefix):]] = table.pop(name)
    if prefix.removesuffix(".") in metadata:  # the wrapper's own becomes the root's
        metadata[""] = metadata.pop(prefix.removesuffix("."))
