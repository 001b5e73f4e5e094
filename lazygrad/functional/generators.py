"""Sources of random numbers: a seed, and how many blocks of four 32-bit words have been drawn.

Numbers are made from both inside kernels (Philox 4x32-10); here the host only moves the count on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy

from lazygrad._core.cell import leaf_of_array
from lazygrad._core.context import fail, now
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.values import check_device
from lazygrad._core.values import device as device_named
from lazygrad_compiler import forks
from lazygrad_compiler.ir.node import Node

__all__ = ["Generator", "manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state"]


def _not_in_recordings(what: str) -> None:
    if now.recording is not None:
        now.recording.refuse(f"{what} takes part in no replay")


def _system_seed() -> int:
    return int.from_bytes(os.urandom(7), "little")


FIRST_SEED = 67280421310721
"""PyTorch's, of a generator that nobody has seeded: each new one gives the same numbers."""


class Generator:
    """A source of random numbers of its own, with its own seed."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device, "Generator")
        self._lock = forks.lock()
        self.manual_seed(FIRST_SEED)

    def __getstate__(self) -> tuple[int, int]:
        return self._seed, self._offset

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._lock = forks.lock()
        self._seed, self._offset = state

    @property
    def device(self) -> Any:
        return device_named("cpu")

    def manual_seed(self, seed: int) -> Generator:
        """Starts over with a seed: any integer of 64 bits, with a sign or without."""
        _not_in_recordings("seeding a generator")
        try:
            seed = seed.__index__()
        except AttributeError:
            raise fail("manual_seed", f"a seed is a whole number, not {seed!r}",
                       kind=TypeError) from None
        if not -2**63 <= seed < 2**64:
            raise fail("manual_seed", f"{seed} has more than 64 bits")
        self._seed, self._offset = seed % 2**64, 0
        return self

    def initial_seed(self) -> int:
        """The seed that it was started with."""
        return self._seed

    def seed(self) -> int:
        """Starts over with a seed from the system; gives it back."""
        return self.manual_seed(_system_seed())._seed

    def get_offset(self) -> int:
        """How many blocks of four words have been drawn."""
        return self._offset

    def set_offset(self, offset: int) -> Generator:
        """Goes to a block of the sequence (0 to 2**64 - 1)."""
        _not_in_recordings("the offset of a generator")
        if not 0 <= int(offset) < 2**64:
            raise fail("set_offset", f"{offset} is no place in the sequence", kind=ValueError)
        self._offset = int(offset)
        return self

    def get_state(self) -> Tensor:
        """Seed and offset as a uint8 tensor of 16 elements, for `set_state`."""
        _not_in_recordings("the state of a generator")
        return wrap(leaf_of_array(self._state().view(numpy.uint8)))

    def set_state(self, state: Tensor) -> Generator:
        """Goes back to a state that `get_state` gave."""
        _not_in_recordings("the state of a generator")
        array = state.numpy() if isinstance(state, Tensor) else numpy.asarray(state)
        if array.dtype != numpy.uint8 or array.shape != (16,):
            raise fail("set_state", f"{array.dtype} {array.shape} is no state of a generator",
                       "Give what get_state() returned.")
        self._seed, self._offset = (int(word) for word in
                                    numpy.ascontiguousarray(array).view(numpy.uint64))
        return self

    graphsafe_get_state, graphsafe_set_state = get_state, set_state

    def clone_state(self) -> Generator:
        """Another generator in the same state."""
        twin = Generator()
        twin._seed, twin._offset = self._seed, self._offset
        return twin

    def _state(self) -> numpy.ndarray:
        return numpy.array([self._seed, self._offset], numpy.uint64).view(numpy.int64)

    def draw(self, blocks: int) -> Node:
        """The state as a node, moved on by so many blocks."""
        if now.traced is not None:
            now.traced.draws()
        if now.recording is not None:
            return now.recording.draw(self, blocks)
        with self._lock:
            state = self._state()
            self._offset = (self._offset + blocks) % 2**64
        return leaf_of_array(state)


generator = Generator().manual_seed(_system_seed())
"""The source that counts where no other is named: other numbers in each process."""


def source_of(name: str, source: Generator | None) -> Generator:
    """The generator given, or the global one; TypeError for anything else."""
    if source is None:
        return generator
    if not isinstance(source, Generator):
        raise fail(name, f"generator is a {type(source).__name__}",
                   "Make one with lazygrad.Generator().", TypeError)
    return source


def manual_seed(seed: int) -> Generator:
    """Starts the global source over: the same seed gives the same numbers."""
    try:
        whole = int(seed)
    except (TypeError, ValueError, OverflowError):
        raise fail("manual_seed", f"a seed is a whole number, not {seed!r}",
                   kind=TypeError) from None
    return generator.manual_seed(whole)


def seed() -> int:
    """Starts the global source over with a seed from the system; gives it back."""
    return generator.seed()


def initial_seed() -> int:
    """The seed of the global source."""
    return generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the global source, for `set_rng_state`."""
    return generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Puts the global source into a state that `get_rng_state` gave."""
    generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **names: Any) -> Iterator[None]:
    """Within the block the global source may be used and seeded; afterwards it is as before."""
    if not enabled:
        yield
        return
    state = generator.clone_state()
    try:
        yield
    finally:
        generator._seed, generator._offset = state._seed, state._offset
