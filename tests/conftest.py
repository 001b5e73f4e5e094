"""What all tests share."""

import gc
from collections.abc import Iterator

import pytest

from lazygrad_compiler.ir import node


@pytest.fixture(scope="module", autouse=True)
def short_collections() -> Iterator[None]:
    """What a module leaves behind (programs, torch's tables) is not walked over by the collections
    of the tests that follow.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_nodes() -> Iterator[None]:
    """Nodes made in this test are not those of graphs that other tests left: equal nodes are one
    node, with the line that came first.  (The table stays the same object: native code has it.)
    """
    before = dict(node._interned)
    node._interned.clear()
    yield
    node._interned.clear()
    node._interned.update({key: entry for key, entry in before.items() if entry() is not None})
