"""Small programs in a cache, and running one of its entries as the runtime would."""

from __future__ import annotations

import numpy

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.target import host
from lazygrad_runtime import store
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import CacheEntry
from lazygrad_runtime.memory import allocate
from lazygrad_runtime.program import Program

EXP = """\
graph()
%0 = input(0) : float32[37]    # train.py:3
%1 = exp(%0) : float32[37]    # train.py:4
%2 = mul(%1, %1) : float32[37]    # train.py:5
return %2
"""
SUM = """\
graph()
%0 = input(0) : float32[37]    # train.py:3
%1 = sum(%0, axes=(0,)) : float32[]    # train.py:7
return %1
"""


def compiled_into(cache: CompileCache, text: str = EXP) -> CacheEntry:
    """Compiles a graph into the cache, as a script would; returns the entry."""
    graph = parse_graph(text)
    artifact, _ = store.compile_for(graph, host())
    assert store.keep(cache, fields_of(text), graph, artifact)
    found = cache.lookup(fields_of(text))
    assert found is not None
    return found


def fields_of(text: str) -> dict[str, str | int]:
    return store.key_fields(print_graph(parse_graph(text), locations=False), host())


def values_of(entry: CacheEntry) -> numpy.ndarray:
    """What the entry's native code computes for 37 numbers."""
    objects = {name: entry.read(name) for name in entry.meta["objects"]}
    x = numpy.linspace(-1, 1, 37, dtype=numpy.float32)
    given = allocate(x.nbytes)
    given.as_numpy(x.dtype, x.shape)[:] = x
    (result,) = Program(Artifact.from_description(entry.meta, objects)).run([given])
    return result.as_numpy(numpy.float32, tuple(entry.meta["outputs"][0][1]))


EXPECTED = numpy.exp(numpy.linspace(-1, 1, 37, dtype=numpy.float32)) ** 2
