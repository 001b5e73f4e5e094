"""Benchmarks: lazygrad beside torch, torch.compile and JAX on the same work, on two threads.

    python -m tests.benchmarks [--only NAME,...] [--quick] [--peers torch,torch.compile,jax]
                               [--markdown FILE] [--list]

A row is a `Benchmark` (`registry`), made in the file of its subject.  `harness` checks that the
contestants agree on the values, then times them in turn, round by round.
`lazygrad_runtime.peak` measures what the machine could do at best; `table` shows both.  Nothing
here asserts a speed.
"""
