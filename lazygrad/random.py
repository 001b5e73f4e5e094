"""`lazygrad.random`: the global source of random numbers, as `torch.random` has it."""

from lazygrad.functional.generators import (
    Generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from lazygrad.functional.generators import generator as default_generator

__all__ = ["Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed",
           "manual_seed", "seed", "set_rng_state"]
